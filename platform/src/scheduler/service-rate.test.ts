import { expect, test } from 'vitest';
import { ServiceRate } from './service-rate.ts';

const saturated = { isSaturated: true, capacity: 2, running: 2 };

function ended(rate: ServiceRate, requests: number, unitsEach: number): void {
  for (let count = 0; count < requests; count++) rate.countEnd(unitsEach);
}

/** 8,000 units by two permits in two seconds. */
function learned(): ServiceRate {
  const rate = new ServiceRate();
  rate.observe(0, saturated);
  ended(rate, 8, 1_000);
  rate.observe(2_000, saturated);
  return rate;
}

test('the speed is what a permit got done over a second in which the pool was saturated', () => {
  const rate = learned();
  expect(rate.timeForMs(400, 2)).toBe(100);
  expect(rate.timeForMs(400, 0.5)).toBe(400);
  expect(rate.timeForMs(400, 4)).toBe(50);
});

// Planted: taking a sample by time alone.
test('seconds in which too few requests ended are no sample: a whole answer counts when it ends', () => {
  const rate = new ServiceRate();
  rate.observe(0, saturated);
  ended(rate, 7, 1);
  rate.observe(60_000, saturated);
  expect(rate.timeForMs(400, 2)).toBeUndefined();
  ended(rate, 1, 60_000 - 7);
  rate.observe(60_000, saturated);
  expect(rate.timeForMs(400, 2)).toBe(400);
});

// Planted: letting time without a queue count.
test('time without a queue says nothing about the speed', () => {
  const rate = new ServiceRate();
  rate.observe(0, saturated);
  ended(rate, 8, 1_000);
  rate.observe(500, { ...saturated, isSaturated: false });
  rate.observe(90_000, saturated);
  ended(rate, 8, 1_000);
  rate.observe(91_000, saturated);
  expect(rate.timeForMs(400, 2)).toBe(50);
});

// Planted: dividing by the time instead of the permits' time.
test('a pool without permits for a minute keeps its speed', () => {
  const rate = learned();
  rate.observe(2_000, { isSaturated: true, capacity: 0, running: 0 });
  expect(rate.timeForMs(400, 0)).toBeUndefined();
  rate.observe(62_000, saturated);
  ended(rate, 8, 1_000);
  rate.observe(64_000, saturated);
  expect(rate.timeForMs(400, 2)).toBe(100);
});
