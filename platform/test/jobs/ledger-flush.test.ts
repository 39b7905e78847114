import { describe, expect, test } from 'vitest';
import { MemoryUsageJournal } from '../../src/adapters/memory/usage-journal.ts';
import { runLedgerFlush } from '../../src/jobs/ledger-flush.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import type { Logger } from '../../src/telemetry/logger.ts';
import { ScriptedLedger } from '../contracts/scripted-ledger.ts';
import { usageEvent } from '../contracts/usage-events.ts';

/** The job with a clock that moves only while the job sleeps; `onSleep` sees every sleep and can act or stop the job. */
async function run(onSleep: (world: World) => void): Promise<World> {
  const ledger = new ScriptedLedger();
  const journal = new MemoryUsageJournal({ ledger });
  const clock = new ManualClock();
  const stop = new AbortController();
  const logged: string[] = [];
  const log = (_fields: object, message: string) => logged.push(message);
  const logger: Logger = { debug: log, info: log, warn: log, error: log };
  const world: World = { ledger, journal, clock, logged, sleeps: [], stop: () => stop.abort() };
  const sleep = async (durationMs: number, signal: AbortSignal) => {
    await settle();
    if (signal !== stop.signal) return;
    clock.advance(durationMs);
    world.sleeps.push(durationMs);
    if (world.sleeps.length > 10_000) stop.abort();
    onSleep(world);
  };
  await runLedgerFlush({ journal, clock, random: seededRandom(7), logger, sleep }, stop.signal);
  return world;
}

interface World {
  readonly ledger: ScriptedLedger;
  readonly journal: MemoryUsageJournal;
  readonly clock: ManualClock;
  readonly logged: string[];
  readonly sleeps: number[];
  readonly stop: () => void;
}

/** Lets everything that is ready to run, run. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('the ledger flush', () => {
  test('flushes every second when there is something, and leaves the ledger alone otherwise', async () => {
    const flushedAtMs: number[] = [];
    const { ledger } = await run((world) => {
      const nowMs = world.clock.monotonicMs();
      world.ledger.duringAppend = () => flushedAtMs.push(world.clock.monotonicMs());
      if (nowMs === 2_500) world.journal.append(usageEvent(1));
      if (nowMs === 2_600) world.journal.append(usageEvent(2));
      if (nowMs === 5_050) world.journal.append(usageEvent(3));
      if (nowMs === 7_000) world.stop();
    });
    expect(ledger.batchSizes).toEqual([2, 1]);
    expect(flushedAtMs).toEqual([3_000, 6_000]);
  });

  test('does not wait for the second at 500 pending events, but does at 499', async () => {
    const burst = (events: number) => (world: World) => {
      if (world.sleeps.length === 1) for (let number = 1; number <= events; number++) world.journal.append(usageEvent(number));
      if (world.ledger.received > 0) world.stop();
    };
    expect((await run(burst(500))).clock.monotonicMs()).toBe(100);
    expect((await run(burst(499))).clock.monotonicMs()).toBeGreaterThanOrEqual(1_000);
  });

  test('waits longer after every failure, within bounds and not in step with others, and says when it is over', async () => {
    const { sleeps, logged, ledger } = await run((world) => {
      if (world.sleeps.length === 1) {
        world.journal.append(usageEvent(1));
        for (let count = 0; count < 12; count++) world.ledger.failures.push('before');
      }
      if (world.ledger.received > 0) world.stop();
    });
    const backoffs = sleeps.filter((durationMs) => durationMs !== 50);
    const ceilings = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000];
    expect(backoffs).toHaveLength(ceilings.length);
    for (const [index, ceilingMs] of ceilings.entries()) {
      expect(backoffs[index]).toBeGreaterThanOrEqual(ceilingMs / 2);
      expect(backoffs[index]).toBeLessThanOrEqual(ceilingMs);
    }
    expect(new Set(backoffs).size).toBe(backoffs.length);
    expect(ledger.ids).toEqual([usageEvent(1).id]);
    expect(logged.filter((message) => message.includes('does not take events'))).toHaveLength(12);
    expect(logged.at(-1)).toBe('the usage ledger takes events again');
  });

  test('never flushes twice at once', async () => {
    const { ledger } = await run((world) => {
      for (let count = 0; count < 300; count++) world.journal.append(usageEvent(world.sleeps.length * 1_000 + count));
      if (world.sleeps.length === 30) world.stop();
    });
    expect([ledger.overlapped, ledger.ids.length]).toEqual([false, 30 * 300]);
  });

  test('delivers what is left when it is stopped', async () => {
    const { ledger, journal } = await run((world) => {
      world.journal.append(usageEvent(1));
      world.stop();
    });
    expect([ledger.ids, journal.pendingCount]).toEqual([[usageEvent(1).id], 0]);
  });

  test('stops even when the ledger is down, and says what stays in the journal', async () => {
    const { logged, journal } = await run((world) => {
      world.journal.append(usageEvent(1));
      world.ledger.failures.push('before', 'before');
      world.stop();
    });
    expect(journal.pendingCount).toBe(1);
    expect(logged.at(-1)).toContain('stopped with usage events in the journal');
  });

  test('stops when its time is up even when the ledger never answers', async () => {
    const { logged } = await run((world) => {
      world.journal.append(usageEvent(1));
      world.ledger.append = () => new Promise(() => {});
      world.stop();
    });
    expect(logged.at(-1)).toContain('stopped with usage events in the journal');
  });

  test('stops in the middle of a flush that never ends', async () => {
    const { logged } = await run((world) => {
      if (world.sleeps.length === 1) world.journal.append(usageEvent(1));
      world.ledger.append = () => {
        setImmediate(world.stop);
        return new Promise(() => {});
      };
    });
    expect(logged.at(-1)).toContain('stopped with usage events in the journal');
  });

  test('flushes once more when it is stopped before it began', async () => {
    const ledger = new ScriptedLedger();
    const journal = new MemoryUsageJournal({ ledger });
    journal.append(usageEvent(1));
    const logger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
    await runLedgerFlush({ journal, clock: new ManualClock(), random: seededRandom(1), logger }, AbortSignal.abort());
    expect(ledger.ids).toEqual([usageEvent(1).id]);
  });
});
