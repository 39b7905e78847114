/** A vector store changes its embedding model in the background: it serves all the while, loses nothing, and shows no mixture. */
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import type { Embedder } from '../../src/rag/embed-texts.ts';
import type { EmbeddingSetting, ReembeddingShelf, StoreSpace } from '../../src/rag/reembed.ts';
import { chunking, embedBy, fingerprint, Library, question, rowsOf } from './library.ts';

const old: EmbeddingSetting = { model: 'local-hash-384', dimensions: 384 };
const larger: EmbeddingSetting = { model: 'larger-768', dimensions: 768 };
const alike: EmbeddingSetting = { model: 'alike-384', dimensions: 384 };

const texts = Array.from(
  { length: 30 },
  (_, index) => `Clause ${index}: the tenant of flat ${index * 7} pays ${index * 100} for rent and repairs.`,
);

/** What embeds and what happens between the steps, as each test likes it. */
let embedder: Embedder | undefined;
let between: (step: string, shelf: ReembeddingShelf) => Promise<void> = async () => {};
let library: Library;
beforeAll(async () => {
  library = await Library.open({
    bounds: { reembedRetryMs: 0, retryDelayMs: 0 },
    // From memory as soon as a store is there, else through SQL.
    residents: { residentBytesMax: 64 * 1_024 * 1_024 },
    embedderFor: (model) => embedder ?? { embed: async (passages) => passages.map((text) => embedBy(model, text)) },
    reembeddingOf: (shelf) => ({
      begin: (target) => shelf.begin(target),
      survey: () => shelf.survey(),
      async next(space) {
        const step = await shelf.next(space);
        await between(step.kind, shelf);
        return step;
      },
      append: (space, vectors) => shelf.append(space, vectors),
      activate: (space) => shelf.activate(space),
      clear: (space) => shelf.clear(space),
      markFault: (space, code) => shelf.markFault(space, code),
    }),
  });
  return () => library[Symbol.asyncDispose]();
}, 60_000);
afterEach(() => {
  embedder = undefined;
  between = async () => {};
});

const ask = (tenant: string, storeId: string, { model } = old, text = 'who pays rent for flat 21') =>
  library.shelves(tenant).vectorStores.search(storeId, question(text, { embedding: embedBy(model, text), embeddingModel: model }));
const begin = (tenant: string, target: EmbeddingSetting) => library.reembedding(library.shelves(tenant).principal).begin(target);
const survey = (tenant: string) => library.reembedding(library.shelves(tenant).principal).survey();
const spacesIn = async (tenant: string) =>
  library.truth(
    `SELECT 384 AS size, space_no, count(*)::int FROM app.embedding_384 WHERE tenant_id = $1 GROUP BY space_no
     UNION ALL SELECT 768, space_no, count(*)::int FROM app.embedding_768 WHERE tenant_id = $1 GROUP BY space_no ORDER BY 1, 2`,
    [tenant],
  );
async function attach(tenant: string, storeId: string, text: string): Promise<string> {
  const { files, vectorStores } = library.shelves(tenant);
  const file = await files.create({ filename: 'late.txt', purpose: 'assistants', body: Buffer.from(text) });
  await vectorStores.attachFile(storeId, { fileId: file.id, attributes: {}, chunking });
  return file.id;
}

/** A store of the same texts that never had another model. */
async function freshStore(tenant: string, target: EmbeddingSetting): Promise<string> {
  const store = await library.shelves(tenant).vectorStores.create({ name: 'fresh', metadata: {} });
  await library.truth('UPDATE app.vector_store SET embedding_model = $2, embedding_dimensions = $3 WHERE id = $1', [
    store.id,
    target.model,
    target.dimensions,
  ]);
  for (const text of texts) await attach(tenant, store.id, text);
  await library.worker.drain();
  return store.id;
}

const usageOf = (tenant: string) =>
  library.truth(
    `SELECT usage_bytes, (SELECT sum(usage_bytes) FROM app.vector_store_file f WHERE f.tenant_id = s.tenant_id) AS of_files
       FROM app.vector_store s WHERE tenant_id = $1`,
    [tenant],
  );

describe.each([
  ['another size', larger],
  ['the same size', alike],
])('a store whose model is replaced by one of %s', (name, target) => {
  const tenant = `acme-${target.dimensions}`;

  test('answers by the old model, the same bit for bit, until it answers by the new one, as if it had never had another', async () => {
    const storeId = await library.storeOf(tenant, texts);
    const before = fingerprint(await ask(tenant, storeId));
    const neighbour = await library.storeOf(`${tenant}-neighbour`, texts);
    const neighbours = fingerprint(await ask(`${tenant}-neighbour`, neighbour));
    await begin(tenant, target);
    expect(await survey(tenant)).toEqual([{ ...old, stores: 1, building: target }]);
    const steps: string[] = [];
    between = async (step) => {
      steps.push(step);
      if (step === 'embed' || step === 'activate') {
        expect(fingerprint(await ask(tenant, storeId))).toBe(before);
        await expect(ask(tenant, storeId, target)).rejects.toMatchObject({
          code: 'embedding_model_changed',
          details: { embedding_model: old.model },
        });
      } else {
        await expect(ask(tenant, storeId)).rejects.toMatchObject({
          code: 'embedding_model_changed',
          details: { embedding_model: target.model },
        });
      }
      expect(fingerprint(await ask(`${tenant}-neighbour`, neighbour))).toBe(neighbours);
    };
    await library.worker.drain();
    expect(steps).toEqual(['embed', 'activate', 'clear', 'done']);
    expect(await survey(tenant)).toEqual([{ ...target, stores: 1 }]);
    expect(await spacesIn(tenant)).toEqual([{ size: target.dimensions, space_no: 2, count: texts.length }]);
    expect(await library.truth('SELECT * FROM control.job')).toEqual([]);

    const seen = async (of: string, id: string) => (await ask(of, id, target))?.map(({ text, score }) => [text, score]);
    expect(await seen(tenant, storeId)).toEqual(await seen(`${tenant}-fresh`, await freshStore(`${tenant}-fresh`, target)));
    expect(await usageOf(tenant)).toEqual(await usageOf(`${tenant}-fresh`));
    expect(name).toBeDefined();
  });
});

describe('while a store is embedded anew', () => {
  test('files that come, and go, are all there and all gone when it has switched', async () => {
    const tenant = 'busy';
    const storeId = await library.storeOf(tenant, texts);
    const { files, vectorStores } = library.shelves(tenant);
    const [first, second] = (await vectorStores.listFiles(storeId, { limit: 10, order: 'asc' }, {}))?.items ?? [];
    await begin(tenant, larger);
    let late = '';
    let steps = 0;
    between = async (step) => {
      steps++;
      if (step === 'embed' && steps === 1) await files.delete(first?.id ?? '');
      if (step === 'activate' && late === '') {
        late = await attach(tenant, storeId, 'The late annex about the pump.');
        await vectorStores.detachFile(storeId, second?.id ?? '');
        const ingest = await library.queue.claim(30_000);
        if (ingest?.kind !== 'ingest_file') throw new Error('the new file comes before the next slice');
        await library.queue.release(ingest, { delayMs: 0, countsAsAttempt: false });
      }
    };
    await library.worker.drain();
    expect((await vectorStores.getFile(storeId, late))?.status).toBe('completed');
    expect(await spacesIn(tenant)).toEqual([{ size: 768, space_no: 2, count: texts.length - 1 }]);
    expect((await ask(tenant, storeId, larger, 'late annex pump'))?.[0]?.fileId).toBe(late);
    expect(await rowsOf(library, tenant)).toMatchObject({ chunk: texts.length - 1, embedding_384: 0, vector_store_file: texts.length - 1 });
  });

  test('a file that appears after the last vector was written is embedded before the switch', async () => {
    const tenant = 'gap';
    const storeId = await library.storeOf(tenant, texts.slice(0, 3));
    await begin(tenant, larger);
    const shelf = library.reembedding(library.shelves(tenant).principal);
    const space: StoreSpace = { storeId, spaceNo: 2 };
    const step = await shelf.next(space);
    if (step.kind !== 'embed') throw new Error('there is something to embed');
    await shelf.append(
      space,
      step.chunks.map((chunk) => ({ ...chunk, embedding: embedBy(larger.model, chunk.text) })),
    );
    expect((await shelf.next(space)).kind).toBe('activate');
    // The queue's only ready job is the slice; it is held while the file comes.
    const slice = await library.queue.claim(30_000);
    await attach(tenant, storeId, 'The late annex.');
    await library.worker.drain();
    expect(await shelf.activate(space)).toBe(false);
    expect(await survey(tenant)).toEqual([{ ...old, stores: 1, building: larger }]);
    if (slice !== undefined) await library.queue.release(slice, { delayMs: 0, countsAsAttempt: false });
    await library.worker.drain();
    expect(await survey(tenant)).toEqual([{ ...larger, stores: 1 }]);
    expect(await spacesIn(tenant)).toEqual([{ size: 768, space_no: 2, count: 4 }]);
  });

  test('an attempt to index that began before the switch and ends after it is refused, and the next one embeds by the new model', async () => {
    const tenant = 'straddler';
    const storeId = await library.storeOf(tenant, texts.slice(0, 3));
    await begin(tenant, larger);
    const fileId = await attach(tenant, storeId, 'The annex that straddles the switch.');
    let switched = false;
    embedder = {
      async embed(passages) {
        const model = passages[0]?.startsWith('The annex') === true && !switched ? old.model : larger.model;
        if (model === old.model) {
          switched = true;
          // Everything of the store but this file, up to the switch.
          const other = await library.queue.claim(30_000);
          if (other?.kind !== 'reembed_store') throw new Error('the slice waits beside the file');
          const shelf = library.reembedding(library.shelves(tenant).principal);
          const step = await shelf.next(other.payload);
          if (step.kind === 'embed')
            await shelf.append(
              other.payload,
              step.chunks.map((chunk) => ({ ...chunk, embedding: embedBy(larger.model, chunk.text) })),
            );
          expect(await shelf.activate(other.payload)).toBe(true);
          await library.queue.release(other, { delayMs: 0, countsAsAttempt: false });
        }
        return passages.map((text) => embedBy(model, text));
      },
    };
    // The file's job first: the slice is older.
    const slice = await library.queue.claim(30_000);
    if (slice !== undefined) await library.queue.release(slice, { delayMs: 0, countsAsAttempt: false });
    await library.worker.drain();
    expect(switched).toBe(true);
    expect((await library.shelves(tenant).vectorStores.getFile(storeId, fileId))?.status).toBe('completed');
    expect(await spacesIn(tenant)).toEqual([{ size: 768, space_no: 2, count: 4 }]);
    expect((await ask(tenant, storeId, larger, 'annex straddles'))?.[0]?.fileId).toBe(fileId);
    expect(await rowsOf(library, tenant)).toMatchObject({ chunk: 4, embedding_384: 0 });
  });
});

describe('a store that cannot be embedded anew', () => {
  test.each<[string, string, Embedder['embed']]>([
    ['the model is gone', 'model_not_found', () => Promise.reject(new BulkheadError('model_not_found', 'gone'))],
    ['the budget is spent', 'budget_exceeded', () => Promise.reject(new BulkheadError('budget_exceeded', 'spent'))],
    ['the vectors have another size', 'embedding_failed', async (passages) => passages.map(() => new Float32Array(100).fill(1))],
    ['the provider breaks', 'internal_error', () => Promise.reject(new Error('broken'))],
  ])('serves as it is, says why, and goes on when that is over: %s', async (name, code, embed) => {
    const tenant = `stuck-${code.replace('_', '-').replace('_', '-')}`;
    const storeId = await library.storeOf(tenant, texts.slice(0, 3));
    const before = fingerprint(await ask(tenant, storeId));
    await begin(tenant, larger);
    let tries = 0;
    embedder = {
      embed(passages, signal) {
        if (++tries > 7) embedder = undefined;
        return embed(passages, signal);
      },
    };
    between = async () => {
      if (tries === 0) return;
      expect(await survey(tenant)).toEqual([{ ...old, stores: 1, building: larger, fault: code }]);
      expect(fingerprint(await ask(tenant, storeId))).toBe(before);
      if (embedder === undefined) between = async () => {};
    };
    await library.worker.drain();
    expect(tries).toBe(8);
    expect(await survey(tenant)).toEqual([{ ...larger, stores: 1 }]);
    expect(await library.truth('SELECT * FROM control.job')).toEqual([]);
    expect(name).toBeDefined();
  });

  test('gives its half-filled space up when the old model is configured again, and fills another one for a third', async () => {
    const tenant = 'undecided';
    const storeId = await library.storeOf(tenant, texts);
    const before = fingerprint(await ask(tenant, storeId));
    await begin(tenant, larger);
    between = async (step) => {
      if (step === 'activate') await begin(tenant, old);
    };
    await library.worker.drain();
    expect(fingerprint(await ask(tenant, storeId))).toBe(before);
    expect(await spacesIn(tenant)).toEqual([{ size: 384, space_no: 1, count: texts.length }]);
    await begin(tenant, larger);
    between = async (step) => {
      if (step === 'activate') await begin(tenant, alike);
      between = async () => {};
    };
    await library.worker.drain();
    await library.worker.drain();
    expect(await survey(tenant)).toHaveLength(1);
    expect(await spacesIn(tenant)).toHaveLength(1);
    expect(await library.truth('SELECT * FROM control.job')).toEqual([]);
  });
});

describe('a job that is not what it says', () => {
  test('of another tenant finds no store; of another space does not open', async () => {
    const storeId = await library.storeOf('owner', texts.slice(0, 3));
    await begin('owner', larger);
    const [mine] = await library.truth<{ id: string }>('SELECT id FROM control.job');
    const thief = library.shelves('thief').principal;
    const job = { id: 'job_thief', kind: 'reembed_store', payload: { storeId, spaceNo: 2 } } as const;
    const insert = (id: string, tenant: string, payload: StoreSpace, envelope: string) =>
      library.truth(
        `INSERT INTO control.job (id, tenant_id, kind, payload, envelope, created_at_ms, ready_at_ms) VALUES ($1, $2, 'reembed_store', $3, $4, 0, 0)`,
        [id, tenant, JSON.stringify(payload), envelope],
      );
    await insert(job.id, 'thief', job.payload, library.envelopes.seal(thief, job));
    await insert('job_other', 'thief', { storeId, spaceNo: 3 }, library.envelopes.seal(thief, { ...job, id: 'job_other' }));
    await library.truth('UPDATE control.job SET ready_at_ms = 9e15 WHERE id = $1', [mine?.id]);
    await library.worker.drain();
    expect(await spacesIn('owner')).toEqual([{ size: 384, space_no: 1, count: 3 }]);
    expect(await library.truth("SELECT id, buried_reason FROM control.job WHERE tenant_id = 'thief'")).toEqual([
      { id: 'job_other', buried_reason: 'its envelope does not open' },
    ]);
    const [shelf, space] = [library.reembedding(thief), job.payload];
    expect(await shelf.next(space)).toEqual({ kind: 'done' });
    expect(await shelf.append(space, [{ fileNo: 1, ordinal: 0, embedding: embedBy(larger.model, 'stolen') }])).toBe(false);
    expect(await shelf.activate(space)).toBe(false);
    await shelf.markFault(space, 'stolen');
    await shelf.clear(space);
    expect(await survey('owner')).toEqual([{ ...old, stores: 1, building: larger }]);
    expect(await survey('thief')).toEqual([]);
    await library.truth('DELETE FROM control.job');
  });
});

test('slices of a large store let the tenant’s own new file go first', async () => {
  const tenant = 'large';
  const storeId = await library.storeOf(
    tenant,
    Array.from({ length: 200 }, (_, index) => `Paragraph ${index} of the lease.`),
  );
  await begin(tenant, larger);
  const order: string[] = [];
  between = async (step) => {
    order.push(step);
    if (order.length === 1) await attach(tenant, storeId, 'urgent');
    const [{ waiting } = { waiting: 0 }] = await library.truth<{ waiting: number }>(
      "SELECT count(*)::int AS waiting FROM control.job WHERE tenant_id = 'large' AND kind = 'ingest_file'",
    );
    if (order.length > 1) expect(waiting).toBe(0);
  };
  await library.worker.drain();
  expect(order.filter((step) => step === 'embed')).toHaveLength(4);
  expect(await spacesIn(tenant)).toEqual([{ size: 768, space_no: 2, count: 201 }]);
});
