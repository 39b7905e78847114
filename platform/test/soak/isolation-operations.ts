/** What tenants do, and try: each operation reports every foreign id it was shown and every answer that is not complete. */
import { DatabaseStatementError } from '../../src/adapters/postgres/database-error.ts';
import type { Random } from '../../src/primitives/random.ts';
import type { AttributeFilter } from '../../src/tenancy/attributes.ts';
import type { IsolationWorld, Member } from './isolation-world.ts';

export interface Findings {
  /** What belongs to another tenant and was answered. */
  readonly foreign: string[];
  /** Fewer, or more, results than there are. */
  readonly short: string[];
  /** Refusals and failures that should not be. */
  readonly wrong: string[];
}

export interface Turn {
  readonly world: IsolationWorld;
  readonly random: Random;
  readonly me: Member;
  readonly other: Member;
  readonly findings: Findings;
}

type Operation = (turn: Turn) => Promise<void>;

/** Files a tenant has beyond those it began with, at most. */
const lateFilesMax = 8;
const beginningFiles = 6;
const embeddingModel = 'local-hash-384';

/** Name, how often, what. */
export const operations: readonly (readonly [string, number, Operation])[] = [
  ['search', 60, searchOwn],
  ['search a foreign store', 8, searchForeign],
  ['read files', 8, readFiles],
  ['read foreign files', 8, readForeign],
  ['change foreign things', 4, changeForeign],
  ['read without a condition', 6, readUnconditioned],
  ['index', 3, indexFile],
  ['delete', 3, deleteFile],
  ['forget what is in memory', 0.5, forgetMemory],
];

async function searchOwn({ world, random, me, findings }: Turn): Promise<void> {
  const { text, embedding } = world.duplicates.question();
  const filter = pick(filters, random)?.(random);
  const limit = 1 + Math.floor(random.next() * 50);
  const weights = { dense: random.next() < 0.2 ? 0 : random.next(), lexical: random.next() < 0.2 ? 0 : 1 };
  const [changes, expected] = [me.changes, Math.min(limit, world.matching(me, filter))];
  const found = await world.searchesOf(me).search(me.storeId, { text, embedding, embeddingModel, filter, limit, weights });
  for (const chunk of found ?? []) {
    for (const id of [chunk.fileId, chunk.vectorStoreId]) checkOwner(world, me, { id, where: 'search', findings });
    if (chunk.ownerId !== me.name) findings.foreign.push(`search of ${me.name}: a row of ${chunk.ownerId}`);
  }
  const isStill = changes % 2 === 0 && me.changes === changes;
  if (isStill && found?.length !== expected) {
    findings.short.push(`search of ${me.name}: ${found?.length} of ${expected}, filter ${JSON.stringify(filter)}`);
  }
}

async function searchForeign({ world, me, other, findings }: Turn): Promise<void> {
  const { text, embedding } = world.duplicates.question();
  const found = await me.vectorStores.search(other.storeId, {
    text,
    embedding,
    embeddingModel,
    limit: 10,
    weights: { dense: 1, lexical: 1 },
  });
  if (found !== undefined) findings.foreign.push(`${me.name} searched the store of ${other.name}: ${found.length} results`);
}

async function readFiles({ world, random, me, findings }: Turn): Promise<void> {
  const page = { limit: 100, order: random.next() < 0.5 ? 'asc' : 'desc' } as const;
  const files = await me.files.list(page);
  const attached = await me.vectorStores.listFiles(me.storeId, page, {});
  const stores = await me.vectorStores.list(page);
  const ids = [...files.items, ...(attached?.items ?? []), ...stores.items].map(({ id }) => id);
  for (const id of ids) checkOwner(world, me, { id, where: 'list', findings });
  if (attached === undefined || stores.items.length !== 1) findings.wrong.push(`${me.name} does not see its own store`);
}

async function readForeign({ random, me, other, findings }: Turn): Promise<void> {
  const id = pick([...other.indexed.keys()], random);
  if (id === undefined) return;
  const answers = [
    await me.files.get(id),
    await me.files.read(id),
    await me.vectorStores.get(other.storeId),
    await me.vectorStores.getFile(other.storeId, id),
    await me.vectorStores.getFile(me.storeId, id),
    await me.vectorStores.fileContent(other.storeId, id),
    await me.vectorStores.listFiles(other.storeId, { limit: 10, order: 'asc' }, {}),
  ];
  const at = answers.findIndex((answer) => answer !== undefined);
  if (at >= 0) findings.foreign.push(`${me.name} read ${id} of ${other.name} (${at})`);
}

async function changeForeign({ world, random, me, other, findings }: Turn): Promise<void> {
  const id = pick([...other.indexed.keys()], random);
  if (id === undefined) return;
  const attached = { fileId: id, attributes: {}, chunking: { type: 'auto', maxChunkTokens: 800, overlapTokens: 400 } } as const;
  const answers = [
    await me.files.delete(id),
    (await me.vectorStores.attachFile(me.storeId, attached)) !== undefined,
    await me.vectorStores.detachFile(other.storeId, id),
    await me.vectorStores.delete(other.storeId),
    (await me.vectorStores.updateFileAttributes(other.storeId, id, { taken: true })) !== undefined,
  ];
  const at = answers.indexOf(true);
  if (at >= 0) findings.foreign.push(`${me.name} changed ${id} of ${other.name} (${at})`);
  if (other.indexed.has(id) && world.ownerOf(id) === other.name && (await other.files.get(id)) === undefined && other.indexed.has(id)) {
    findings.wrong.push(`${id} of ${other.name} is gone`);
  }
}

const tables = ['chunk', 'posting', 'embedding_384', 'file', 'file_part', 'vector_store', 'vector_store_file'];
/** As nobody, as somebody who is not there, as nonsense: no context sees a row. */
const contexts = [undefined, '', 'nobody-here', "' OR 1=1 --", '%'];

async function readUnconditioned({ world, random, me, findings }: Turn): Promise<void> {
  const table = pick(tables, random) ?? 'chunk';
  const context = random.next() < 0.5 ? me.name : pick(contexts, random);
  const owners = await ownersSeen(world, table, context);
  const foreign = owners.filter((owner) => owner !== context);
  if (foreign.length > 0) findings.foreign.push(`app.${table} as ${context}: rows of ${foreign.join(', ')}`);
}

/** Everybody whose rows a transaction sees that names no tenant in its statement. Without a context the database refuses. */
async function ownersSeen(world: IsolationWorld, table: string, context: string | undefined): Promise<readonly string[]> {
  try {
    return await world.library.db.database.withClient(async (client) => {
      await client.query("BEGIN READ ONLY; SELECT set_config('role', 'bulkhead_runtime', true)");
      try {
        if (context !== undefined) await client.query("SELECT set_config('app.tenant_id', $1, true)", [context]);
        const { rows } = await client.query<{ readonly tenant_id: string }>(`SELECT DISTINCT tenant_id FROM app.${table}`);
        return rows.map((row) => row.tenant_id);
      } finally {
        await client.query('ROLLBACK');
      }
    });
  } catch (error) {
    const isRefusal = error instanceof DatabaseStatementError && error.sqlState === '42501' && !context;
    if (!isRefusal) throw error;
    return [];
  }
}

async function indexFile({ world, me }: Turn): Promise<void> {
  if (me.changes % 2 === 0 && me.indexed.size < beginningFiles + lateFilesMax) await world.index(me, world.duplicates.file(me.number));
}

async function deleteFile({ world, me, findings }: Turn): Promise<void> {
  // The latest, so that the near-duplicates everybody began with stay.
  const [id] = [...me.indexed.keys()].slice(beginningFiles).slice(-1);
  if (me.changes % 2 !== 0 || id === undefined) return;
  if (!(await world.remove(me, id))) findings.wrong.push(`${me.name} could not delete its own ${id}`);
}

async function forgetMemory({ world, random, me }: Turn): Promise<void> {
  if (random.next() < 0.2) await world.library.residents.clear();
  else world.library.residents.drop(world.library.shelves(me.name).principal.tenantId);
}

/** Some let everything through, some nothing, some are hostile: quotes, patterns, names of columns, deep nesting. */
const filters: readonly ((random: Random) => AttributeFilter | undefined)[] = [
  () => undefined,
  () => undefined,
  () => undefined,
  (random) => ({ type: 'eq', key: 'part', value: Math.floor(random.next() * 7) }),
  (random) => ({ type: 'lt', key: 'part', value: random.next() * 100 }),
  () => ({ type: 'in', key: 'language', value: ['xquad-en', 'xquad-zh'] }),
  () => ({ type: 'eq', key: 'shared', value: 'everybody' }),
  () => ({ type: 'ne', key: 'tenant_id', value: 'soak-0' }),
  () => ({ type: 'eq', key: 'tenant_id', value: 'soak-0' }),
  () => ({ type: 'eq', key: "part' OR true --", value: "x' OR '1'='1" }),
  () => ({ type: 'nin', key: '$1::text) IS NOT NULL OR (true', value: ['); DROP TABLE app.file; --', '%', '\\'] }),
  (random) => ({
    type: 'or',
    filters: [
      {
        type: 'and',
        filters: [
          { type: 'eq', key: 'even', value: true },
          { type: 'gte', key: 'part', value: 2 },
        ],
      },
      {
        type: 'and',
        filters: [
          { type: 'ne', key: 'even', value: true },
          { type: 'lt', key: 'part', value: random.next() * 6 },
        ],
      },
    ],
  }),
];

function checkOwner(
  world: IsolationWorld,
  me: Member,
  { id, where, findings }: { readonly id: string; readonly where: string; readonly findings: Findings },
): void {
  const owner = world.ownerOf(id);
  if (owner !== me.name) findings.foreign.push(`${where} of ${me.name}: ${id} of ${owner ?? 'nobody'}`);
}

export function pick<Item>(items: readonly Item[], random: Random): Item | undefined {
  return items[Math.floor(random.next() * items.length)];
}
