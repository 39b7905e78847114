import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { FileBody } from '../../src/tenancy/capabilities.ts';
import { chunking, Library, question, rowsOf, type Shelves } from './library.ts';

const clock = new ManualClock();
let library: Library;
let acme: Shelves;
let globex: Shelves;
beforeAll(async () => {
  library = await Library.open({ clock, quota: { filesPerTenantMax: 40, fileBytesPerTenantMax: 5_000_000, vectorStoresPerTenantMax: 10 } });
  acme = library.shelves('acme');
  globex = library.shelves('globex');
});
afterAll(() => library[Symbol.asyncDispose]());

const text = (body: string, filename = 'a.txt') => ({ filename, purpose: 'assistants', body: Buffer.from(body) });
const attached = (fileId: string) => ({ fileId, attributes: {}, chunking });

async function bytesOf(tenant: Shelves, fileId: string): Promise<Buffer> {
  const content = await tenant.files.read(fileId);
  return Buffer.concat(content === undefined ? [] : await Array.fromAsync(content.parts));
}

/** A body of three parts; `between` runs before the second and the third are handed over. */
function slowBody(between: (partNo: number) => Promise<void>): FileBody {
  return {
    bytes: 2_500_000,
    sha256: 'x',
    async *parts(partBytes) {
      for (let start = 0; start < 2_500_000; start += partBytes) {
        if (start > 0) await between(start / partBytes);
        yield Buffer.alloc(Math.min(partBytes, 2_500_000 - start), 'x');
      }
    },
  };
}

const newest = { limit: 100, order: 'desc' } as const;

describe('files', () => {
  test('come back as they were stored, however large', async () => {
    const body = Buffer.alloc(2_500_000, 'x\0\u00ff');
    const stored = await acme.files.create({ ...text(''), body });
    expect(stored).toMatchObject({ bytes: 2_500_000, filename: 'a.txt', purpose: 'assistants' });
    expect(Buffer.compare(await bytesOf(acme, stored.id), body)).toBe(0);
    expect(await acme.files.get(stored.id)).toEqual(stored);
    expect(await acme.files.delete(stored.id)).toBe(true);
    expect(await acme.files.delete(stored.id)).toBe(false);
    expect(await acme.files.read(stored.id)).toBeUndefined();
    expect((await rowsOf(library, 'acme'))['file_part']).toBe(0);
  });

  test('of several parts are absent until they are whole', async () => {
    const tenant = library.shelves('slow');
    const seen: unknown[] = [];
    const body = slowBody(async (partNo) => {
      seen.push([partNo, (await tenant.files.list(newest)).items.length, (await rowsOf(library, 'slow'))['file_part']]);
      const { rows } = await library.db.database.withClient((client) => client.query("SELECT id FROM app.file WHERE tenant_id = 'slow'"));
      const fileId = String((rows[0] as { readonly id: string }).id);
      seen.push(await tenant.files.get(fileId), await tenant.files.read(fileId));
      const store = await tenant.vectorStores.create({ name: '', metadata: {} });
      seen.push(await tenant.vectorStores.attachFile(store.id, attached(fileId)));
    });
    const stored = await tenant.files.create({ ...text(''), body });
    expect(seen).toEqual([[1, 0, 1], undefined, undefined, undefined, [2, 0, 2], undefined, undefined, undefined]);
    expect(await bytesOf(tenant, stored.id)).toHaveLength(2_500_000);
    // The job that would have removed it finds it whole.
    clock.advance(3_600_000);
    await library.worker.drain();
    expect(await tenant.files.get(stored.id)).toEqual(stored);
  });

  test('that break off leave nothing, and give their room back', async () => {
    const tenant = library.shelves('broken');
    const body = slowBody((partNo) => (partNo === 2 ? Promise.reject(new Error('gone')) : Promise.resolve()));
    await expect(tenant.files.create({ ...text(''), body })).rejects.toThrow('gone');
    expect(await rowsOf(library, 'broken')).toMatchObject({ file: 0, file_part: 0 });
    await tenant.files.create({ ...text(''), body: Buffer.alloc(5_000_000) });
  });

  test('whose process died in the middle are removed an hour later, with their room', async () => {
    const tenant = library.shelves('crashed');
    const never = Promise.withResolvers<void>();
    const reached = Promise.withResolvers<void>();
    const dying = tenant.files.create({
      ...text(''),
      body: slowBody(() => {
        reached.resolve();
        return never.promise;
      }),
    });
    dying.catch(() => {});
    await reached.promise;
    clock.advance(3_599_999);
    await library.worker.drain();
    expect(await rowsOf(library, 'crashed')).toMatchObject({ file: 1, file_part: 1 });
    clock.advance(1);
    await library.worker.drain();
    expect(await rowsOf(library, 'crashed')).toMatchObject({ file: 0, file_part: 0 });
    await tenant.files.create({ ...text(''), body: Buffer.alloc(5_000_000) });
    // A process that was only slow hears of it.
    never.resolve();
    await expect(dying).rejects.toMatchObject({ code: 'not_found' });
  });

  test('that are deleted while they are read end with an error, never short', async () => {
    const file = await acme.files.create({ ...text(''), body: Buffer.alloc(2_500_000) });
    const content = await acme.files.read(file.id);
    const read = async () => {
      let bytes = 0;
      for await (const part of content?.parts ?? []) {
        if (bytes === 0) await acme.files.delete(file.id);
        bytes += part.length;
      }
      return bytes;
    };
    await expect(read()).rejects.toMatchObject({ code: 'not_found' });
  });

  test('are listed by pages in both directions, and a foreign cursor is refused', async () => {
    const tenant = library.shelves('lister');
    const ids: string[] = [];
    for (let index = 0; index < 7; index++) {
      clock.advance(1);
      ids.push((await tenant.files.create({ ...text('x'), purpose: index % 2 === 0 ? 'batch' : 'evals' })).id);
    }
    const list = async (page: object, purpose?: string) => {
      const { items, hasMore } = await tenant.files.list({ limit: 3, order: 'asc', ...page }, purpose);
      return { at: items.map((file) => ids.indexOf(file.id)), hasMore };
    };
    expect(await list({})).toEqual({ at: [0, 1, 2], hasMore: true });
    expect(await list({ after: ids[2] })).toEqual({ at: [3, 4, 5], hasMore: true });
    expect(await list({ after: ids[5] })).toEqual({ at: [6], hasMore: false });
    expect(await list({ before: ids[5] })).toEqual({ at: [2, 3, 4], hasMore: true });
    expect(await list({ after: ids[1], before: ids[4] })).toEqual({ at: [2, 3], hasMore: false });
    expect(await list({ order: 'desc' })).toEqual({ at: [6, 5, 4], hasMore: true });
    expect(await list({ order: 'desc', after: ids[4] })).toEqual({ at: [3, 2, 1], hasMore: true });
    expect(await list({ order: 'desc', before: ids[4] })).toEqual({ at: [6, 5], hasMore: false });
    expect(await list({ limit: 100 }, 'evals')).toEqual({ at: [1, 3, 5], hasMore: false });
    const foreign = (await acme.files.create(text('x'))).id;
    const refusals = await Promise.all([foreign, 'file-nothing'].map((after) => list({ after }).catch((error) => error.code)));
    expect(refusals).toEqual(['invalid_cursor', 'invalid_cursor']);
  });

  test('are absent to their tenant when they have expired', async () => {
    const file = await acme.files.create({ ...text('x'), expiresAtMs: clock.nowMs() + 1_000 });
    const store = await acme.vectorStores.create({ name: '', metadata: {} });
    expect(await acme.files.get(file.id)).toBeDefined();
    clock.advance(1_000);
    expect(await acme.files.get(file.id)).toBeUndefined();
    expect(await acme.files.read(file.id)).toBeUndefined();
    expect(await acme.vectorStores.attachFile(store.id, attached(file.id))).toBeUndefined();
    await acme.vectorStores.delete(store.id);
  });

  test('that expire take their bytes, their chunks and their quota with them, and not before', async () => {
    const tenant = library.shelves('expiring');
    const file = await tenant.files.create({ ...text('rent is due'), expiresAtMs: clock.nowMs() + 1_000 });
    const store = await tenant.vectorStores.create({ name: '', metadata: {} });
    await tenant.vectorStores.attachFile(store.id, attached(file.id));
    clock.advance(999);
    await library.worker.drain();
    expect(await tenant.vectorStores.search(store.id, question('rent'))).toHaveLength(1);
    clock.advance(1);
    expect(await library.worker.drain()).toBe(1);
    expect(await tenant.vectorStores.search(store.id, question('rent'))).toEqual([]);
    expect(await rowsOf(library, 'expiring')).toMatchObject({ file: 0, file_part: 0, chunk: 0, posting: 0, embedding_384: 0 });
    expect(await library.truth(`SELECT files::int, file_bytes::int FROM app.document_quota WHERE tenant_id = 'expiring'`)).toEqual([
      { files: 0, file_bytes: 0 },
    ]);
  });
});

describe('quotas', () => {
  test('let exactly as many of 500 concurrent creations through as there is room for', async () => {
    const tenant = library.shelves('quota-stores');
    const attempts = Array.from({ length: 500 }, () =>
      tenant.vectorStores.create({ name: '', metadata: {} }).then(
        () => 'created',
        (error) => error.code,
      ),
    );
    const outcomes = await Promise.all(attempts);
    expect(outcomes.filter((outcome) => outcome === 'created')).toHaveLength(10);
    expect(outcomes.filter((outcome) => outcome === 'quota_exceeded')).toHaveLength(490);
    expect((await tenant.vectorStores.list(newest)).items).toHaveLength(10);
  });

  test('count files and their bytes, and give room back', async () => {
    const tenant = library.shelves('quota-files');
    const files = [];
    for (let index = 0; index < 40; index++) files.push(await tenant.files.create(text('x')));
    await expect(tenant.files.create(text('x'))).rejects.toMatchObject({ code: 'quota_exceeded', details: { limit: 40, used: 40 } });
    await tenant.files.delete(files[0]?.id ?? '');
    await expect(tenant.files.create({ ...text(''), body: Buffer.alloc(5_000_000) })).rejects.toMatchObject({ code: 'quota_exceeded' });
    await tenant.files.create({ ...text(''), body: Buffer.alloc(4_999_961) });
    await expect(tenant.files.create(text('x'))).rejects.toMatchObject({ code: 'quota_exceeded' });
  });
});

describe('vector stores', () => {
  test('are made, changed and listed', async () => {
    const tenant = library.shelves('owner');
    const made = await tenant.vectorStores.create({ name: 'leases', description: 'ours', metadata: { team: 'law' }, expiresAfterDays: 7 });
    expect(made).toMatchObject({
      name: 'leases',
      description: 'ours',
      metadata: { team: 'law' },
      expiresAfterDays: 7,
      usageBytes: 0,
      embeddingModel: 'local-hash-384',
      embeddingDimensions: 384,
      fileCounts: { total: 0, in_progress: 0, completed: 0, failed: 0, cancelled: 0 },
    });
    expect(await tenant.vectorStores.get(made.id)).toEqual(made);
    clock.advance(5);
    const changed = await tenant.vectorStores.update(made.id, { name: 'rents', expiresAfterDays: null });
    expect(changed).toMatchObject({ name: 'rents', metadata: { team: 'law' }, lastActiveAtMs: clock.nowMs() });
    expect(changed?.expiresAfterDays).toBeUndefined();
    clock.advance(5);
    const second = await tenant.vectorStores.create({ name: '', metadata: {} });
    const { items } = await tenant.vectorStores.list({ limit: 1, order: 'desc' });
    expect(items.map((store) => store.id)).toEqual([second.id]);
    const rest = await tenant.vectorStores.list({ limit: 1, order: 'desc', after: second.id });
    expect(rest).toMatchObject({ hasMore: false, items: [{ id: made.id }] });
    expect(await tenant.vectorStores.delete(made.id)).toBe(true);
    expect(await tenant.vectorStores.delete(made.id)).toBe(false);
  });

  test('index a file once, however often and concurrently it is attached', async () => {
    const file = await acme.files.create(text('The tenant pays the rent on the first day of each month.'));
    const store = await acme.vectorStores.create({ name: '', metadata: {} });
    const records = await Promise.all(Array.from({ length: 8 }, () => acme.vectorStores.attachFile(store.id, attached(file.id))));
    expect(new Set(records.map((record) => record?.status))).toEqual(new Set(['in_progress']));
    expect((await acme.vectorStores.get(store.id))?.fileCounts).toMatchObject({ total: 1, in_progress: 1 });
    expect(await acme.vectorStores.fileContent(store.id, file.id)).toEqual([]);
    expect(await library.worker.drain()).toBe(1);
    const done = await acme.vectorStores.attachFile(store.id, attached(file.id));
    expect(done).toMatchObject({ id: file.id, vectorStoreId: store.id, status: 'completed', filename: 'a.txt', chunking });
    expect(await acme.vectorStores.fileContent(store.id, file.id)).toEqual(['The tenant pays the rent on the first day of each month.']);
    const [found] = (await acme.vectorStores.search(store.id, question('rent'))) ?? [];
    expect(found).toMatchObject({ ownerId: 'acme', fileId: file.id, vectorStoreId: store.id, ordinal: 0, filename: 'a.txt' });
    const record = await acme.vectorStores.get(store.id);
    expect(record?.usageBytes).toBe(56 + 384 * 4);
    expect(await acme.vectorStores.detachFile(store.id, file.id)).toBe(true);
    expect((await acme.vectorStores.get(store.id))?.usageBytes).toBe(0);
    expect(await acme.files.get(file.id)).toBeDefined();
  });

  test('forget a deleted file everywhere, and its statistics with it', async () => {
    const tenant = library.shelves('forgetful');
    const keep = await tenant.files.create(text('rent is due'));
    const drop = await tenant.files.create(text('rent and rent and deposit'));
    const stores = [
      await tenant.vectorStores.create({ name: '1', metadata: {} }),
      await tenant.vectorStores.create({ name: '2', metadata: {} }),
    ];
    for (const store of stores) for (const file of [keep, drop]) await tenant.vectorStores.attachFile(store.id, attached(file.id));
    await library.worker.drain();
    await tenant.files.delete(drop.id);
    for (const store of stores) {
      expect((await tenant.vectorStores.search(store.id, question('deposit')))?.map((chunk) => chunk.fileId)).toEqual([keep.id]);
      expect(await tenant.vectorStores.getFile(store.id, drop.id)).toBeUndefined();
    }
    expect(await rowsOf(library, 'forgetful')).toMatchObject({ chunk: 2, embedding_384: 2, posting: 4, vector_store_file: 2, file: 1 });
    const statistics = await library.truth(`SELECT chunk_count::int, term_count::int FROM app.vector_store WHERE tenant_id = 'forgetful'`);
    expect(statistics).toEqual([
      { chunk_count: 1, term_count: 2 },
      { chunk_count: 1, term_count: 2 },
    ]);
    for (const store of stores) await tenant.vectorStores.delete(store.id);
    expect(await rowsOf(library, 'forgetful')).toMatchObject({ chunk: 0, embedding_384: 0, posting: 0, vector_store_file: 0, file: 1 });
  });

  test('raise their revision with every change that a search can see', async () => {
    const tenant = library.shelves('revised');
    const revision = async () =>
      (await library.truth<{ revision: string }>(`SELECT revision FROM app.vector_store WHERE tenant_id = 'revised'`))[0]?.revision;
    const file = await tenant.files.create(text('rent'));
    const store = await tenant.vectorStores.create({ name: '', metadata: {} });
    const seen = [await revision()];
    const note = async () => seen.push(await revision());
    await tenant.vectorStores.attachFile(store.id, attached(file.id));
    await note();
    await library.worker.drain();
    await note();
    await tenant.vectorStores.updateFileAttributes(store.id, file.id, { year: 2026 });
    await note();
    await tenant.files.delete(file.id);
    await note();
    expect(new Set(seen).size).toBe(seen.length);
  });
});

describe('batches', () => {
  test('count what becomes of their files, and keep failures apart', async () => {
    const tenant = library.shelves('batcher');
    const store = await tenant.vectorStores.create({ name: '', metadata: {} });
    const good = await tenant.files.create(text('rent'));
    const odd = await tenant.files.create(text('x', 'a.exe'));
    const empty = await tenant.files.create(text('\u200b', 'b.txt'));
    const batch = await tenant.vectorStores.createBatch(
      store.id,
      [good, odd, empty].map((file) => attached(file.id)),
    );
    expect(batch).toMatchObject({ status: 'in_progress', fileCounts: { total: 3, in_progress: 3 } });
    await library.worker.drain();
    const batchId = batch?.id ?? '';
    expect(await tenant.vectorStores.getBatch(store.id, batchId)).toMatchObject({
      status: 'completed',
      fileCounts: { completed: 1, failed: 2 },
    });
    const failed = await tenant.vectorStores.listFiles(store.id, newest, { status: 'failed', batchId });
    expect(failed?.items.map((file) => [file.id, file.lastError?.code])).toEqual([
      [empty.id, 'invalid_file'],
      [odd.id, 'unsupported_file'],
    ]);
    expect(failed?.items[1]?.lastError?.message).toBe('unsupported_file_type: files named ".exe" cannot be read');
    expect((await tenant.vectorStores.get(store.id))?.fileCounts).toMatchObject({ total: 3, completed: 1, failed: 2 });
  });

  test('can be cancelled: what is indexed stays, the rest never comes', async () => {
    const tenant = library.shelves('canceller');
    const store = await tenant.vectorStores.create({ name: '', metadata: {} });
    const files = [await tenant.files.create(text('rent one')), await tenant.files.create(text('rent two'))];
    const batch = await tenant.vectorStores.createBatch(
      store.id,
      files.map((file) => attached(file.id)),
    );
    const cancelled = await tenant.vectorStores.cancelBatch(store.id, batch?.id ?? '');
    expect(cancelled).toMatchObject({ status: 'cancelled', fileCounts: { cancelled: 2, total: 2 } });
    await library.worker.drain();
    expect(await tenant.vectorStores.search(store.id, question('rent'))).toEqual([]);
    expect(await rowsOf(library, 'canceller')).toMatchObject({ chunk: 0, posting: 0, embedding_384: 0 });
  });

  test('of files of which one is absent are not made at all', async () => {
    const tenant = library.shelves('picky');
    const store = await tenant.vectorStores.create({ name: '', metadata: {} });
    const file = await tenant.files.create(text('rent'));
    expect(await tenant.vectorStores.createBatch(store.id, [attached(file.id), attached('file-none')])).toBeUndefined();
    expect(await rowsOf(library, 'picky')).toMatchObject({ vector_store_file: 0, file_batch: 0 });
    expect(await library.worker.drain()).toBe(0);
  });
});

describe("another tenant's ids", () => {
  test('behave exactly as absent ones, for every method', async () => {
    const file = await acme.files.create(text('the secret rent of acme'));
    const store = await acme.vectorStores.create({ name: 'acme', metadata: {} });
    const batch = await acme.vectorStores.createBatch(store.id, [attached(file.id)]);
    await library.worker.drain();
    const own = await globex.vectorStores.create({ name: 'own', metadata: {} });
    const before = JSON.stringify([await acme.vectorStores.get(store.id), await acme.files.get(file.id)]);
    const attempts = async (fileId: string, storeId: string, batchId: string) => [
      await globex.files.get(fileId),
      await globex.files.read(fileId),
      await globex.files.delete(fileId),
      await globex.vectorStores.get(storeId),
      await globex.vectorStores.update(storeId, { name: 'mine' }),
      await globex.vectorStores.delete(storeId),
      await globex.vectorStores.attachFile(storeId, attached(fileId)),
      await globex.vectorStores.attachFile(own.id, attached(fileId)),
      await globex.vectorStores.getFile(storeId, fileId),
      await globex.vectorStores.getFile(own.id, fileId),
      await globex.vectorStores.listFiles(storeId, newest, {}),
      await globex.vectorStores.listFiles(own.id, newest, { batchId }),
      await globex.vectorStores.updateFileAttributes(storeId, fileId, { mine: true }),
      await globex.vectorStores.detachFile(storeId, fileId),
      await globex.vectorStores.fileContent(storeId, fileId),
      await globex.vectorStores.createBatch(storeId, [attached(fileId)]),
      await globex.vectorStores.getBatch(storeId, batchId),
      await globex.vectorStores.getBatch(own.id, batchId),
      await globex.vectorStores.cancelBatch(storeId, batchId),
      await globex.vectorStores.cancelBatch(own.id, batchId),
      await globex.vectorStores.search(storeId, question('secret rent')),
    ];
    const foreign = await attempts(file.id, store.id, batch?.id ?? '');
    expect(foreign).toEqual(await attempts('file-none', 'vs_none', 'vsfb_none'));
    expect(foreign.flat().filter((answer) => answer !== undefined && answer !== false)).toEqual([{ items: [], hasMore: false }]);
    expect(JSON.stringify([await acme.vectorStores.get(store.id), await acme.files.get(file.id)])).toBe(before);
    expect(await globex.vectorStores.search(own.id, question('secret rent'))).toEqual([]);
  });
});
