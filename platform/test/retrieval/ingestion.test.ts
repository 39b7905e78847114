import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { JobEnvelopes } from '../../src/jobs/job-envelope.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { Embedder } from '../../src/rag/embed-texts.ts';
import type { LogFields, Logger } from '../../src/telemetry/logger.ts';
import { principalOf } from '../support/embedded-database.ts';
import { buildDocx, buildPdf } from './build-documents.ts';
import { chunking, dimensions, hashedEmbedder, Library, question, rowsOf } from './library.ts';

const corpus = join(import.meta.dirname, '../corpus');
const attached = (fileId: string) => ({ fileId, attributes: {}, chunking });
const nothing = { chunk: 0, posting: 0, embedding_384: 0 };

/** An embedder and clock whose behaviour each test sets. */
const clock = new ManualClock();
const logged: { fields: LogFields; message: string }[] = [];
const log = (fields: LogFields, message: string) => void logged.push({ fields, message });
const logger: Logger = { debug() {}, info: log, warn: log, error: log };
let embed: Embedder['embed'] = hashedEmbedder.embed;
let library: Library;
beforeAll(async () => {
  library = await Library.open({
    clock,
    logger,
    embedder: { embed: (texts, signal) => embed(texts, signal) },
    bounds: { attemptsMax: 3, retryDelayMs: 1_000 },
  });
});
afterAll(() => library[Symbol.asyncDispose]());

async function attachText(tenant: string, body: string | Buffer, filename = 'a.txt') {
  const { files, vectorStores } = library.shelves(tenant);
  const store = await vectorStores.create({ name: '', metadata: {} });
  const file = await files.create({ filename, purpose: 'assistants', body: Buffer.from(body) });
  await vectorStores.attachFile(store.id, attached(file.id));
  return {
    files,
    vectorStores,
    storeId: store.id,
    fileId: file.id,
    status: async () => (await vectorStores.getFile(store.id, file.id))?.status,
  };
}

describe('a corpus in seven formats', () => {
  test('is found by what it says, whichever format says it', async () => {
    const { files, vectorStores } = library.shelves('bakery');
    const store = await vectorStores.create({ name: 'bakery', metadata: {} });
    const insurance = [
      [
        { text: 'Insurance policy', size: 18 },
        { text: 'The policy of the Petrel Mutual covers fire and flood', startsParagraph: true },
        { text: 'up to 250,000 crowns.' },
      ],
      [{ text: 'Damage by geese is excluded.' }],
    ];
    const minutes = [
      { text: 'Minutes', headingLevel: 1 } as const,
      { text: 'The partners elected Ansel as treasurer. A second van will be bought in spring.' },
    ];
    const bodies = new Map<string, Buffer>(
      readdirSync(corpus)
        .filter((name) => name !== 'LICENSE.txt')
        .map((name) => [name, readFileSync(join(corpus, name))]),
    );
    bodies.set('insurance.pdf', buildPdf(insurance)).set('minutes.docx', buildDocx(minutes));
    for (const [filename, body] of bodies) {
      const file = await files.create({ filename, purpose: 'assistants', body });
      await vectorStores.attachFile(store.id, attached(file.id));
    }
    expect(await library.worker.drain()).toBe(bodies.size);
    expect((await vectorStores.get(store.id))?.fileCounts).toMatchObject({ completed: bodies.size, failed: 0 });
    const first = async (text: string) => (await vectorStores.search(store.id, question(text)))?.[0]?.filename;
    expect(await first('How much is the monthly rent?')).toBe('lease.md');
    expect(await first('What is the sourdough called and what is it fed?')).toBe('handbook.html');
    expect(await first('Which customer has children with a nut allergy?')).toBe('deliveries.csv');
    expect(await first('When does the flour contract end?')).toBe('suppliers.json');
    expect(await first('Who found the weathervane?')).toBe('storm-log.txt');
    expect(await first('Wann wird der Schornstein gefegt?')).toBe('fragen.md');
    expect(await first('Is damage by fire covered by the policy?')).toBe('insurance.pdf');
    expect(await first('Who was elected treasurer?')).toBe('minutes.docx');
    expect(JSON.stringify(await library.truth('SELECT content FROM app.chunk'))).not.toContain('tracking');
  });
});

describe('an embedding model that answers wrongly', () => {
  const vector = (length: number, value: number) => new Float32Array(length).fill(value);
  test.each<[string, Embedder['embed']]>([
    ['another dimension', async (texts) => texts.map(() => vector(12, 1))],
    ['NaN', async (texts) => texts.map(() => vector(dimensions, Number.NaN))],
    ['infinity', async (texts) => texts.map(() => vector(dimensions, Number.POSITIVE_INFINITY))],
    ['a zero vector', async (texts) => texts.map((_, index) => vector(dimensions, index === 0 ? 1 : 0))],
    ['fewer vectors', async (texts) => texts.slice(1).map(() => vector(dimensions, 1))],
    ['more vectors', async (texts) => [...texts, ''].map(() => vector(dimensions, 1))],
  ])('%s fails the file, says so, and leaves nothing half-indexed', async (name, answer) => {
    const tenant = `wrong-${name.replaceAll(' ', '-').toLowerCase()}`;
    // Two embedding calls, of which the second goes wrong: by then chunks are stored.
    let calls = 0;
    embed = (texts, signal) => (++calls === 1 ? hashedEmbedder.embed(texts, signal) : answer(texts, signal));
    const { files, vectorStores, storeId, fileId } = await attachText(tenant, '');
    await vectorStores.detachFile(storeId, fileId);
    const file = await files.create({
      filename: 'b.txt',
      purpose: 'assistants',
      body: Buffer.from('The tenant pays rent to the landlord. '.repeat(900)),
    });
    await vectorStores.attachFile(storeId, {
      fileId: file.id,
      attributes: {},
      chunking: { type: 'static', maxChunkTokens: 100, overlapTokens: 0 },
    });
    await library.worker.drain();
    embed = hashedEmbedder.embed;
    expect(calls).toBe(2);
    expect(await vectorStores.getFile(storeId, file.id)).toMatchObject({
      status: 'failed',
      lastError: { code: 'server_error' },
      usageBytes: 0,
    });
    expect(await rowsOf(library, tenant)).toMatchObject(nothing);
    expect(await vectorStores.search(storeId, question('rent'))).toEqual([]);
  });
});

describe('a file that changes while it is indexed', () => {
  test.each(['deleted', 'detached', 'cancelled', 'store deleted'])('%s: nothing of it is left', async (change) => {
    const tenant = `gone-${change.replaceAll(' ', '-')}`;
    const { files, vectorStores } = library.shelves(tenant);
    const store = await vectorStores.create({ name: '', metadata: {} });
    const file = await files.create({
      filename: 'a.txt',
      purpose: 'assistants',
      body: Buffer.from('The tenant pays rent. '.repeat(1_500)),
    });
    const small = { type: 'static', maxChunkTokens: 100, overlapTokens: 0 } as const;
    const batch = await vectorStores.createBatch(store.id, [{ fileId: file.id, attributes: {}, chunking: small }]);
    let calls = 0;
    embed = async (texts, signal) => {
      if (++calls === 2) {
        expect((await rowsOf(library, tenant))['chunk']).toBe(64);
        expect(await vectorStores.search(store.id, question('rent'))).toEqual([]);
        expect(await vectorStores.fileContent(store.id, file.id)).toEqual([]);
        if (change === 'deleted') await files.delete(file.id);
        else if (change === 'detached') await vectorStores.detachFile(store.id, file.id);
        else if (change === 'cancelled') await vectorStores.cancelBatch(store.id, batch?.id ?? '');
        else await vectorStores.delete(store.id);
        expect(await rowsOf(library, tenant)).toMatchObject(nothing);
      }
      return hashedEmbedder.embed(texts, signal);
    };
    await library.worker.drain();
    embed = hashedEmbedder.embed;
    expect(calls).toBe(2);
    expect(await rowsOf(library, tenant)).toMatchObject(nothing);
    expect(await library.truth('SELECT * FROM control.job WHERE tenant_id = $1', [tenant])).toEqual([]);
    const statistics = await library.truth(
      'SELECT chunk_count::int AS chunks, term_count::int AS terms FROM app.vector_store WHERE tenant_id = $1',
      [tenant],
    );
    expect(statistics).toEqual(change === 'store deleted' ? [] : [{ chunks: 0, terms: 0 }]);
  });

  test('while hidden it changes neither the answers nor the statistics of its store', async () => {
    const { files, vectorStores } = library.shelves('hidden');
    const store = await vectorStores.create({ name: '', metadata: {} });
    const add = async (body: string) => {
      const file = await files.create({ filename: 'a.txt', purpose: 'assistants', body: Buffer.from(body) });
      await vectorStores.attachFile(store.id, {
        fileId: file.id,
        attributes: {},
        chunking: { type: 'static', maxChunkTokens: 100, overlapTokens: 0 },
      });
    };
    await add('The tenant pays rent.');
    await add('The landlord repairs the roof.');
    await library.worker.drain();
    const before = JSON.stringify(await vectorStores.search(store.id, question('rent of the tenant')));
    await add('rent '.repeat(9_000));
    let during = '';
    embed = async (texts, signal) => {
      during = JSON.stringify(await vectorStores.search(store.id, question('rent of the tenant')));
      return hashedEmbedder.embed(texts, signal);
    };
    await library.worker.drain();
    embed = hashedEmbedder.embed;
    expect(during).toBe(before);
    expect(JSON.stringify(await vectorStores.search(store.id, question('rent of the tenant')))).not.toBe(before);
  });
});

describe('jobs', () => {
  test('are tried again after a passing failure, with growing waits, and fail for good in the end', async () => {
    embed = () => Promise.reject(new BulkheadError('upstream_error', 'the model is away'));
    const { vectorStores, storeId, fileId, status } = await attachText('patient', 'rent');
    const attempts: number[] = [];
    for (const waitMs of [0, 1_000, 2_000]) {
      clock.advance(waitMs - 1);
      attempts.push(waitMs === 0 ? 0 : await library.worker.drain());
      clock.advance(1);
      attempts.push(await library.worker.drain());
    }
    expect(attempts).toEqual([0, 1, 0, 1, 0, 1]);
    embed = hashedEmbedder.embed;
    expect(await status()).toBe('failed');
    expect((await vectorStores.getFile(storeId, fileId))?.lastError).toEqual({
      code: 'server_error',
      message: 'the file could not be indexed in 3 attempts',
    });
  });

  test('that a limit refuses wait as long as it says, and go on where they were', async () => {
    const announced = [1_500, 40_000, 700, 3_000, 900];
    const waits = announced.slice();
    const embedded: string[] = [];
    embed = async (texts, signal) => {
      if (embedded.length > 0 && waits.length > 0) {
        const retryAfterMs = waits.shift() as number;
        throw new BulkheadError('rate_limit_exceeded', 'the limit is reached', { retryAfterMs });
      }
      embedded.push(...texts);
      return hashedEmbedder.embed(texts, signal);
    };
    const { files, vectorStores } = library.shelves('limited');
    const store = await vectorStores.create({ name: '', metadata: {} });
    const body = Array.from({ length: 1_500 }, (_, index) => `Sentence ${index} of the lease.`).join(' ');
    const small = { type: 'static', maxChunkTokens: 100, overlapTokens: 0 } as const;
    const attach = async () => {
      const file = await files.create({ filename: 'a.txt', purpose: 'assistants', body: Buffer.from(body) });
      await vectorStores.attachFile(store.id, { fileId: file.id, attributes: {}, chunking: small });
      return file.id;
    };
    const fileId = await attach();
    for (const waitMs of announced) {
      await library.worker.drain();
      expect(await vectorStores.getFile(store.id, fileId)).toMatchObject({ status: 'in_progress' });
      expect(await vectorStores.search(store.id, question('lease'))).toEqual([]);
      clock.advance(waitMs - 1);
      expect(await library.worker.drain()).toBe(0);
      clock.advance(1);
    }
    await library.worker.drain();
    const limited = await vectorStores.getFile(store.id, fileId);
    expect(limited).toMatchObject({ status: 'completed' });
    expect(new Set(embedded).size).toBe(embedded.length);
    embed = hashedEmbedder.embed;
    // Exactly what the same file is without a limit.
    const whole = await vectorStores.getFile(store.id, await attach());
    await library.worker.drain();
    const records = await library.truth<{ usage_bytes: string; chunk_count: string; term_count: string }>(
      `SELECT usage_bytes, chunk_count, term_count FROM app.vector_store_file WHERE tenant_id = 'limited' ORDER BY file_no`,
    );
    expect(whole?.status).toBe('in_progress');
    expect(records[0]).toEqual(records[1]);
    expect(Number(records[0]?.chunk_count)).toBe(embedded.length);
  });

  test('that were parked begin anew when the text is cut differently meanwhile, and leave nothing when their file goes', async () => {
    const calls: number[] = [];
    let isRefused = true;
    embed = async (texts, signal) => {
      calls.push(texts.length);
      if (isRefused && calls.length === 2) throw new BulkheadError('queue_timeout', 'no capacity', { retryAfterMs: 1_000 });
      return hashedEmbedder.embed(texts, signal);
    };
    const { files, vectorStores } = library.shelves('recut');
    const store = await vectorStores.create({ name: '', metadata: {} });
    const file = await files.create({
      filename: 'a.txt',
      purpose: 'assistants',
      body: Buffer.from('The tenant pays rent. '.repeat(1_500)),
    });
    const small = { type: 'static', maxChunkTokens: 100, overlapTokens: 0 } as const;
    await vectorStores.attachFile(store.id, { fileId: file.id, attributes: {}, chunking: small });
    await library.worker.drain();
    expect((await rowsOf(library, 'recut'))['chunk']).toBe(64);
    await library.truth(`UPDATE app.vector_store_file SET max_chunk_tokens = 200 WHERE tenant_id = 'recut'`);
    isRefused = false;
    calls.length = 0;
    clock.advance(1_000);
    await library.worker.drain();
    const chunks = (await rowsOf(library, 'recut'))['chunk'] ?? 0;
    expect(await vectorStores.getFile(store.id, file.id)).toMatchObject({ status: 'completed' });
    expect(calls.reduce((sum, count) => sum + count, 0)).toBe(chunks);
    embed = hashedEmbedder.embed;
    await files.delete(file.id);
    expect(await rowsOf(library, 'recut')).toMatchObject(nothing);
  });

  test('recover when the failure passes', async () => {
    embed = () => Promise.reject(new Error('socket hang up'));
    const { status } = await attachText('lucky', 'rent');
    await library.worker.drain();
    expect(await status()).toBe('in_progress');
    embed = hashedEmbedder.embed;
    clock.advance(1_000);
    await library.worker.drain();
    expect(await status()).toBe('completed');
  });

  test('without an envelope that opens are set aside, do nothing, and are reported', async () => {
    const { storeId, fileId, status } = await attachText('victim', 'the rent of the victim');
    const stranger = new JobEnvelopes(Buffer.alloc(32, 9)).seal(principalOf('mallory'), {
      id: 'job_forged',
      kind: 'ingest_file',
      payload: { storeId, fileId },
    });
    const genuine = await library.truth<{ id: string; envelope: string }>(
      `SELECT id, envelope FROM control.job WHERE tenant_id = 'victim'`,
    );
    const [body = '', mac = ''] = (genuine[0]?.envelope ?? '').split('.');
    const claims = JSON.parse(Buffer.from(body, 'base64url').toString()) as object;
    const altered = Buffer.from(JSON.stringify({ ...claims, tenantId: 'mallory' })).toString('base64url');
    const forgeries = ['', 'x.y', stranger, `${altered}.${mac}`, genuine[0]?.envelope ?? '', `${body}.`, `${body}.${mac}.x`];
    for (const [index, envelope] of forgeries.entries()) {
      await library.truth(
        `INSERT INTO control.job (id, tenant_id, kind, payload, envelope, created_at_ms, ready_at_ms) VALUES ($1, 'mallory', 'ingest_file', $2, $3, 0, 0)`,
        [`job_forged${index}`, JSON.stringify({ storeId, fileId }), envelope],
      );
    }
    logged.length = 0;
    await library.worker.drain();
    expect(logged.filter(({ fields }) => fields.code === 'forged_envelope')).toHaveLength(forgeries.length);
    const buried = await library.truth(`SELECT id FROM control.job WHERE buried_reason IS NOT NULL`);
    expect(buried).toHaveLength(forgeries.length);
    expect(await status()).toBe('completed');
    expect(await library.worker.drain()).toBe(0);
    await library.truth('DELETE FROM control.job WHERE buried_reason IS NOT NULL');
  });

  test('work for the tenant of the envelope, whatever the row says', async () => {
    const { status } = await attachText('honest', 'rent');
    await library.truth(`UPDATE control.job SET tenant_id = 'mallory' WHERE tenant_id = 'honest'`);
    await library.truth(`INSERT INTO control.job_arrival (tenant_id, ready_at_ms) VALUES ('mallory', 0)`);
    await library.worker.drain();
    expect(await status()).toBe('completed');
    expect(await rowsOf(library, 'mallory')).toMatchObject(nothing);
  });

  test('can be added by a tenant and neither seen nor changed nor put in the name of another', async () => {
    const database = library.db.database.forTenant(principalOf('nosy'));
    const attempt = (text: string) =>
      library.db.database
        .withClient(async (client) => {
          await client.query("BEGIN; SELECT set_config('role', 'bulkhead_runtime', true), set_config('app.tenant_id', 'nosy', true)");
          try {
            await client.query(text);
          } finally {
            await client.query('ROLLBACK');
          }
        })
        .then(
          () => 'done',
          (error) => error.sqlState,
        );
    expect(database).toBeDefined();
    expect(await attempt('SELECT * FROM control.job')).toBe('42501');
    expect(await attempt('DELETE FROM control.job')).toBe('42501');
    expect(await attempt(`UPDATE control.job SET attempts = 0`)).toBe('42501');
    expect(
      await attempt(
        `INSERT INTO control.job (id, tenant_id, kind, payload, envelope, created_at_ms, ready_at_ms) VALUES ('x', 'acme', 'k', '{}', '', 0, 0)`,
      ),
    ).toBe('42501');
    expect(await attempt('SELECT * FROM control.job_arrival')).toBe('42501');
    expect(await attempt('SELECT * FROM control.job_turn')).toBe('42501');
    expect(await attempt(`INSERT INTO control.job_arrival (tenant_id, ready_at_ms) VALUES ('acme', 0)`)).toBe('42501');
    expect(await attempt(`SELECT control.claim_job(0, 'x', 1, 1)`)).toBe('42501');
    expect(await attempt('SELECT * FROM control.shard')).toBe('42501');
    expect(await attempt('SELECT * FROM app.chunk_s0')).toBe('42501');
    expect(await attempt(`UPDATE app.vector_store SET shard_id = 1`)).toBe('42501');
    expect(
      await attempt(
        `INSERT INTO app.chunk (tenant_id, shard_id, store_no, file_no, ordinal, term_count, content) VALUES ('acme', 0, 1, 1, 0, 1, 'x')`,
      ),
    ).toBe('42501');
  });

  test('of tenants take turns: one file waits for one job, not for a hundred', async () => {
    const served: string[] = [];
    const whale = library.shelves('whale');
    const store = await whale.vectorStores.create({ name: '', metadata: {} });
    const files = [];
    for (let index = 0; index < 30; index++)
      files.push(await whale.files.create({ filename: 'a.txt', purpose: 'assistants', body: Buffer.from(`whale ${index}`) }));
    await whale.vectorStores.createBatch(
      store.id,
      files.map((file) => attached(file.id)),
    );
    let arrived = false;
    embed = async (texts, signal) => {
      served.push(texts[0]?.split(' ')[0] ?? '');
      if (served.length === 3 && !arrived) {
        arrived = true;
        await attachText('minnow', 'minnow one');
        await attachText('shrimp', 'shrimp one');
      }
      return hashedEmbedder.embed(texts, signal);
    };
    await library.worker.drain();
    embed = hashedEmbedder.embed;
    expect(served.slice(0, 6)).toEqual(['whale', 'whale', 'whale', 'minnow', 'shrimp', 'whale']);
    expect(served).toHaveLength(32);
  });

  test('are claimed once, however many claim at a time', async () => {
    const { storeId } = await attachText('claimed', 'one');
    expect(storeId).toBeDefined();
    const claims = await Promise.all(Array.from({ length: 8 }, () => library.queue.claim(1_000)));
    const taken = claims.filter((job) => job !== undefined);
    expect(taken).toHaveLength(1);
    clock.advance(999);
    expect(await library.queue.claim(1_000)).toBeUndefined();
    clock.advance(1);
    const [first] = taken;
    const second = await library.queue.claim(1_000);
    expect(second).toMatchObject({ id: first?.id, attempt: 2 });
    // The first holder lost its lease: nothing it says counts any more.
    if (first) expect(await library.queue.extend(first, 1_000)).toBe(false);
    if (first) await library.queue.complete(first);
    if (second) expect(await library.queue.extend(second, 1_000)).toBe(true);
    if (second) await library.queue.release(second, { delayMs: 0, countsAsAttempt: false });
    expect(await library.worker.drain()).toBe(1);
  });

  test('given to two workers at once are finished by the later one alone', async () => {
    const { vectorStores, storeId, fileId } = await attachText('twice', 'rent');
    const shelf = new PostgresIngestionShelf(library.db.database.forTenant(principalOf('twice')));
    const [embedding] = await hashedEmbedder.embed(['rent'], new AbortController().signal);
    const chunk = { ordinal: 0, text: 'rent', embedding: embedding as Float32Array };
    const first = await shelf.begin({ storeId, fileId });
    expect(await first?.append([chunk])).toBe(true);
    const second = await shelf.begin({ storeId, fileId });
    expect(await first?.append([{ ...chunk, ordinal: 1 }])).toBe(false);
    expect(await first?.publish()).toBe(false);
    expect(await second?.append([chunk])).toBe(true);
    expect(await second?.publish()).toBe(true);
    expect(await shelf.begin({ storeId, fileId })).toBeUndefined();
    await shelf.fail({ storeId, fileId }, { code: 'server_error', message: 'too late' });
    expect(await vectorStores.getFile(storeId, fileId)).toMatchObject({ status: 'completed' });
    expect(await rowsOf(library, 'twice')).toMatchObject({ chunk: 1, posting: 1, embedding_384: 1 });
    await library.worker.drain();
  });
});
