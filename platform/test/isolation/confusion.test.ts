/**
 * Confusion: thousands of requests of dozens of tenants, interleaved over shared keep-alive connections, some of them aborted, some for other
 * tenants' ids. Everything that comes back or stays behind (answers, headers, stream events, what the provider saw, log, metrics, ledger,
 * every row of every tenant table) may hold its own tenant's canary and ids alone.
 *
 * Run again with the seed it prints: CONFUSION_SEED=... Faults that were planted and seen:
 *  - a module-level "current scope" in serve-inference.ts, set when a turn is taken and read when it is billed;
 *  - the slot of the credential cache cut to its first character, so that tenants share entries;
 *  - the answers of a search kept in serve-retrieval.ts under the question alone.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { sealedColumns } from '../../src/adapters/postgres/sealed-columns.ts';
import { localMasterKey } from '../../src/encryption/local-master-key.ts';
import { masterKeys } from '../../src/encryption/master-key.ts';
import { type Random, seededRandom } from '../../src/primitives/random.ts';
import { openTestDatabase, principalOf, type TestDatabase } from '../support/embedded-database.ts';
import { testKeyRing } from '../support/key-ring.ts';
import { type Answered, type Member, marksIn, openWorld, type Sending, vectorOf, type World } from './confusion-world.ts';

const seed = Number(process.env['CONFUSION_SEED'] ?? 20_261_123);
const tenants = 24;
const requestsTotal = 4_000;
const workers = 48;
/** Fewer than workers: requests wait for a connection, and each connection carries many tenants. */
const connections = 32;

let world: World;
let database: TestDatabase;
let metrics = '';
let usage = '';
/** Request id -> tenant. */
const requests = new Map<string, string>();
const statuses = new Map<string, number>();

beforeAll(async () => {
  console.log(`confusion test: seed ${seed}`);
  const random = seededRandom(seed);
  world = await openWorld({ tenants, connections, random: seededRandom(seed + 1) });
  let sent = 0;
  const work = async () => {
    while (sent++ < requestsTotal) await attempt(random);
  };
  await Promise.all(Array.from({ length: workers }, work));
  // What was hung up on is billed when its upstream's stream has ended.
  await vi.waitUntil(async () => (await world.admin('GET', '/metrics')).text.includes('bulkhead_in_flight 0\n'), { timeout: 10_000 });
  usage = (await world.admin('GET', '/admin/v1/usage?group_by=key,model')).text;
  metrics = (await world.admin('GET', '/metrics')).text;
  await world.bulkhead.stop();
  const { dataDir } = world.bulkhead;
  const masterKey = localMasterKey(Buffer.from(readFileSync(join(dataDir, 'at-rest.key'), 'utf8'), 'base64'));
  database = await openTestDatabase({ dataDir, keyRing: testKeyRing({ masters: masterKeys(masterKey) }) });
}, 120_000);
afterAll(async () => {
  await database?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

interface Attempt {
  readonly sending: Sending;
  readonly status: number;
  /** Foreign ids the request names itself; an error may repeat them. */
  readonly asked?: readonly string[];
  /** What an answer must hold. */
  readonly wants?: readonly string[];
  readonly verify?: (answer: Answered) => boolean;
}

let nonce = 0;

async function attempt(random: Random): Promise<void> {
  const member = pick(world.members, random);
  const other = pick(
    world.members.filter((candidate) => candidate !== member),
    random,
  );
  const [name, make] = pick(deck, random);
  const made = make(member, { other, random, mark: `${member.canary} number ${nonce++}.` });
  const answer = await world.send(member, made.sending);
  statuses.set(name, (statuses.get(name) ?? 0) + 1);
  inspect(member, { name, made, answer });
}

function inspect(
  member: Member,
  { name, made, answer }: { readonly name: string; readonly made: Attempt; readonly answer: Answered },
): void {
  const { ownership } = world;
  const text = name.includes('stream') ? `${answer.text}\n${streamedText(answer.text)}` : answer.text;
  ownership.check(member.id, name, text, made.asked);
  ownership.check(member.id, `a header of ${name}`, JSON.stringify(answer.headers), made.asked);
  ownership.expect(answer.status === made.status, `${name}: status ${answer.status}, not ${made.status}: ${answer.text.slice(0, 200)}`);
  for (const want of made.wants ?? [])
    ownership.expect(text.includes(want), `${name} of ${member.id} lacks ${want}: ${text.slice(0, 300)}`);
  ownership.expect(made.verify?.(answer) ?? true, `${name} of ${member.id} got somebody else's answer`);
  const limit = answer.headers['x-ratelimit-limit-requests'];
  ownership.expect(
    limit === undefined || Number(limit) === member.requestsPerMinute,
    `${name} of ${member.id} shows a limit of ${String(limit)}`,
  );
  const requestId = String(answer.headers['x-request-id']);
  ownership.expect(!requests.has(requestId), `${requestId} was given twice`);
  requests.set(requestId, member.id);
  if (answer.status === 200)
    ownership.add(member.id, ...marksIn(text).filter((mark) => !world.ownership.owners.has(mark) && !mark.startsWith('qzcnry')));
}

/** What a client makes of the deltas of both dialects. */
function streamedText(text: string): string {
  let content = '';
  for (const line of text.split('\n')) {
    if (!line.startsWith('data: {') || !line.endsWith('}')) continue;
    const event = JSON.parse(line.slice(6)) as {
      readonly type?: string;
      readonly delta?: string;
      readonly choices?: readonly { readonly delta?: { readonly content?: string } }[];
    };
    content += (event.type === 'response.output_text.delta' ? event.delta : event.choices?.[0]?.delta?.content) ?? '';
  }
  return content;
}

interface Circumstances {
  readonly other: Member;
  readonly random: Random;
  /** The member's canary and a number nobody else has. */
  readonly mark: string;
}
type Make = (member: Member, circumstances: Circumstances) => Attempt;

const post = (path: string, body: unknown): Sending => ({ method: 'POST', path, body });
const get = (path: string): Sending => ({ method: 'GET', path });
const chatBody = (mark: string, stream: boolean) => ({
  model: 'echo',
  stream,
  user: mark,
  messages: [{ role: 'user', content: `say ${mark}` }],
});
const fileSearch = (storeId: string) => [{ type: 'file_search', vector_store_ids: [storeId] }];
const question = 'What is the vault word of this house?';

const repertoire: readonly (readonly [weight: number, name: string, make: Make])[] = [
  [20, 'chat', (_, { mark }) => ({ sending: post('/v1/chat/completions', chatBody(mark, false)), status: 200, wants: [mark] })],
  [
    18,
    'chat stream',
    (_, { mark }) => ({ sending: post('/v1/chat/completions', chatBody(mark, true)), status: 200, wants: [mark, '[DONE]'] }),
  ],
  [
    8,
    'aborted chat stream',
    (_, { mark, random }) => ({
      sending: { ...post('/v1/chat/completions', chatBody(mark, true)), leaveAfterBytes: 1 + random.next() * 400 },
      status: 200,
    }),
  ],
  [
    12,
    'embeddings',
    (member) => ({
      sending: post('/v1/embeddings', { model: 'local-hash-384', input: member.canary }),
      status: 200,
      verify: ({ text }) => vectorOf(text) === member.embedding,
    }),
  ],
  [
    5,
    'response with file search',
    ({ canary, storeId }, { mark }) => ({
      sending: post('/v1/responses', { model: 'echo', input: `${question} ${mark}`, tools: fileSearch(storeId) }),
      status: 200,
      wants: [mark, `house is ${canary}`],
    }),
  ],
  [
    4,
    'response stream with file search',
    ({ canary, storeId }, { mark }) => ({
      sending: post('/v1/responses', { model: 'echo', stream: true, input: `${question} ${mark}`, tools: fileSearch(storeId) }),
      status: 200,
      wants: [mark, `house is ${canary}`, 'response.completed'],
    }),
  ],
  [
    3,
    'continued response',
    ({ canary, responseId }, { mark }) => ({
      sending: post('/v1/responses', { model: 'echo', input: mark, previous_response_id: responseId }),
      status: 200,
      wants: [mark, `first ${canary}`],
    }),
  ],
  [
    5,
    'search',
    ({ canary, storeId }) => ({ sending: post(`/v1/vector_stores/${storeId}/search`, { query: question }), status: 200, wants: [canary] }),
  ],
  [3, 'file', ({ canary, fileId }) => ({ sending: get(`/v1/files/${fileId}`), status: 200, wants: [fileId, `${canary}.md`] })],
  [
    3,
    'file content',
    ({ canary, fileId }) => ({ sending: get(`/v1/files/${fileId}/content`), status: 200, wants: [`house is ${canary}`] }),
  ],
  [2, 'files', ({ fileId }) => ({ sending: get('/v1/files'), status: 200, wants: [fileId] })],
  [2, 'store', ({ canary, storeId }) => ({ sending: get(`/v1/vector_stores/${storeId}`), status: 200, wants: [canary] })],
  [2, 'stores', ({ storeId }) => ({ sending: get('/v1/vector_stores'), status: 200, wants: [storeId] })],
  [1, 'store files', ({ fileId, storeId }) => ({ sending: get(`/v1/vector_stores/${storeId}/files`), status: 200, wants: [fileId] })],
  [
    2,
    'stored response',
    ({ canary, responseId }) => ({ sending: get(`/v1/responses/${responseId}`), status: 200, wants: [`first ${canary}`] }),
  ],
  [
    2,
    'refused chat',
    (_, { mark }) => ({ sending: post('/v1/chat/completions', { ...chatBody(mark, false), model: 'none' }), status: 404 }),
  ],
  [1, 'another’s file', (_, { other }) => ({ sending: get(`/v1/files/${other.fileId}`), status: 404, asked: [other.fileId] })],
  [
    1,
    'another’s file content',
    (_, { other }) => ({ sending: get(`/v1/files/${other.fileId}/content`), status: 404, asked: [other.fileId] }),
  ],
  [1, 'another’s store', (_, { other }) => ({ sending: get(`/v1/vector_stores/${other.storeId}`), status: 404, asked: [other.storeId] })],
  [
    1,
    'search of another’s store',
    (_, { other }) => ({
      sending: post(`/v1/vector_stores/${other.storeId}/search`, { query: question }),
      status: 404,
      asked: [other.storeId],
    }),
  ],
  [
    1,
    'file search in another’s store',
    (_, { other }) => ({
      sending: post('/v1/responses', { model: 'echo', input: question, tools: fileSearch(other.storeId) }),
      status: 404,
      asked: [other.storeId],
    }),
  ],
  [
    1,
    'another’s file in one’s own store',
    ({ storeId }, { other }) => ({
      sending: post(`/v1/vector_stores/${storeId}/files`, { file_id: other.fileId }),
      status: 404,
      asked: [other.fileId],
    }),
  ],
  [
    1,
    'another’s response',
    (_, { other }) => ({ sending: get(`/v1/responses/${other.responseId}`), status: 404, asked: [other.responseId] }),
  ],
  [
    1,
    'another’s response continued',
    (_, { other }) => ({
      sending: post('/v1/responses', { model: 'echo', input: 'on', previous_response_id: other.responseId }),
      status: 404,
      asked: [other.responseId],
    }),
  ],
];
const deck = repertoire.flatMap(([weight, name, make]) => Array.from({ length: weight }, () => [name, make] as const));

function pick<T>(items: readonly T[], random: Random): T {
  return items[Math.floor(random.next() * items.length)] as T;
}

/** At most a few, because one fault shows everywhere. */
function expectNone(violations: readonly string[]): void {
  expect({ count: violations.length, first: violations.slice(0, 5) }).toEqual({ count: 0, first: [] });
}

describe(`${requestsTotal} interleaved requests of ${tenants} tenants`, () => {
  it('took every way there is, on connections that many tenants shared', () => {
    expect(new Set(statuses.keys())).toEqual(new Set(repertoire.map(([, name]) => name)));
    expect([...statuses.values()].reduce((sum, count) => sum + count)).toBe(requestsTotal);
    const shares = [...world.served.values()].map((served) => served.size).toSorted((left, right) => right - left);
    expect(shares[Math.floor(connections / 4)]).toBeGreaterThan(tenants / 4);
  });

  it('answered each tenant with its own alone, in bodies, headers and stream events, and told the provider nothing mixed', () => {
    expectNone(world.ownership.violations);
  });

  it('logged each request under its own tenant, and no canary', () => {
    const owners = new Map(world.members.map(({ id, keyId }) => [keyId, id]));
    const wrong: string[] = [];
    let seen = 0;
    for (const line of world.bulkhead.log().trim().split('\n')) {
      if (line.includes('qzcnry')) wrong.push(line);
      const { requestId, tenantId, keyId } = JSON.parse(line) as Readonly<Record<string, string | undefined>>;
      if (tenantId === undefined) continue;
      seen++;
      const owner = requestId === undefined ? undefined : requests.get(requestId);
      if (owner !== undefined && owner !== tenantId) wrong.push(line);
      if (keyId !== undefined && owners.get(keyId) !== tenantId) wrong.push(line);
    }
    expectNone(wrong);
    expect(seen).toBeGreaterThanOrEqual(requestsTotal);
  });

  it('billed each request to its own tenant and key', async () => {
    const keys = new Map(world.members.map(({ id, keyId }) => [id, keyId]));
    const rows = await database.database.withClient(
      async (client) =>
        (await client.query<LedgerRow>('SELECT tenant_id, key_id, user_id, request_id, endpoint FROM app.usage_event')).rows,
    );
    const wrong = rows.filter((row) => {
      const owner = requests.get(row.request_id) ?? row.tenant_id;
      return owner !== row.tenant_id || keys.get(row.tenant_id) !== row.key_id || row.user_id !== `key:${row.key_id}`;
    });
    expectNone(wrong.map((row) => JSON.stringify(row)));
    const billed = new Set(rows.map((row) => row.request_id));
    expect([...requests.keys()].filter((id) => billed.has(id)).length).toBeGreaterThan(requestsTotal / 2);
    const summed = (
      JSON.parse(usage) as { readonly data: readonly { readonly tenant: string; readonly key: string; readonly requests: number }[] }
    ).data;
    expectNone(summed.filter(({ tenant, key }) => keys.get(tenant) !== key).map((row) => JSON.stringify(row)));
    for (const { id } of world.members) {
      const events = rows.filter((row) => row.tenant_id === id).length;
      expect(countedRequests(id), `requests of ${id} in the metrics`).toBe(events);
    }
  });

  it('left every row of every tenant table with its own canary alone, and no canary in ledger, metrics or journal', async () => {
    const found = await truthScan();
    expectNone(found.wrong);
    expect(found.tables).toEqual(expect.arrayContaining(['chunk', 'file', 'file_part', 'response', 'vector_store']));
    expect(found.tables).not.toContain('usage_event');
    expect(metrics).toContain('bulkhead_tenant_requests_total');
    expect(metrics + usage).not.toContain('qzcnry');
    const journal = join(world.bulkhead.dataDir, 'journal');
    for (const name of readdirSync(journal)) {
      for (const line of readFileSync(join(journal, name), 'utf8').split('\n')) {
        expect(line.includes('qzcnry')).toBe(false);
        expect(new Set(marksIn(line).filter((mark) => mark.startsWith('tn-'))).size).toBeLessThanOrEqual(1);
      }
    }
  });
});

interface LedgerRow {
  readonly tenant_id: string;
  readonly key_id: string;
  readonly user_id: string;
  readonly request_id: string;
  readonly endpoint: string;
}

function countedRequests(tenant: string): number {
  const series = metrics.split('\n').filter((line) => line.startsWith(`bulkhead_tenant_requests_total{tenant="${tenant}"`));
  return series.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

interface StoredText {
  readonly table: string;
  readonly tenantId: string;
  readonly text: string;
}

/** Where the canaries really are: every row as the superuser sees it, and what is sealed as its tenant opens it. */
async function truthScan(): Promise<{ readonly wrong: readonly string[]; readonly tables: readonly string[] }> {
  const owners = new Map(world.members.map(({ id, canary }) => [canary, id]));
  const marked = [...(await plainTexts()), ...(await sealedTexts())].filter(({ text }) => text.includes('qzcnry'));
  const wrong = marked.flatMap(({ table, tenantId, text }) => {
    const strangers = marksIn(text).filter((mark) => mark.startsWith('qzcnry') && owners.get(mark) !== tenantId);
    return strangers.length === 0 ? [] : [`a row of ${table} of ${tenantId} has ${strangers.join(' ')}`];
  });
  return { wrong, tables: [...new Set(marked.map(({ table }) => table))] };
}

async function plainTexts(): Promise<readonly StoredText[]> {
  return database.database.withClient(async (client) => {
    const { rows: names } = await client.query<{ readonly name: string }>(
      "SELECT relname AS name FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition",
    );
    const found: StoredText[] = [];
    for (const { name } of names) {
      const { rows } = await client.query<{ readonly tenant_id: string; readonly text: string }>(
        `SELECT tenant_id, t::text AS text FROM app.${name} t WHERE t::text LIKE '%qzcnry%'`,
      );
      found.push(...rows.map(({ tenant_id, text }) => ({ table: name, tenantId: tenant_id, text })));
    }
    return found;
  });
}

/** A value that stands under another tenant than the one that sealed it does not open, and fails the test. */
async function sealedTexts(): Promise<readonly StoredText[]> {
  const found: StoredText[] = [];
  for (const column of sealedColumns) {
    const keys = column.rowKey.map((name) => `${name}::text`).join(', ');
    const rows = await database.database.withClient(async (client) => {
      const statement = `SELECT tenant_id, ARRAY[${keys}] AS key, ${column.column} AS record FROM app.${column.table} WHERE ${column.column} IS NOT NULL`;
      return (await client.query<{ readonly tenant_id: string; readonly key: string[]; readonly record: Buffer }>(statement)).rows;
    });
    for (const { tenant_id: tenantId, key, record } of rows) {
      const { cipher } = database.database.forTenant(principalOf(tenantId));
      const [value] = await cipher.openAll(column, [{ row: key, record }]);
      found.push({ table: column.table, tenantId, text: String(value) });
    }
  }
  return found;
}
