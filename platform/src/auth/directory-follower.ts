/**
 * Polls the change feed every 2 s, so that a revocation made anywhere is seen here within 5 s: at the latest it is read one period and one read
 * after it was made, and when the feed has not been read for 3 s, nothing that was cached is trusted any more. One read at a time, given up on
 * after 1.5 s; a read that hangs is waited for by nobody and followed by no second one.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type { Clock } from '../primitives/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { changesPerReadMax, type DirectoryChange, type TenantDirectory } from '../tenancy/tenant-directory.ts';

export interface FollowerParts {
  readonly directory: TenantDirectory;
  readonly onChange: (change: DirectoryChange) => void;
  /** The feed could not be read for so long that nothing cached may be trusted. */
  readonly onLost: () => void;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Returns early when the signal aborts, and never throws. */
  readonly sleep?: (durationMs: number, signal: AbortSignal) => Promise<void>;
}

export interface DirectoryFollower extends AsyncDisposable {
  /** Sees every change made before the call, or else trusts nothing any more. For the process that made a change, so that it is seen at once. */
  catchUp(): Promise<void>;
  close(): Promise<void>;
}

const everyMs = 2_000;
const retryMs = 500;
const readMaxMs = 1_500;
/** Lost later than this, the worst case of a failed read and a hanging one would pass 5 s. */
const lostAfterMs = 3_000;
/** 100,000 changes in one read; more are as good as lost. */
const pagesMax = 100;

/** Starts after the newest change there is. Rejects when the feed cannot be read now. */
export async function followDirectory(parts: FollowerParts): Promise<DirectoryFollower> {
  const follower = new Follower(parts, await parts.directory.latestSequence());
  follower.start();
  return follower;
}

class Follower implements DirectoryFollower {
  readonly #parts: FollowerParts;
  readonly #stop = new AbortController();
  #sequence: number;
  #readAtMs: number;
  #failures = 0;
  #reading: Promise<boolean> | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(parts: FollowerParts, sequence: number) {
    this.#parts = parts;
    this.#sequence = sequence;
    this.#readAtMs = parts.clock.monotonicMs();
  }

  start(): void {
    this.#running = this.#poll();
  }

  async catchUp(): Promise<void> {
    // A read under way may have begun before the change.
    if (this.#reading !== undefined) await this.#withinTime(this.#reading);
    if (!(await this.#withinTime(this.#read()))) this.#parts.onLost();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Never rejects. */
  async #poll(): Promise<void> {
    const { signal } = this.#stop;
    const { clock, onLost } = this.#parts;
    let pauseMs = everyMs;
    while (!signal.aborted) {
      await this.#sleep(pauseMs, signal);
      if (signal.aborted) return;
      const startedAtMs = clock.monotonicMs();
      const isRead = await this.#withinTime(this.#read());
      if (!isRead) this.#failed();
      if (clock.monotonicMs() - this.#readAtMs >= lostAfterMs) onLost();
      pauseMs = isRead ? Math.max(0, everyMs - (clock.monotonicMs() - startedAtMs)) : retryMs;
    }
  }

  #failed(): void {
    this.#failures++;
    // The first of a row, and then one a minute or so: a database that is down is said often enough by others.
    if (this.#failures % 100 === 1) {
      this.#parts.logger.warn({ component: 'directory', count: this.#failures }, 'the change feed cannot be read');
    }
  }

  /** False when the work failed, or is not done in time, or the follower stops. */
  async #withinTime(work: Promise<boolean>): Promise<boolean> {
    const done = new AbortController();
    const signal = AbortSignal.any([done.signal, this.#stop.signal]);
    const isDone = await Promise.race([work, this.#sleep(readMaxMs, signal).then(() => false)]);
    done.abort();
    return isDone;
  }

  #read(): Promise<boolean> {
    this.#reading ??= this.#readFeed().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readFeed(): Promise<boolean> {
    const { directory, clock } = this.#parts;
    const startedAtMs = clock.monotonicMs();
    try {
      for (let page = 0; page < pagesMax; page++) {
        const changes = await directory.changesSince(this.#sequence);
        this.#apply(changes);
        if (changes.length < changesPerReadMax) {
          this.#readAtMs = startedAtMs;
          this.#failures = 0;
          return true;
        }
      }
    } catch {
      // Told by the caller: what is not read in time is the same to it.
    }
    return false;
  }

  #apply(changes: readonly DirectoryChange[]): void {
    for (const change of changes) {
      this.#parts.onChange(change);
      this.#sequence = change.sequence;
    }
  }

  #sleep(durationMs: number, signal: AbortSignal): Promise<void> {
    return (this.#parts.sleep ?? sleepUnlessAborted)(durationMs, signal);
  }
}

async function sleepUnlessAborted(durationMs: number, signal: AbortSignal): Promise<void> {
  // The only rejection is the abort, and the caller looks at the signal. Following is no reason to keep a process alive.
  await wait(durationMs, undefined, { signal, ref: false }).catch(() => {});
}
