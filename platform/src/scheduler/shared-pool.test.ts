import { expect, it } from 'vitest';
import { ManualClock } from '../primitives/clock.ts';
import type { PermitExchange, PoolAnswer, PoolStatement } from './permit-exchange.ts';
import { SharedPool } from './shared-pool.ts';

const answer: PoolAnswer = {
  era: '1',
  capacity: 4,
  granted: 0,
  lost: 0,
  isWanted: false,
  free: 0,
  spare: 0,
  isLearning: false,
  elsewhere: { replicas: 1, running: 4, runningBatch: 0, waiting: 0 },
  times: { classes: 0, interactive: 0, batch: 0 },
  classTimes: { interactive: 0, batch: 0 },
  chargeTimes: [],
  headTimes: [],
};

/** After half of a placeholder's time the store may have given a grant to somebody else: the process stood still, and the message waited for it. */
it('asks about a grant that it hears of too late, and does not use it', async () => {
  const clock = new ManualClock();
  const statements: PoolStatement[] = [];
  let permitsMost = 0;
  const exchange = {
    exchange: async (statement: PoolStatement) => {
      statements.push(statement);
      return answer;
    },
  } as Partial<PermitExchange> as PermitExchange;
  const pool = new SharedPool({
    poolId: 'pool',
    pool: {
      load: { running: 0, runningBatch: 0, queued: 0 },
      heads: () => [],
      setPermits: (count) => {
        permitsMost = Math.max(permitsMost, count);
      },
      adopt: () => {},
      adoptTime: () => {},
      startEqual: () => {},
    },
    exchange,
    clock,
    place: () => ({ rank: 0, count: 2 }),
    batchMaxOf: (capacity) => capacity,
    onAlone: () => {},
  });
  await pool.ask();
  clock.advance(600);
  pool.granted({ granted: 1, number: 0, times: [] });
  await Promise.resolve();
  expect(permitsMost).toBe(0);
  expect(statements).toHaveLength(2);
});
