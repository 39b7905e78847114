import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { KillPoint } from './ingestion-child.ts';
import { hashedEmbedder, Library, question, rowsOf } from './library.ts';

/** A data directory with a store, one indexed file, and a second one whose job waits. */
const folder = mkdtempSync(join(tmpdir(), 'bulkhead-kills-'));
const template = join(folder, 'template');
const body = Buffer.from(Array.from({ length: 1_600 }, (_, index) => `Clause ${index} binds the tenant to pay rent. `).join(''));
const small = { type: 'static', maxChunkTokens: 100, overlapTokens: 0 } as const;
let storeId = '';
let fileId = '';
let complete: Readonly<Record<string, number>> = {};

beforeAll(async () => {
  {
    await using library = await Library.open({ dataDir: template });
    storeId = await library.storeOf('acme', ['The landlord repairs the roof.']);
    const { files, vectorStores } = library.shelves('acme');
    const file = await files.create({ filename: 'long.txt', purpose: 'assistants', body });
    fileId = file.id;
    await vectorStores.attachFile(storeId, { fileId, attributes: {}, chunking: small });
  }
  const whole = join(folder, 'whole');
  cpSync(template, whole, { recursive: true });
  await using library = await Library.open({ dataDir: whole });
  await library.worker.drain();
  complete = await rowsOf(library, 'acme');
  expect(complete['chunk']).toBeGreaterThan(128);
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function runChild(dataDir: string, point: KillPoint): Promise<NodeJS.Signals | null> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'ingestion-child.ts'), dataDir, point], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return signal;
}

describe('a process killed while it indexes', () => {
  test.each<[KillPoint, boolean]>([
    ['begun', false],
    ['first-embedding', false],
    ['second-embedding', false],
    ['before-publish', false],
    ['after-publish', true],
    ['after-complete', true],
  ])('%s: shows the whole file or nothing of it, and finishes after a restart', async (point, isVisible) => {
    const dataDir = join(folder, point);
    cpSync(template, dataDir, { recursive: true });
    expect(await runChild(dataDir, point)).toBe('SIGKILL');

    await using library = await Library.open({ dataDir });
    const { vectorStores } = library.shelves('acme');
    const seen = async () => {
      const found = (await vectorStores.search(storeId, question('tenant pays rent', { limit: 50 }))) ?? [];
      const [store] = await library.truth<{ chunks: number }>('SELECT chunk_count::int AS chunks FROM app.vector_store');
      return { found: found.length, content: (await vectorStores.fileContent(storeId, fileId))?.length, chunks: store?.chunks };
    };
    const whole = { found: 50, content: (complete['chunk'] ?? 0) - 1, chunks: complete['chunk'] };
    expect(await seen()).toEqual(isVisible ? whole : { found: 1, content: 0, chunks: 1 });

    await library.queue.releaseAll();
    expect(await library.worker.drain()).toBe(point === 'after-complete' ? 0 : 1);
    expect(await seen()).toEqual(whole);
    expect(await rowsOf(library, 'acme')).toEqual(complete);
    expect(await library.truth('SELECT * FROM control.job')).toEqual([]);
  });
});

describe('a running worker', () => {
  test('wakes for new work, holds its lease through long work, and gives its job back when it stops', async () => {
    const dataDir = join(folder, 'running');
    cpSync(template, dataDir, { recursive: true });
    const endless = Promise.withResolvers<void>();
    let calls = 0;
    await using library = await Library.open({
      dataDir,
      // Never polls twice: only `wake` can bring it to the second file.
      bounds: { leaseMs: 1_500, pollIntervalMs: 600_000, concurrency: 1 },
      embedder: {
        async embed(texts, signal) {
          if (++calls <= 4) return hashedEmbedder.embed(texts, signal);
          endless.resolve();
          await once(signal, 'abort');
          throw signal.reason;
        },
      },
    });
    library.worker.start();
    const { files, vectorStores } = library.shelves('acme');
    const until = async (isTrue: () => Promise<boolean>) => {
      while (!(await isTrue())) await new Promise((resolve) => setImmediate(resolve));
    };
    await until(async () => (await vectorStores.getFile(storeId, fileId))?.status === 'completed');
    calls = 4;
    const file = await files.create({ filename: 'next.txt', purpose: 'assistants', body: Buffer.from('next') });
    await vectorStores.attachFile(storeId, { fileId: file.id, attributes: {}, chunking: small });
    await endless.promise;
    const lease = async () => Number((await library.truth<{ until: string }>('SELECT lease_until_ms AS until FROM control.job'))[0]?.until);
    const taken = await lease();
    await until(async () => (await lease()) > taken);
    expect(await library.queue.claim(1_000)).toBeUndefined();
    await library.worker[Symbol.asyncDispose]();
    expect(await library.truth('SELECT attempts, lease FROM control.job')).toEqual([{ attempts: 0, lease: null }]);
    expect(calls).toBe(5);
  });
});
