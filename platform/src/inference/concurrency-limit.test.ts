import { expect, test } from 'vitest';
import { seededRandom } from '../primitives/random.ts';
import { ConcurrencyLimit } from './concurrency-limit.ts';
import { LatencyWatch } from './latency-watch.ts';

test('a burst of refusals cuts the limit once', () => {
  const limit = new ConcurrencyLimit(100);
  for (let at = 0; at < 1_000; at += 10) limit.refused(at);
  expect(limit.value).toBe(70);
  limit.refused(1_000);
  expect(limit.value).toBe(49);
  for (let at = 2_000; at < 60_000; at += 1_000) limit.refused(at);
  expect(limit.value).toBe(1);
});

test('a limit grows by one for as many answers as it is, only while it is used up, and never above its ceiling', () => {
  const limit = new ConcurrencyLimit(10);
  limit.refused(0);
  for (let count = 0; count < 100; count++) limit.answered(false);
  expect(limit.value).toBe(7);
  for (let count = 0; count < 7; count++) limit.answered(true);
  expect(limit.value).toBe(8);
  for (let count = 0; count < 100; count++) limit.answered(true);
  expect(limit.value).toBe(10);
});

test('a limit finds a provider’s capacity, whatever the ceiling, and is close to it most of the time', () => {
  const random = seededRandom(3);
  const limit = new ConcurrencyLimit(200);
  const capacity = 40;
  let used = 0;
  for (let second = 0; second < 600; second++) {
    const asked = limit.value;
    if (asked > capacity) limit.refused(second * 1_000);
    for (let answer = 0; answer < Math.min(asked, capacity); answer++) limit.answered(asked <= capacity && random.next() < 0.9);
    if (second >= 60) used += Math.min(limit.value, capacity);
  }
  expect(used / (540 * capacity)).toBeGreaterThan(0.8);
  expect(limit.value).toBeLessThanOrEqual(capacity + 1);
});

test('slowness takes a tenth at a time, and leaves a quarter', () => {
  const limit = new ConcurrencyLimit(40);
  limit.slowed(0);
  expect(limit.value).toBe(36);
  for (let at = 1_000; at < 100_000; at += 1_000) limit.slowed(at);
  expect(limit.value).toBe(10);
});

test('slow is what takes twice as long as it did, three windows on end, for prompts of any size', () => {
  const watch = new LatencyWatch();
  const window = (ms: number, tokens = 0, at = 0) => Array.from({ length: 16 }, () => watch.observe(ms, tokens, at)).some(Boolean);
  expect([window(100), window(190), window(190), window(190)]).toEqual([false, false, false, false]);
  expect([window(300, 4_000), window(300, 4_000), window(300, 4_000)]).toEqual([false, false, false]);
  expect([window(201), window(201), window(120), window(201), window(201), window(201)]).toEqual([false, false, false, false, false, true]);
  // What was best more than ten minutes ago is forgotten.
  window(250, 0, 300_001);
  window(250, 0, 600_002);
  expect([window(250, 0, 600_003), window(250, 0, 600_004), window(250, 0, 600_005)]).toEqual([false, false, false]);
});
