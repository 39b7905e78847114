import { expect, test } from 'vitest';
import { type Flow, FlowLevel } from './flow-level.ts';

const openLevel = (debtorsMax = 100) =>
  new FlowLevel<Flow>((key) => ({ key, queued: 0, inFlight: 0, virtualTime: 0, turn: 0, heapIndex: -1 }), debtorsMax);

function waiting(level: FlowLevel<Flow>, key: string): Flow {
  const flow = level.obtain(key);
  flow.queued = 1;
  level.startWaiting(flow);
  return flow;
}

// Planted: rebasing the level without its flows.
test('virtual time stays exact for ever: the level counts again from 0 and all differences stay', () => {
  const level = openLevel();
  const [one, other] = [waiting(level, 'one'), waiting(level, 'other')];
  const step = 2 ** 48 + 1;
  let dispatches = 0;
  for (; dispatches < 64; dispatches++) {
    const next = level.waiting.first;
    if (next !== undefined) level.dispatch(next, step);
    expect(Math.abs(one.virtualTime - other.virtualTime) % step).toBe(0);
    expect(Math.abs(one.virtualTime - other.virtualTime)).toBeLessThanOrEqual(step);
    expect(Number.isSafeInteger(one.virtualTime) && Number.isSafeInteger(other.virtualTime)).toBe(true);
  }
  expect(level.virtualTime).toBeLessThan(2 ** 51);
});

test('a debt outlasts idling until the level has passed it', () => {
  const level = openLevel();
  const [steady, debtor] = [waiting(level, 'steady'), waiting(level, 'debtor')];
  debtor.queued = 0;
  level.dispatch(debtor, 500);
  level.forgetIfIdle(debtor);
  expect(level.find('debtor')?.virtualTime).toBe(500);
  while (level.virtualTime <= 500) level.dispatch(steady, 100);
  const passing = level.obtain('passing');
  level.forgetIfIdle(passing);
  expect(level.find('debtor')).toBeUndefined();
});

test('n debtors are remembered, of n + 1 the oldest is not', () => {
  const level = openLevel(3);
  waiting(level, 'steady');
  for (const key of ['a', 'b', 'c', 'd']) {
    const flow = level.obtain(key);
    level.lift(flow);
    level.dispatch(flow, 1_000);
    level.forgetIfIdle(flow);
    if (key === 'c') expect(level.flowCount).toBe(4);
  }
  expect(level.flowCount).toBe(4);
});
