/** A store's time ends `expires_after_days` after it was last active: at once for its tenant, and for its rows with the job of that time. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ManualClock } from '../../src/primitives/clock.ts';
import { chunking, Library, question, rowsOf } from './library.ts';

const dayMs = 86_400_000;
const clock = new ManualClock();
let library: Library;
beforeAll(async () => {
  library = await Library.open({ clock });
});
afterAll(async () => {
  await library[Symbol.asyncDispose]();
});

async function storeOfOne(tenant: string, days: number) {
  const shelves = library.shelves(tenant);
  const storeId = await library.storeOf(tenant, ['the rent is due on Monday']);
  await shelves.vectorStores.update(storeId, { expiresAfterDays: days });
  return { ...shelves, storeId, search: () => shelves.vectorStores.search(storeId, question('rent')) };
}

const expired = { code: 'vector_store_expired', rule: { status: 400 } };

describe('a vector store whose time is up', () => {
  test('answers until then, and from then on no search, no file and no second life', async () => {
    const { vectorStores, files, storeId, search } = await storeOfOne('acme', 7);
    clock.advance(7 * dayMs - 1);
    expect(await vectorStores.get(storeId)).toMatchObject({ isExpired: false, fileCounts: { completed: 1 } });
    clock.advance(1);
    expect(await vectorStores.get(storeId)).toMatchObject({ isExpired: true });
    expect((await vectorStores.list({ limit: 10, order: 'desc' })).items[0]).toMatchObject({ id: storeId, isExpired: true });
    await expect(search()).rejects.toMatchObject(expired);
    const file = await files.create({ filename: 'late.txt', purpose: 'assistants', body: Buffer.from('late') });
    const late = { fileId: file.id, attributes: {}, chunking };
    await expect(vectorStores.attachFile(storeId, late)).rejects.toMatchObject(expired);
    await expect(vectorStores.createBatch(storeId, [late])).rejects.toMatchObject(expired);
    await expect(vectorStores.update(storeId, { expiresAfterDays: null })).rejects.toMatchObject(expired);
    expect(await vectorStores.update(storeId, { name: 'still ours to name' })).toMatchObject({
      name: 'still ours to name',
      isExpired: true,
    });
    expect(await vectorStores.delete(storeId)).toBe(true);
  });

  test('loses its rows with the job of that time, keeps its files, and costs no other store a row', async () => {
    const { vectorStores, storeId } = await storeOfOne('globex', 1);
    const kept = await storeOfOne('globex', 2);
    await library.worker.drain();
    const before = await rowsOf(library, 'globex');
    clock.advance(dayMs);
    await library.worker.drain();
    expect(await rowsOf(library, 'globex')).toEqual({
      ...before,
      chunk: (before['chunk'] as number) / 2,
      posting: (before['posting'] as number) / 2,
      embedding_384: (before['embedding_384'] as number) / 2,
      vector_store_file: 1,
      file_batch: 1,
    });
    expect(await vectorStores.get(storeId)).toMatchObject({ isExpired: true, usageBytes: 0, fileCounts: { total: 0 } });
    expect(await kept.search()).toHaveLength(1);
    expect(await library.truth("SELECT id FROM control.job WHERE id LIKE 'job_vs_%' AND tenant_id = 'globex'")).toHaveLength(1);
  });

  test('lives on while it is searched, with one job that waits again', async () => {
    const { storeId, search } = await storeOfOne('initech', 2);
    for (let days = 0; days < 4; days++) {
      clock.advance(dayMs);
      expect(await search()).toHaveLength(1);
      await library.worker.drain();
    }
    expect(await library.truth('SELECT attempts FROM control.job WHERE id = $1', [`job_${storeId}_2`])).toEqual([{ attempts: 0 }]);
    clock.advance(2 * dayMs);
    await library.worker.drain();
    await expect(search()).rejects.toMatchObject(expired);
    expect(await library.truth('SELECT 1 FROM control.job WHERE id = $1', [`job_${storeId}_2`])).toEqual([]);
  });

  test('may be given more time, or all the time, before that', async () => {
    const { vectorStores, storeId, search } = await storeOfOne('umbrella', 1);
    await vectorStores.update(storeId, { expiresAfterDays: 30 });
    clock.advance(2 * dayMs);
    await library.worker.drain();
    expect(await search()).toHaveLength(1);
    await vectorStores.update(storeId, { expiresAfterDays: null });
    clock.advance(400 * dayMs);
    await library.worker.drain();
    expect(await search()).toHaveLength(1);
    expect(await library.truth("SELECT 1 FROM control.job WHERE tenant_id = 'umbrella'")).toEqual([]);
  });
});
