import { expect, test } from 'vitest';
import { ServiceRate } from './service-rate.ts';

const saturated = { isSaturated: true, capacity: 2 };

function served(rate: ServiceRate, requests: number, unitsEach: number): void {
  for (let count = 0; count < requests; count++) {
    rate.add(unitsEach);
    rate.countEnd();
  }
}

test('the speed is what was charged over a second in which the pool was saturated', () => {
  const rate = new ServiceRate();
  rate.observe(0, saturated);
  served(rate, 8, 1_000);
  rate.observe(2_000, saturated);
  expect(rate.timeForMs(400, 1)).toBe(100);
  expect(rate.timeForMs(400, 0.25)).toBe(400);
  rate.scale(2);
  expect(rate.timeForMs(400, 1)).toBe(50);
});

// Planted: taking a sample by time alone.
test('seconds in which too few requests ended are no sample: a whole answer is charged when it ends', () => {
  const rate = new ServiceRate();
  rate.observe(0, saturated);
  served(rate, 7, 1);
  rate.observe(60_000, saturated);
  expect(rate.timeForMs(400, 1)).toBeUndefined();
  served(rate, 1, 60_000 - 7);
  rate.observe(60_000, saturated);
  expect(rate.timeForMs(400, 1)).toBe(400);
});

// Planted: letting time without a queue count.
test('time without a queue says nothing about the speed', () => {
  const rate = new ServiceRate();
  rate.observe(0, saturated);
  served(rate, 8, 1_000);
  rate.observe(500, { ...saturated, isSaturated: false });
  rate.observe(90_000, saturated);
  served(rate, 8, 1_000);
  rate.observe(91_000, saturated);
  expect(rate.timeForMs(400, 1)).toBe(50);
});
