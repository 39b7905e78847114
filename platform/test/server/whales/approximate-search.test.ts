/**
 * A promoted store is searched by its own index: the same words, filters and fusion as on the exact path, never short, and only as long as the index was
 * measured to find enough. Neighbours notice nothing of it, and it nothing of them.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type ApproximateSearch,
  approximateArm,
  approximateArms,
  type IndexedStore,
} from '../../../src/adapters/postgres/documents-search-approximate.ts';
import { candidateStatement } from '../../../src/adapters/postgres/documents-search-arms.ts';
import { RecallWatch } from '../../../src/adapters/postgres/recall-watch.ts';
import { seededRandom } from '../../../src/primitives/random.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import type { AttributeFilter } from '../../../src/tenancy/attributes.ts';
import type { HybridQuery, RetrievedChunk } from '../../../src/tenancy/capabilities.ts';
import type { Principal } from '../../../src/tenancy/principal.ts';
import { fingerprint, Library, sql } from '../../retrieval/library.ts';
import { principalOf, tenantId } from '../../support/embedded-database.ts';
import { clusteredEmbedder, clusteredQuestion, keeperOf, longStore, longText, operator, shortChunks, sweep } from './whale-world.ts';

const bounds = { dedicatedChunksMin: 1_000, recallSampleQueries: 60 };
const watch = new RecallWatch(0.98, silentLogger);
const search = (principal: Principal, changes: Partial<ApproximateSearch> = {}): ApproximateSearch => ({
  tenantId: principal.tenantId,
  chunksMin: 500,
  scanTuplesMax: 100_000,
  shadowShare: 0,
  random: seededRandom(5),
  watch,
  ...changes,
});

let library: Library;
let storeId: string;
let neighbour: string;
let theirs: string;

beforeAll(async () => {
  library = await Library.open({ embedder: clusteredEmbedder, approximateFor: (principal) => search(principal) });
  const [same] = await library.truth<{ id: string }>(
    `SELECT 'n-' || n AS id FROM generate_series(1, 60) n WHERE hashtext('n-' || n) & 3 = hashtext('whale') & 3 LIMIT 1`,
  );
  neighbour = same?.id ?? '';
  theirs = await longStore(library, neighbour, { files: 4, chunksEach: 20 });
  storeId = await longStore(library, 'whale', { files: 40, chunksEach: 60 });
}, 240_000);
afterAll(() => library[Symbol.asyncDispose]());

async function storeRow(id = storeId): Promise<IndexedStore> {
  const [row] = await library.truth<IndexedStore>('SELECT *, false AS has_drafts FROM app.vector_store WHERE id = $1', [id]);
  if (row === undefined) throw new Error('no such store');
  return row;
}

const filters: readonly (AttributeFilter | undefined)[] = [
  undefined,
  { type: 'eq', key: 'half', value: 'odd' },
  { type: 'lt', key: 'number', value: 30 },
];
const questions: readonly HybridQuery[] = Array.from({ length: 60 }, (_, index) => {
  const filter = filters[index % filters.length];
  return clusteredQuestion(longText(index, 1), { limit: 10, ...(filter !== undefined && { filter }) });
});

/** As the product searches it, and with every approximate path closed. */
async function both(query: HybridQuery): Promise<{ readonly near: readonly RetrievedChunk[]; readonly exact: readonly RetrievedChunk[] }> {
  const near = (await library.shelves('whale').vectorStores.search(storeId, query)) ?? [];
  await library.truth('UPDATE app.vector_store SET index_space_no = 1000 WHERE id = $1', [storeId]);
  const exact = (await library.shelves('whale').vectorStores.search(storeId, query)) ?? [];
  await library.truth('UPDATE app.vector_store SET index_space_no = space_no WHERE id = $1', [storeId]);
  return { near, exact };
}

/** Whether the index answered, and its arms. */
async function armsOf(query: HybridQuery, changes: Partial<ApproximateSearch> = {}) {
  const principal = principalOf('whale');
  const store = await storeRow();
  return library.db.database.forTenant(principal).read(async (db) => {
    await sql`SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`.execute(db);
    return approximateArms(db, { store, query }, search(principal, changes));
  });
}

async function planOf(
  tenant: string,
  statement: (store: IndexedStore) => ReturnType<typeof candidateStatement>,
  id: string,
): Promise<string> {
  const store = await storeRow(id);
  const rows = await library.db.database.forTenant(principalOf(tenant)).read(async (db) => {
    await sql`SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`.execute(db);
    return (await sql<{ 'QUERY PLAN': string }>`EXPLAIN ${statement(store)}`.execute(db)).rows;
  });
  return rows.map((row) => row['QUERY PLAN']).join('\n');
}

const leavesIn = (plan: string) => [...new Set(plan.match(/embedding_384_s\d+/g) ?? [])];

describe('a large store', () => {
  it('is searched exactly until its index is built and measured, and by it from then on', async () => {
    const neighbours = fingerprint(await library.shelves(neighbour).vectorStores.search(theirs, clusteredQuestion('rent')));
    expect(await armsOf(clusteredQuestion('rent'))).toBeUndefined();
    const states: string[] = [];
    const keeper = keeperOf(library, {
      bounds,
      onStep: async (step) => {
        if (step !== 'built' && step !== 'measured') return;
        const [store] = (await keeper.find(operator, tenantId('whale'))).stores;
        states.push(`${step}: ${store?.placement} ${store?.search}`);
        expect(await armsOf(clusteredQuestion('rent')).then((arms) => arms === undefined)).toBe(step === 'built');
      },
    });
    await sweep(keeper);
    expect(states).toEqual(['built: dedicated exact', 'measured: dedicated approximate']);
    const [store] = (await keeper.find(operator, tenantId('whale'))).stores;
    expect(store?.recall).toBeGreaterThanOrEqual(0.98);
    expect(store?.measuredAtMs).toBeGreaterThan(0);
    expect(fingerprint(await library.shelves(neighbour).vectorStores.search(theirs, clusteredQuestion('rent')))).toBe(neighbours);
  }, 60_000);

  it('by a plan that walks the index of its own leaf; a pooled store by one that walks none, in one leaf', async () => {
    const query = clusteredQuestion('rent');
    const { shard_id: shard } = await storeRow();
    const own = await planOf('whale', (store) => candidateStatement(store, query, approximateArm(store, query)), storeId);
    expect(own).toContain(`Index Scan using embedding_384_s${shard}_n1_v1 on embedding_384_s${shard}`);
    expect(leavesIn(own)).toEqual([`embedding_384_s${shard}`]);
    const exact = await planOf('whale', (store) => candidateStatement(store, query), storeId);
    expect(exact).not.toContain('_n1_v1');
    const pooled = await planOf(neighbour, (store) => candidateStatement(store, query), theirs);
    expect(pooled).not.toMatch(/_n\d+_v\d+/);
    expect(leavesIn(pooled)).toHaveLength(1);
    expect(leavesIn(pooled)[0]).toMatch(/_s[0-3]$/);
  });

  it('answers as the exact path does, filters and words included: never short, and 0.98 of the same ten', async () => {
    let same = 0;
    for (const query of questions) {
      const { near, exact } = await both(query);
      expect(near).toHaveLength(10);
      if (query.filter?.type === 'eq') expect(near.every(({ attributes }) => attributes['half'] === 'odd')).toBe(true);
      if (query.filter?.type === 'lt') expect(near.every(({ attributes }) => Number(attributes['number']) < 30)).toBe(true);
      const wanted = new Set(exact.map(({ chunkId }) => chunkId));
      same += near.filter(({ chunkId }) => wanted.has(chunkId)).length / 10;
      // Where the arms agree the scores do, to the last bit.
      if (near.every(({ chunkId }) => wanted.has(chunkId))) expect(fingerprint(near)).toBe(fingerprint(exact));
    }
    expect(same / questions.length).toBeGreaterThanOrEqual(0.98);
  }, 60_000);

  it('is searched exactly when few chunks pass the filter, and when the index comes back short', async () => {
    const narrow = clusteredQuestion('rent', { filter: { type: 'eq', key: 'number', value: 7 } });
    expect(await armsOf(narrow)).toBeUndefined();
    const { near, exact } = await both(narrow);
    expect(near.length).toBe(10);
    expect(fingerprint(near)).toBe(fingerprint(exact));
    // Planted: few rows pass, they are asked of the index all the same, and it looks at few rows and gives up.
    const halved = clusteredQuestion('rent', { filter: { type: 'eq', key: 'half', value: 'odd' } });
    expect(await armsOf(halved)).toBeDefined();
    const { index_ef_search: efSearch } = await storeRow();
    await library.truth('UPDATE app.vector_store SET index_ef_search = 1 WHERE id = $1', [storeId]);
    expect(await armsOf(narrow, { chunksMin: 1, scanTuplesMax: 1 })).toBeUndefined();
    await library.truth('UPDATE app.vector_store SET index_ef_search = $2 WHERE id = $1', [storeId, efSearch]);
  });

  it('finds what is written after the build, and not what is hidden or gone', async () => {
    const { files, vectorStores } = library.shelves('whale');
    const text = longText(77_777, 1);
    const file = await files.create({ filename: 'late.txt', purpose: 'assistants', body: Buffer.from(text) });
    await vectorStores.attachFile(storeId, { fileId: file.id, attributes: {}, chunking: shortChunks });
    await library.worker.drain();
    const [content] = (await vectorStores.fileContent(storeId, file.id)) ?? [];
    const query = clusteredQuestion(content ?? '');
    expect(await armsOf(query)).toBeDefined();
    expect((await vectorStores.search(storeId, query))?.[0]?.fileId).toBe(file.id);
    await library.truth(`UPDATE app.vector_store_file SET status = 'in_progress', draft = 'planted' WHERE file_id = $1`, [file.id]);
    expect((await vectorStores.search(storeId, query))?.some(({ fileId }) => fileId === file.id)).toBe(false);
    await library.truth(`UPDATE app.vector_store_file SET status = 'completed', draft = NULL WHERE file_id = $1`, [file.id]);
    await vectorStores.detachFile(storeId, file.id);
    expect((await vectorStores.search(storeId, query))?.some(({ fileId }) => fileId === file.id)).toBe(false);
  });

  it('answers bit for bit the same whatever its neighbours do, and they whatever it does', async () => {
    const ask = async (tenant: string, id: string) => {
      const answers: string[] = [];
      for (const query of questions.slice(0, 30)) answers.push(fingerprint(await library.shelves(tenant).vectorStores.search(id, query)));
      return answers;
    };
    const before = await ask('whale', storeId);
    const late = await longStore(library, 'latecomer', { files: 10, chunksEach: 60 });
    await library.shelves(neighbour).vectorStores.delete(theirs);
    await library.truth(
      `UPDATE app.embedding_384 SET embedding = (SELECT array_agg(sin(n * (ordinal + file_no)))::public.vector FROM generate_series(1, 384) n) WHERE tenant_id = 'latecomer'`,
    );
    expect(await ask('whale', storeId)).toEqual(before);
    const foreign = await ask('latecomer', late);
    const keeper = keeperOf(library, { bounds });
    await keeper.wish(operator, tenantId('whale'), 'pooled');
    await sweep(keeper);
    expect(await ask('latecomer', late)).toEqual(foreign);
    await keeper.wish(operator, tenantId('whale'), undefined);
    await sweep(keeper);
    expect(await ask('latecomer', late)).toEqual(foreign);
  }, 120_000);

  it('goes back to the exact path when shadow questions find its index wanting, here at once and everywhere with the next sweep', async () => {
    const query = clusteredQuestion('rent');
    expect(await armsOf(query)).toBeDefined();
    const failing = new RecallWatch(0.98, silentLogger);
    const { store_no: storeNo, space_no: spaceNo } = await storeRow();
    for (let count = 0; count < 64; count++) failing.note({ tenantId: tenantId('whale'), storeNo, spaceNo }, 0.9);
    expect(await armsOf(query, { watch: failing })).toBeUndefined();
    const keeper = keeperOf(library, { bounds, watch: failing });
    await sweep(keeper);
    const [store] = (await keeper.find(operator, tenantId('whale'))).stores;
    expect(store).toMatchObject({ placement: 'dedicated', search: 'exact' });
    expect(store?.recall).toBeCloseTo(0.9, 5);
    expect(await armsOf(query)).toBeUndefined();
  });

  it('compares the share of questions that it is told to, and answers those exactly', async () => {
    await library.truth('UPDATE app.vector_store SET index_ef_search = 128, index_recall = 1 WHERE id = $1', [storeId]);
    const noted: number[] = [];
    const listening = new RecallWatch(0, silentLogger);
    listening.note = (_, recall) => void noted.push(recall);
    for (let count = 0; count < 5; count++)
      expect(await armsOf(clusteredQuestion('rent'), { shadowShare: 1, watch: listening })).toBeDefined();
    expect(noted).toHaveLength(5);
    for (let count = 0; count < 5; count++) await armsOf(clusteredQuestion('rent'), { shadowShare: 0, watch: listening });
    expect(noted).toHaveLength(5);
    expect(Math.min(...noted)).toBeGreaterThanOrEqual(0.9);
  });

  it('is searched exactly when its space changes, until that one has an index; the old index goes', async () => {
    const keeper = keeperOf(library, { bounds });
    await library.truth('UPDATE app.vector_store SET index_space_no = NULL, index_ef_search = NULL, index_recall = NULL WHERE id = $1', [
      storeId,
    ]);
    await sweep(keeper);
    const query = clusteredQuestion('rent');
    expect(await armsOf(query)).toBeDefined();
    const { store_no: storeNo, shard_id: shard } = await storeRow();
    await library.truth(
      `INSERT INTO app.embedding_384 (tenant_id, shard_id, store_no, file_no, ordinal, space_no, embedding)
       SELECT tenant_id, shard_id, store_no, file_no, ordinal, 2, embedding FROM app.embedding_384 WHERE tenant_id = 'whale' AND store_no = $1 AND space_no = 1`,
      [storeNo],
    );
    await library.truth('UPDATE app.vector_store SET next_space_no = 3, space_no = 2 WHERE id = $1', [storeId]);
    expect(await armsOf(query)).toBeUndefined();
    await sweep(keeper);
    expect(await armsOf(query)).toBeDefined();
    const indexes = await library.truth<{ relname: string }>(`SELECT relname FROM pg_class WHERE relname ~ '_n[0-9]+_v[0-9]+$'`);
    expect(indexes.map(({ relname }) => relname)).toEqual([`embedding_384_s${shard}_n${storeNo}_v2`]);
  }, 60_000);

  it('never uses an index that found less than the floor', async () => {
    const keeper = keeperOf(library, { bounds: { ...bounds, recallMin: 1.01 } });
    await library.truth('UPDATE app.vector_store SET index_space_no = NULL, index_ef_search = NULL, index_recall = NULL WHERE id = $1', [
      storeId,
    ]);
    await sweep(keeper);
    const [store] = (await keeper.find(operator, tenantId('whale'))).stores;
    expect(store).toMatchObject({ placement: 'dedicated', search: 'exact' });
    expect(store?.recall).toBeGreaterThan(0.9);
    expect(await armsOf(clusteredQuestion('rent'))).toBeUndefined();
  }, 60_000);
});
