/**
 * Large stores move to a shard of their tenant's own and back while they are searched and written. A model says what must be there: nothing is lost, nothing
 * doubled, no search sees a hole, and neighbours notice nothing.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PostgresIngestionShelf } from '../../../src/adapters/postgres/documents-ingestion.ts';
import type { PlacementStep } from '../../../src/adapters/postgres/placement-keeper.ts';
import { describeFindings, lintCatalogue } from '../../../src/audit/catalogue-lint.ts';
import { fingerprint, Library, sql } from '../../retrieval/library.ts';
import { principalOf, tenantId } from '../../support/embedded-database.ts';
import {
  addTenant,
  clusteredEmbedder,
  clusteredQuestion,
  clusteredVector,
  keeperOf,
  longStore,
  longText,
  operator,
  shardsOf,
  shortChunks,
  sweep,
} from './whale-world.ts';

let library: Library;
let still: string;
let neighbour: string;
const questions = Array.from({ length: 8 }, (_, index) =>
  clusteredQuestion(longText(index, 1), index % 2 === 0 ? {} : { filter: { type: 'eq', key: 'half', value: 'even' }, limit: 20 }),
);

beforeAll(async () => {
  library = await Library.open({ embedder: clusteredEmbedder });
  still = await longStore(library, 'whale', { files: 70, chunksEach: 4 });
  // The neighbour's rows lie in the same pooled shard.
  const [same] = await library.truth<{ id: string }>(
    `SELECT 'n-' || n AS id FROM generate_series(1, 60) n WHERE hashtext('n-' || n) & 3 = hashtext('whale') & 3 LIMIT 1`,
  );
  neighbour = same?.id ?? '';
  await longStore(library, neighbour, { files: 6, chunksEach: 4 });
}, 180_000);
afterAll(() => library[Symbol.asyncDispose]());

async function answersOf(tenant: string, storeId: string): Promise<readonly string[]> {
  const { vectorStores } = library.shelves(tenant);
  const answers: string[] = [];
  for (const question of questions) answers.push(fingerprint(await vectorStores.search(storeId, question)));
  return answers;
}

async function neighbourStore(): Promise<string> {
  const { items } = await library.shelves(neighbour).vectorStores.list({ limit: 1, order: 'asc' });
  return items[0]?.id ?? '';
}

/** Attaches and removes documents until told to stop; returns the texts that must be there. */
async function writeUntil(stop: AbortSignal, storeId: string): Promise<ReadonlyMap<string, string>> {
  const { files, vectorStores } = library.shelves('whale');
  const model = new Map<string, string>();
  for (let round = 0; !stop.aborted; round++) {
    const text = longText(10_000 + round, 3);
    const file = await files.create({ filename: 'new.txt', purpose: 'assistants', body: Buffer.from(text) });
    await vectorStores.attachFile(storeId, { fileId: file.id, attributes: {}, chunking: shortChunks });
    await library.worker.drain();
    model.set(file.id, text);
    const [oldest] = model.keys();
    if (round % 3 === 2 && oldest !== undefined) {
      await (round % 2 === 0 ? files.delete(oldest) : vectorStores.detachFile(storeId, oldest));
      model.delete(oldest);
    }
  }
  return model;
}

/** Searches until told to stop; every answer that was not as before. */
async function searchUntil(
  stop: AbortSignal,
  expected: readonly string[],
  storeId: string,
): Promise<{ readonly asked: number; readonly other: string[] }> {
  const { vectorStores } = library.shelves('whale');
  const other: string[] = [];
  let asked = 0;
  for (; !stop.aborted; asked++) {
    const index = asked % questions.length;
    const question = questions[index];
    if (question === undefined) continue;
    const answer = fingerprint(await vectorStores.search(storeId, question));
    if (answer !== expected[index]) other.push(answer);
  }
  return { asked, other };
}

describe('a store that became large', () => {
  it('moves to a shard of its tenant’s own and back, three times, under writers and searchers: nothing lost, nothing doubled, no hole', async () => {
    const { files: cabinet, vectorStores } = library.shelves('whale');
    const written = (await vectorStores.create({ name: 'written', metadata: {} })).id;
    const expected = await answersOf('whale', still);
    const theirs = await answersOf(neighbour, await neighbourStore());
    const steps = new Map<PlacementStep, number>();
    const keeper = keeperOf(library, { onStep: (step) => void steps.set(step, (steps.get(step) ?? 0) + 1) });
    const stop = new AbortController();
    const running = Promise.all([
      writeUntil(stop.signal, written),
      searchUntil(stop.signal, expected, still),
      searchUntil(stop.signal, expected, still),
    ]);
    for (let round = 0; round < 3; round++) {
      await keeper.wish(operator, tenantId('whale'), 'dedicated');
      await sweep(keeper);
      const { stores } = await keeper.find(operator, tenantId('whale'));
      expect(stores.filter(({ storeId }) => storeId === still)).toMatchObject([{ placement: 'dedicated', isMoving: false }]);
      await keeper.wish(operator, tenantId('whale'), 'pooled');
      await sweep(keeper);
    }
    await keeper.wish(operator, tenantId('whale'), undefined);
    await sweep(keeper);
    stop.abort();
    const [model, ...searched] = await running;
    for (const { asked, other } of searched) {
      expect(asked).toBeGreaterThan(20);
      expect(other).toEqual([]);
    }
    expect(steps.get('batch')).toBeGreaterThan(12);
    expect(steps.get('dropped')).toBeGreaterThan(1);
    expect(await answersOf('whale', still)).toEqual(expected);
    expect(await answersOf(neighbour, await neighbourStore())).toEqual(theirs);
    for (const [fileId, text] of model) {
      const content = await vectorStores.fileContent(written, fileId);
      expect(content?.join('').replaceAll(/\s+/g, ''), fileId).toBe(text.replaceAll(/\s+/g, ''));
    }
    const record = await vectorStores.get(written);
    expect(record?.fileCounts.completed).toBe(model.size);
    expect((await cabinet.list({ limit: 100, order: 'asc' })).items.length).toBeGreaterThan(0);
    await expectOnePlace('whale');
    expect(await vectorStores.delete(written)).toBe(true);
  }, 180_000);

  it('is where its size says: its rows in a shard that holds nobody else', async () => {
    const keeper = keeperOf(library);
    await sweep(keeper);
    const shards = await shardsOf(library, 'whale');
    const [own] = await library.truth<{ shard_id: number }>(`SELECT shard_id FROM control.shard WHERE tenant_id = 'whale'`);
    expect(own?.shard_id).toBeGreaterThanOrEqual(1_000);
    const chunks = (await library.truth<{ count: string }>(`SELECT chunk_count AS count FROM app.vector_store WHERE id = $1`, [still]))[0];
    expect(shards['chunk']?.[String(own?.shard_id)]).toBe(Number(chunks?.count));
    expect(shards['embedding_384']?.[String(own?.shard_id)]).toBe(Number(chunks?.count));
    expect((await shardsOf(library, neighbour))['chunk']?.[String(own?.shard_id)]).toBeUndefined();
    // A number is one tenant's for good: the rounds before have used others.
    expect(own?.shard_id).toBeGreaterThan(1_002);
    const findings = await library.db.database.withClient((client) =>
      lintCatalogue(async (statement) => (await client.query(statement)).rows),
    );
    expect(describeFindings(findings)).toBe('');
  });

  it('cannot be placed by a tenant’s own transaction, and its shard takes no other tenant’s row', async () => {
    const attempt = async (tenant: string, statement: string) =>
      library.db.database
        .forTenant(principalOf(tenant))
        .write((db) => sql.raw(statement).execute(db))
        .then(
          () => 'done',
          (error: { sqlState?: string }) => error.sqlState,
        );
    const [own] = await library.truth<{ shard_id: number }>(`SELECT shard_id FROM control.shard WHERE tenant_id = 'whale'`);
    expect(await attempt('whale', 'UPDATE app.vector_store SET shard_id = 1')).toBe('42501');
    expect(await attempt('whale', 'UPDATE app.vector_store SET moving_to_shard = 1')).toBe('42501');
    expect(await attempt('whale', 'UPDATE app.vector_store SET index_ef_search = 1')).toBe('42501');
    expect(await attempt('whale', `SELECT control.dedicated_shard('whale', 1000)`)).toBe('42501');
    const row = `INSERT INTO app.posting (shard_id, store_no, file_no, ordinal, term_count, frequency, lexeme) VALUES (${own?.shard_id}, 1, 1, 0, 1, 1, 'x')`;
    expect(await attempt(neighbour, row)).toBe('23514');
    expect(await attempt('whale', row)).toBe('done');
    await library.truth(`DELETE FROM app.posting WHERE lexeme = 'x'`);
  });

  it('goes back when it became small, and its shard goes with every byte', async () => {
    const { files, vectorStores } = library.shelves('whale');
    const { items } = await files.list({ limit: 100, order: 'asc' });
    for (const file of items.slice(0, 65)) await vectorStores.detachFile(still, file.id);
    await sweep(keeperOf(library));
    const { stores } = await keeperOf(library).find(operator, tenantId('whale'));
    expect(stores.every(({ placement, isMoving }) => placement === 'pooled' && !isMoving)).toBe(true);
    expect(await library.truth(`SELECT FROM control.shard WHERE tenant_id = 'whale'`)).toEqual([]);
    expect(await library.truth(`SELECT relname FROM pg_class WHERE relname ~ '_s1[0-9]{3}'`)).toEqual([]);
    await expectOnePlace('whale');
  });

  it('takes a file that was begun before it moved where it is by then', async () => {
    const storeId = await longStore(library, 'begun', { files: 30, chunksEach: 5 });
    const { files, vectorStores } = library.shelves('begun');
    const { id: fileId } = await files.create({ filename: 'late.txt', purpose: 'assistants', body: Buffer.from('late') });
    await vectorStores.attachFile(storeId, { fileId, attributes: {}, chunking: shortChunks });
    const draft = await new PostgresIngestionShelf(library.db.database.forTenant(principalOf('begun'))).begin({ storeId, fileId });
    const keeper = keeperOf(library);
    await sweep(keeper);
    expect((await keeper.find(operator, tenantId('begun'))).stores).toMatchObject([{ placement: 'dedicated', isMoving: false }]);
    const text = 'a wombat that came late';
    expect(await draft?.append([{ ordinal: 0, text, embedding: clusteredVector(text) }])).toBe(true);
    expect(await draft?.publish()).toBe(true);
    const found = await vectorStores.search(storeId, clusteredQuestion(text));
    expect(found?.map((chunk) => chunk.text)).toContain(text);
    await expectOnePlace('begun');
    await library.truth(`DELETE FROM app.vector_store WHERE tenant_id = 'begun'`);
    await library.truth(`DELETE FROM control.shard WHERE tenant_id = 'begun'`);
    await sweep(keeper);
  });

  it('leaves nothing when it is erased, entry and all', async () => {
    await longStore(library, 'erased', { files: 30, chunksEach: 5 });
    const keeper = keeperOf(library);
    await sweep(keeper);
    expect(await library.truth(`SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '_s1[0-9]{3}$'`)).toHaveLength(7);
    await library.truth(`DELETE FROM app.vector_store WHERE tenant_id = 'erased'`);
    await library.truth(`DELETE FROM control.shard WHERE tenant_id = 'erased'`);
    await sweep(keeper);
    expect(await library.truth(`SELECT relname FROM pg_class WHERE relname ~ '_s1[0-9]{3}'`)).toEqual([]);
  });

  it('stays where it is, searched as ever, when there are as many dedicated shards as there may be', async () => {
    await addTenant(library, 'second');
    const storeId = await longStore(library, 'second', { files: 30, chunksEach: 5 });
    const keeper = keeperOf(library, { bounds: { dedicatedShardsMax: 0 } });
    const before = await answersOf('second', storeId);
    await sweep(keeper);
    expect((await keeper.find(operator, tenantId('second'))).stores).toMatchObject([{ placement: 'pooled', search: 'exact' }]);
    expect(await answersOf('second', storeId)).toEqual(before);
  });
});

/** Each row in the shard that its store names, and as many as the store's own counts say. */
async function expectOnePlace(tenant: string): Promise<void> {
  for (const table of ['chunk', 'posting', 'embedding_384']) {
    const strays = await library.truth(
      `SELECT r.shard_id, r.store_no, r.file_no FROM app.${table} r
         LEFT JOIN app.vector_store s ON s.tenant_id = r.tenant_id AND s.store_no = r.store_no AND s.shard_id = r.shard_id AND s.moving_to_shard IS NULL
        WHERE r.tenant_id = $1 AND s.id IS NULL`,
      [tenant],
    );
    expect(strays, table).toEqual([]);
  }
  const wrong = await library.truth(
    `SELECT f.store_no, f.file_no FROM app.vector_store_file f
      WHERE f.tenant_id = $1 AND f.status = 'completed' AND f.chunk_count <> (
        SELECT count(*) FROM app.embedding_384 e WHERE e.tenant_id = f.tenant_id AND e.store_no = f.store_no AND e.file_no = f.file_no)`,
    [tenant],
  );
  expect(wrong).toEqual([]);
}
