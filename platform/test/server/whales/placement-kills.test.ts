/** `kill -9` at every step of promoting a store and of taking it back: searches answer the same at once, and the next sweep brings it to its place. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PlacementStep } from '../../../src/adapters/postgres/placement-keeper.ts';
import type { Placement } from '../../../src/tenancy/placement.ts';
import { fingerprint, Library } from '../../retrieval/library.ts';
import { tenantId } from '../../support/embedded-database.ts';
import { urlOf } from '../../support/server-database.ts';
import {
  clusteredEmbedder,
  clusteredQuestion,
  keeperOf,
  longStore,
  longText,
  operator,
  shardsOf,
  smallBounds,
  sweep,
} from './whale-world.ts';

const child = fileURLToPath(new URL('./whale-child.ts', import.meta.url));
let library: Library;
let storeId: string;
let expected: readonly string[];
let rows: Readonly<Record<string, number>>;

beforeAll(async () => {
  library = await Library.open({ embedder: clusteredEmbedder });
  storeId = await longStore(library, 'whale', { files: 70, chunksEach: 3 });
  expected = await answers();
  rows = await totals();
}, 120_000);
afterAll(() => library[Symbol.asyncDispose]());

async function answers(): Promise<readonly string[]> {
  const { vectorStores } = library.shelves('whale');
  const found: string[] = [];
  for (let index = 0; index < 4; index++)
    found.push(fingerprint(await vectorStores.search(storeId, clusteredQuestion(longText(index, 1)))));
  return found;
}

async function totals(): Promise<Readonly<Record<string, number>>> {
  const shards = await shardsOf(library, 'whale');
  return Object.fromEntries(
    Object.entries(shards).map(([table, counts]) => [table, Object.values(counts).reduce((sum, count) => sum + count, 0)]),
  );
}

async function killedAt(step: PlacementStep, times: number): Promise<void> {
  const [row] = await library.truth<{ name: string }>('SELECT current_database() AS name');
  const env = { ...process.env, TEST_WHALE_DATABASE: urlOf(row?.name ?? ''), TEST_WHALE_BOUNDS: JSON.stringify(smallBounds) };
  const running = spawn(process.execPath, [child, step, String(times)], { stdio: 'ignore', env });
  const [, by] = (await once(running, 'exit')) as [number | null, NodeJS.Signals | null];
  expect(by).toBe('SIGKILL');
}

/** A dead process's connection lets go of its lock when the server notices; then the next sweep is the one that works. */
async function sweptTo(placement: Placement): Promise<void> {
  const keeper = keeperOf(library);
  await expect
    .poll(
      async () => {
        await sweep(keeper);
        const { stores } = await keeper.find(operator, tenantId('whale'));
        return stores.map((store) => [store.placement, store.isMoving]);
      },
      { timeout: 20_000 },
    )
    .toEqual([[placement, false]]);
}

async function expectWhole(): Promise<void> {
  expect(await totals()).toEqual(rows);
  expect(await answers()).toEqual(expected);
}

const there: readonly (readonly [PlacementStep, number])[] = [
  ['shard', 1],
  ['begun', 1],
  ['batch', 1],
  ['batch', 2],
  ['moved', 1],
  ['finished', 1],
  ['built', 1],
  ['measured', 1],
];
const back: readonly (readonly [PlacementStep, number])[] = [
  ['begun', 1],
  ['batch', 1],
  ['moved', 1],
  ['finished', 1],
  ['dropped', 1],
];

describe('a process that is killed while it puts a store in its place', () => {
  it.each(there)(
    'on the way to its own shard, at "%s" number %i, leaves it whole and searchable, and the next goes on',
    async (step, times) => {
      const keeper = keeperOf(library);
      await keeper.wish(operator, tenantId('whale'), 'dedicated');
      await killedAt(step, times);
      await expectWhole();
      await sweptTo('dedicated');
      await expectWhole();
      await keeper.wish(operator, tenantId('whale'), 'pooled');
      await sweptTo('pooled');
    },
  );

  it.each(back)('on the way back, at "%s" number %i, leaves it whole and searchable, and the next goes on', async (step, times) => {
    const keeper = keeperOf(library);
    await keeper.wish(operator, tenantId('whale'), 'dedicated');
    await sweptTo('dedicated');
    await keeper.wish(operator, tenantId('whale'), 'pooled');
    await killedAt(step, times);
    await expectWhole();
    await sweptTo('pooled');
    await expectWhole();
    expect(await library.truth(`SELECT FROM control.shard WHERE tenant_id = 'whale'`)).toEqual([]);
  });
});
