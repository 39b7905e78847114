import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assert } from '../primitives/assert.ts';
import { ManualClock } from '../primitives/clock.ts';
import { parseTenantId } from '../primitives/ids.ts';
import { silentLogger } from '../telemetry/logger.ts';
import type { DirectoryChange, TenantDirectory } from '../tenancy/tenant-directory.ts';
import { type DirectoryFollower, followDirectory } from './directory-follower.ts';

/** Sleeps on a clock that only the test moves, waking everybody in the order in which they are due. */
class ManualTime {
  readonly clock = new ManualClock();
  #sleepers: { readonly dueMs: number; readonly wake: () => void }[] = [];

  readonly sleep = (durationMs: number, signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const sleeper = { dueMs: this.clock.monotonicMs() + durationMs, wake: resolve };
      this.#sleepers.push(sleeper);
      signal.addEventListener('abort', () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        resolve();
      });
    });

  async advance(durationMs: number): Promise<void> {
    const untilMs = this.clock.monotonicMs() + durationMs;
    await settle();
    for (let next = this.#next(untilMs); next !== undefined; next = this.#next(untilMs)) {
      this.clock.advance(next.dueMs - this.clock.monotonicMs());
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper !== next);
      next.wake();
      await settle();
    }
    this.clock.advance(untilMs - this.clock.monotonicMs());
  }

  get sleeping(): number {
    return this.#sleepers.length;
  }

  #next(untilMs: number) {
    const due = this.#sleepers.filter(({ dueMs }) => dueMs <= untilMs);
    return due.sort((left, right) => left.dueMs - right.dueMs)[0];
  }
}

/** Lets everything that is ready to run, run. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

const tenantId = (() => {
  const id = parseTenantId('acme');
  assert(id !== undefined, 'acme is a tenant id');
  return id;
})();

interface Read {
  readonly delayMs: number;
  readonly fails: boolean;
}

/** A feed whose reads take as long as the script says, and see what was there when they began. */
class ScriptedFeed {
  readonly changes: DirectoryChange[] = [];
  readonly time: ManualTime;
  script: Read[] = [];
  reads = 0;
  readsNow = 0;
  readsNowMost = 0;

  constructor(time: ManualTime) {
    this.time = time;
  }

  change(): void {
    this.changes.push({ sequence: this.changes.length + 1, kind: 'tenant', tenantId });
  }

  readonly directory: TenantDirectory = {
    find: async () => undefined,
    findApiKey: async () => undefined,
    subjectNotBeforeMs: async () => undefined,
    latestSequence: async () => this.changes.length,
    changesSince: async (sequence) => {
      this.reads++;
      this.readsNowMost = Math.max(this.readsNowMost, ++this.readsNow);
      const seen = this.changes.slice(sequence, sequence + 1_000);
      const { delayMs, fails } = this.script.shift() ?? { delayMs: 0, fails: false };
      if (delayMs > 0) await this.time.sleep(delayMs, new AbortController().signal);
      this.readsNow--;
      if (fails) throw new Error('the database is away');
      return seen;
    },
  };
}

interface Followed {
  readonly time: ManualTime;
  readonly feed: ScriptedFeed;
  readonly follower: DirectoryFollower;
  /** When changes arrived and trust was lost, in milliseconds from the start. */
  readonly appliedAtMs: number[];
  readonly lostAtMs: number[];
}

async function follow(): Promise<Followed> {
  const time = new ManualTime();
  const feed = new ScriptedFeed(time);
  feed.change();
  const appliedAtMs: number[] = [];
  const lostAtMs: number[] = [];
  const follower = await followDirectory({
    directory: feed.directory,
    onChange: () => appliedAtMs.push(time.clock.monotonicMs()),
    onLost: () => lostAtMs.push(time.clock.monotonicMs()),
    clock: time.clock,
    logger: silentLogger,
    sleep: time.sleep,
  });
  return { time, feed, follower, appliedAtMs, lostAtMs };
}

const hang: Read = { delayMs: 60_000, fails: false };
const failure: Read = { delayMs: 0, fails: true };
const slow = (delayMs: number): Read => ({ delayMs, fails: false });

describe('the directory follower', () => {
  it('starts after what is there, and applies each change once within two seconds', async () => {
    const { time, feed, appliedAtMs, lostAtMs } = await follow();
    await time.advance(3_000);
    expect(appliedAtMs).toEqual([]);
    feed.change();
    await time.advance(20_000);
    expect(appliedAtMs).toEqual([4_000]);
    expect(lostAtMs).toEqual([]);
  });

  it('polls every two seconds, however long a read takes', async () => {
    const { time, feed } = await follow();
    feed.script = Array.from({ length: 10 }, () => slow(1_400));
    await time.advance(21_000);
    expect(feed.reads).toBe(10);
  });

  it('reads a long feed to its end in one go', async () => {
    const { time, feed, appliedAtMs } = await follow();
    for (let count = 0; count < 2_500; count++) feed.change();
    await time.advance(2_000);
    expect(appliedAtMs).toEqual(Array.from({ length: 2_500 }, () => 2_000));
  });

  it('survives failures, and trusts nothing while the feed is away', async () => {
    const { time, feed, appliedAtMs, lostAtMs } = await follow();
    feed.script = Array.from({ length: 6 }, () => failure);
    await time.advance(4_700);
    // Read well at 0; failed at 2.0 and 2.5 is not yet lost, from 3.0 on it is.
    expect(lostAtMs).toEqual([3_000, 3_500, 4_000, 4_500]);
    feed.change();
    await time.advance(10_000);
    expect(appliedAtMs).toEqual([5_000]);
    expect(lostAtMs).toHaveLength(4);
  });

  it('gives up on a read that hangs, starts no second one beside it, and goes on when it ends', async () => {
    const { time, feed, appliedAtMs, lostAtMs } = await follow();
    feed.script = [hang];
    await time.advance(3_600);
    expect(lostAtMs).toEqual([3_500]);
    await time.advance(20_000);
    expect(feed.reads).toBe(1);
    expect(lostAtMs.length).toBeGreaterThan(8);
    feed.change();
    await time.advance(60_000);
    expect(appliedAtMs).toHaveLength(1);
    expect(feed.readsNowMost).toBe(1);
  });

  it('catching up sees a change that was made before the call, also when an older read is under way', async () => {
    const { time, feed, follower, appliedAtMs, lostAtMs } = await follow();
    feed.script = [slow(1_000)];
    await time.advance(2_100);
    feed.change();
    const caughtUp = follower.catchUp();
    await time.advance(900);
    await caughtUp;
    expect(appliedAtMs).toEqual([3_000]);
    expect(lostAtMs).toEqual([]);
  });

  it('catching up that fails or takes too long loses trust at once', async () => {
    const { time, feed, follower, lostAtMs } = await follow();
    feed.script = [failure];
    await follower.catchUp();
    expect(lostAtMs).toEqual([0]);
    feed.script = [hang];
    const caughtUp = follower.catchUp();
    await time.advance(1_500);
    await caughtUp;
    expect(lostAtMs).toEqual([0, 1_500]);
  });

  it('closes while a read hangs, and polls no more', async () => {
    const { time, feed, follower } = await follow();
    feed.script = [hang];
    await time.advance(2_000);
    await follower.close();
    await time.advance(120_000);
    expect(feed.reads).toBe(1);
    expect(time.sleeping).toBe(0);
  });

  // Planted: lostAfterMs of 5 s; a pause of everyMs after each read; no retryMs; the age of a read counted from its end.
  it('ends the trust in what was cached within 5 s of any change, whatever the feed does', async () => {
    const read = fc.record({
      delayMs: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 3_000 }), fc.integer({ min: 3_000, max: 40_000 })),
      fails: fc.boolean(),
    });
    const property = fc.asyncProperty(
      fc.array(read, { maxLength: 30 }),
      fc.integer({ min: 0, max: 30_000 }),
      async (script, changeAtMs) => {
        const { time, feed, follower, appliedAtMs, lostAtMs } = await follow();
        feed.script = script;
        await time.advance(changeAtMs);
        feed.change();
        const lostBefore = lostAtMs.length;
        await time.advance(5_000);
        expect(appliedAtMs.length + lostAtMs.length - lostBefore).toBeGreaterThan(0);
        await follower.close();
      },
    );
    // A slow read shows what was there when it began, not when it ended.
    const slowThenAway: [Read[], number] = [[slow(1_400), failure, failure, failure, failure, hang], 2_001];
    await fc.assert(property, { numRuns: 300, verbose: 1, examples: [slowThenAway] });
  });
});
