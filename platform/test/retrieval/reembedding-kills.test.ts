import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { embedBy, fingerprint, Library, question, rowsOf } from './library.ts';

/** A data directory with a store of 100 chunks, which a job is going to embed by another model: two slices, the switch, and the removal. */
const folder = mkdtempSync(join(tmpdir(), 'bulkhead-reembedding-kills-'));
const template = join(folder, 'template');
const old = { model: 'local-hash-384', dimensions: 384 };
const target = { model: 'larger-768', dimensions: 768 };
const chunks = 100;
let storeId = '';
let answers: Readonly<Record<string, string>> = {};

/** What a tenant sees: by the model that the store says, which must be one of the two, whole. */
async function seen(library: Library) {
  const { vectorStores } = library.shelves('acme');
  const model = (await vectorStores.embeddingModels([storeId])).get(storeId) ?? '';
  const text = 'who pays rent';
  const found = await vectorStores.search(storeId, question(text, { embedding: embedBy(model, text), embeddingModel: model, limit: 50 }));
  return { model, answer: fingerprint(found) };
}

async function vectorsOf(library: Library) {
  const [row] = await library.truth(
    'SELECT (SELECT count(*)::int FROM app.embedding_384) AS old, (SELECT count(*)::int FROM app.embedding_768) AS new',
  );
  return row;
}

async function runChild(dataDir: string, steps: number): Promise<NodeJS.Signals | null> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'reembedding-child.ts'), dataDir, String(steps)], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return signal;
}

beforeAll(async () => {
  {
    await using library = await Library.open({ dataDir: template });
    storeId = await library.storeOf(
      'acme',
      Array.from({ length: chunks }, (_, index) => `Clause ${index}: the tenant of flat ${index} pays the rent.`),
    );
    const { answer } = await seen(library);
    await library.reembedding(library.shelves('acme').principal).begin(target);
    expect(await seen(library)).toEqual({ model: old.model, answer });
    answers = { [old.model]: answer };
  }
  const whole = join(folder, 'whole');
  cpSync(template, whole, { recursive: true });
  await using library = await Library.open({ dataDir: whole });
  await library.worker.drain();
  const { model, answer } = await seen(library);
  expect(model).toBe(target.model);
  answers = { ...answers, [model]: answer };
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('a process killed while it embeds a store anew', () => {
  // next, embed, half, whole; twice; next, activate; next, clear; next; all done.
  test.each(Array.from({ length: 14 }, (_, index) => index + 1))(
    'after step %i: the store answers by one model, whole, and is finished later',
    async (steps) => {
      const dataDir = join(folder, `step-${steps}`);
      cpSync(template, dataDir, { recursive: true });
      expect(await runChild(dataDir, steps)).toBe('SIGKILL');

      await using library = await Library.open({ dataDir });
      const { model, answer } = await seen(library);
      expect(answer).toBe(answers[model]);
      expect(model).toBe(steps <= 9 ? old.model : target.model);

      await library.queue.releaseAll();
      await library.worker.drain();
      expect(await seen(library)).toEqual({ model: target.model, answer: answers[target.model] });
      expect(await vectorsOf(library)).toEqual({ old: 0, new: chunks });
      expect(await rowsOf(library, 'acme')).toMatchObject({ chunk: chunks, vector_store_file: chunks });
      expect(await library.truth('SELECT * FROM control.job')).toEqual([]);
      rmSync(dataDir, { recursive: true, force: true });
    },
  );

  test('there are no more steps than these', async () => {
    const dataDir = join(folder, 'no-more');
    cpSync(template, dataDir, { recursive: true });
    expect(await runChild(dataDir, 15)).toBeNull();
  });
});
