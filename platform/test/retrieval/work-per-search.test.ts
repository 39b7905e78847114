import { sql } from 'kysely';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Sql } from '../../src/adapters/postgres/database.ts';
import { candidateStatement, type SearchedStore } from '../../src/adapters/postgres/documents-search-arms.ts';
import { Library, question } from './library.ts';

/**
 * What a search costs must not tell a tenant about its neighbours: the rows that it reads are the same whether a neighbour on the same
 * shard is empty or holds a thousand chunks around the very question. Counted, not timed, so that it cannot fail by chance;
 * `npm run bench -- timing` measures the time itself.
 */
const asked = 'When must the tenant pay the rent and the deposit?';
const documents = Array.from(
  { length: 40 },
  (_, index) => `The tenant pays the rent of month ${index}. ${'The deposit is kept. '.repeat(index % 5)}`,
);

let library: Library;
let neighbour: string;
let storeId: string;
beforeAll(async () => {
  library = await Library.open();
  const [same] = await library.truth<{ id: string }>(
    `SELECT 'n-' || n AS id FROM generate_series(1, 60) n WHERE hashtext('n-' || n) & 3 = hashtext('acme') & 3 LIMIT 1`,
  );
  neighbour = same?.id ?? '';
  storeId = await library.storeOf('acme', documents, (index) => ({ year: 2_000 + (index % 5) }));
}, 120_000);
afterAll(() => library[Symbol.asyncDispose]());

/** Both times: what the planner knows of a table changes its plan, not what is read. */
const analyse = 'ANALYZE app.embedding_384, app.posting, app.chunk, app.vector_store, app.vector_store_file, app.file';

interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Actual Rows': number;
  readonly 'Actual Loops': number;
  readonly 'Rows Removed by Filter'?: number;
  readonly Plans?: readonly PlanNode[];
}

/** Rows that the scans of each retrieval table read, handed on or thrown away. Which kind of scan it is the planner's choice. */
function workOf(plan: PlanNode): Readonly<Record<string, number>> {
  const work: Record<string, number> = {};
  const visit = (node: PlanNode): void => {
    const table = /^(embedding|posting)/.exec(node['Relation Name'] ?? '')?.[1];
    const rows = (node['Actual Rows'] + (node['Rows Removed by Filter'] ?? 0)) * node['Actual Loops'];
    if (table !== undefined) work[table] = (work[table] ?? 0) + rows;
    for (const child of node.Plans ?? []) visit(child);
  };
  visit(plan);
  return work;
}

async function storeRow(): Promise<SearchedStore> {
  const [store] = await library.truth<SearchedStore>('SELECT *, false AS has_drafts FROM app.vector_store WHERE id = $1', [storeId]);
  if (store === undefined) throw new Error('the store is there');
  return store;
}

/** The statement as a search runs it, under row-level security with the settings that a search makes. */
async function searchWork(changes: Parameters<typeof question>[1] = {}): Promise<Readonly<Record<string, number>>> {
  const store = await storeRow();
  const database = library.db.database.forTenant(library.shelves('acme').principal);
  return database.read(async (db: Sql) => {
    await sql`SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`.execute(db);
    const { rows } = await sql<{ readonly 'QUERY PLAN': readonly { readonly Plan: PlanNode }[] }>`
      EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) ${candidateStatement(store, question(asked, changes))}`.execute(db);
    return workOf(rows[0]?.['QUERY PLAN'][0]?.Plan as PlanNode);
  });
}

/** The same nearest rows without the key of the tenant in front: what one shared scan with a filter behind it reads. */
async function unwalledWork(): Promise<Readonly<Record<string, number>>> {
  const store = await storeRow();
  const rows = await library.truth<{ readonly 'QUERY PLAN': readonly { readonly Plan: PlanNode }[] }>(
    `EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT ordinal FROM app.embedding_384 e WHERE e.tenant_id || '' = 'acme' AND shard_id = $1
      ORDER BY (embedding OPERATOR(public.<=>) embedding) + 0 LIMIT 10`,
    [store.shard_id],
  );
  return workOf(rows[0]?.['QUERY PLAN'][0]?.Plan as PlanNode);
}

test('a search reads the same rows whatever its neighbour on the shard holds', async () => {
  const filter = { type: 'gte', key: 'year', value: 2_002 } as const;
  await library.truth(analyse);
  const before = { plain: await searchWork(), filtered: await searchWork({ filter }), unwalled: await unwalledWork() };
  // The measure measures: every vector of the store, each word of the question in the chunks that hold it.
  expect(before.plain['embedding']).toBe(40);
  // PostgreSQL 17 and 18 know different stop words.
  expect(before.plain['posting']).toBeGreaterThan(100);

  await library.storeOf(
    neighbour,
    Array.from({ length: 60 }, (_, index) => `${asked} ${'The tenant pays the rent and the deposit. '.repeat(8)} ${index}`),
  );
  await library.truth(analyse);

  expect(await searchWork()).toEqual(before.plain);
  expect(await searchWork({ filter })).toEqual(before.filtered);
  // The planted fault: a scan of everybody's rows with a filter behind it shows the neighbour in its work.
  expect(await unwalledWork()).not.toEqual(before.unwalled);
}, 120_000);
