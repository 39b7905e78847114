/**
 * Brings the usage journal's events to the ledger in the background: every second, at once when many wait, later and later while the
 * ledger is down. One flush at a time. Nothing is lost when it stops: what is not delivered stays in the journal.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type { UsageJournal } from '../metering/usage-journal.ts';
import type { Clock } from '../primitives/clock.ts';
import type { Random } from '../primitives/random.ts';
import type { Logger } from '../telemetry/logger.ts';

export interface LedgerFlushParts {
  readonly journal: UsageJournal;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly intervalMs?: number;
  /** This many waiting events do not wait for the interval. */
  readonly pendingEventsMax?: number;
  /** Longest pause between two attempts while the ledger is down. */
  readonly backoffMaxMs?: number;
  /** What a stopping process grants the last attempt. */
  readonly lastFlushMaxMs?: number;
  /** Returns early when the signal aborts, and never throws. */
  readonly sleep?: (durationMs: number, signal: AbortSignal) => Promise<void>;
}

const component = 'ledger-flush';
const intervalMsDefault = 1_000;
const pendingEventsMaxDefault = 500;
const backoffMaxMsDefault = 30_000;
const lastFlushMaxMsDefault = 5_000;
const backoffFirstMs = 500;
/** How soon a burst is noticed. Looking costs one comparison; 500 events gather in 50 ms only beyond 10,000 requests a second. */
const lookEveryMs = 50;

/** Runs until `signal` aborts, then flushes once more and resolves. Never rejects. */
export async function runLedgerFlush(parts: LedgerFlushParts, signal: AbortSignal): Promise<void> {
  let failures = 0;
  const stopped = new Promise<true>((resolve) => signal.addEventListener('abort', () => resolve(true), { once: true }));
  while (!signal.aborted) {
    if (failures === 0) await untilDue(parts, signal);
    else await sleepOf(parts)(backoffMs(parts, failures), signal);
    if (signal.aborted) break;
    // A ledger that never answers must not keep the process from stopping; the journal runs the last flush behind this one.
    const succeeded = await Promise.race([flushed(parts, failures), stopped]);
    failures = succeeded ? 0 : failures + 1;
  }
  await flushLast(parts);
}

async function untilDue(parts: LedgerFlushParts, signal: AbortSignal): Promise<void> {
  const { journal, clock, intervalMs = intervalMsDefault, pendingEventsMax = pendingEventsMaxDefault } = parts;
  const dueAtMs = clock.monotonicMs() + intervalMs;
  while (!signal.aborted && clock.monotonicMs() < dueAtMs && journal.pendingCount < pendingEventsMax) {
    await sleepOf(parts)(Math.min(lookEveryMs, intervalMs), signal);
  }
}

async function flushed({ journal, logger }: LedgerFlushParts, failuresBefore: number): Promise<boolean> {
  if (journal.pendingCount === 0) return true;
  try {
    await journal.flush();
    if (failuresBefore > 0) logger.info({ component, count: failuresBefore }, 'the usage ledger takes events again');
    return true;
  } catch (error) {
    const message = 'the usage ledger does not take events; they wait in the journal';
    logger.warn({ component, count: journal.pendingCount, reason: reasonOf(error) }, message);
    return false;
  }
}

/** Doubles up to the maximum; the random half keeps replicas that lost one database together from coming back together. */
function backoffMs({ random, backoffMaxMs = backoffMaxMsDefault }: LedgerFlushParts, failures: number): number {
  const ceilingMs = Math.min(backoffMaxMs, backoffFirstMs * 2 ** Math.min(failures - 1, 30));
  return ceilingMs * (0.5 + random.next() / 2);
}

async function flushLast(parts: LedgerFlushParts): Promise<void> {
  const { journal, logger, lastFlushMaxMs = lastFlushMaxMsDefault } = parts;
  const timeout = new AbortController();
  const timeUp = sleepOf(parts)(lastFlushMaxMs, timeout.signal);
  await Promise.race([flushed(parts, 0), timeUp]);
  timeout.abort();
  const left = journal.pendingCount;
  if (left > 0) logger.warn({ component, count: left }, 'stopped with usage events in the journal; the next start delivers them');
}

function sleepOf({ sleep = sleepUnlessAborted }: LedgerFlushParts): NonNullable<LedgerFlushParts['sleep']> {
  return sleep;
}

async function sleepUnlessAborted(durationMs: number, signal: AbortSignal): Promise<void> {
  // The only rejection is the abort, and the caller looks at the signal.
  await wait(durationMs, undefined, { signal }).catch(() => {});
}

/** The code alone: messages of database errors can carry values. */
function reasonOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return error instanceof Error ? error.name : 'unknown';
}
