import { expect, test } from 'vitest';
import { type Flow, FlowLevel } from './flow-level.ts';

const openLevel = (debtorsMax = 100) =>
  new FlowLevel<Flow>((key) => ({ key, queued: 0, inFlight: 0, virtualTime: 0, turn: 0, heapIndex: -1, aheadUnits: 0 }), debtorsMax);

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

// Planted: a place ahead that lowers the floor of a refund, or is kept.
test('a place ahead ends with the dispatch, and a refund meanwhile is exact', () => {
  const level = openLevel();
  const [steady, eager] = [waiting(level, 'steady'), waiting(level, 'eager')];
  level.dispatch(eager, 1_000);
  level.dispatch(steady, 4_000);
  level.dispatch(eager, 2_000);
  eager.queued = 0;
  level.waiting.remove(eager);
  level.startWaiting(eager, 'first', 5_000);
  expect(level.waiting.first).toBe(eager);
  level.charge(eager, -2_000, 4_000);
  eager.queued = 1;
  level.dispatch(eager, 300);
  expect(eager.virtualTime).toBe(1_300);
  level.waiting.remove(eager);
  level.startWaiting(eager, 'first', 5_000);
  level.stopWaiting(eager);
  expect(eager.virtualTime).toBe(1_300);
});

// Planted: rebasing without the file.
test('newcomers in file begin one behind the other, and those that leave make room', () => {
  const level = openLevel();
  const join = (key: string, units: number) => {
    const flow = level.obtain(key);
    level.joinFile(flow, units);
    return flow;
  };
  const steady = waiting(level, 'steady');
  expect([join('a', 100), join('b', 50)].map(({ virtualTime }) => virtualTime)).toEqual([0, 100]);
  const left = join('c', 1_000);
  level.leaveFile(left, 1_000);
  expect(join('d', 10).virtualTime).toBe(150);
  while (level.virtualTime < 2 ** 50) level.dispatch(steady, 2 ** 49);
  level.dispatch(steady, 2 ** 49);
  level.dispatch(steady, 1);
  expect(join('e', 10).virtualTime).toBeLessThanOrEqual(level.virtualTime + 10);
});

// Planted: adopting without moving the flow in the heap; a level that falls.
test('a time that is taken over orders the flows, and the level does not fall', () => {
  const level = openLevel();
  const [one, other] = [waiting(level, 'one'), waiting(level, 'other')];
  level.adopt(one, 700);
  expect(level.waiting.first).toBe(other);
  level.adoptTime(500);
  level.adoptTime(300);
  expect(level.virtualTime).toBe(500);
  level.adopt(other, 900);
  expect(level.waiting.first).toBe(one);
  level.startEqual(40);
  expect([level.virtualTime, one.virtualTime, other.virtualTime]).toEqual([40, 40, 40]);
});
