/**
 * One pool's permits on one of the replicas that share it. It is `shared` while the store answers; after a call that fails it is `doubtful` and goes on with the permits it
 * has, and when none was answered for a second it is `alone`, with its part of the pool.
 */
import type { Clock } from '../primitives/clock.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import { headsMax, type PermitExchange, type PoolAnswer, type PoolGrant, type PoolStatement, permitTimes } from './permit-exchange.ts';
import { PoolCharges } from './pool-charges.ts';
import type { Elsewhere, FlowCharge, PoolShare, SharedFairPool, SharedLevel } from './pool-share.ts';

/** Which of how many replicas this is. */
export interface Place {
  readonly rank: number;
  readonly count: number;
}

export interface SharedPoolParts {
  readonly poolId: string;
  readonly pool: SharedFairPool;
  readonly exchange: PermitExchange;
  readonly clock: Clock;
  readonly place: () => Place;
  /** Of a pool with so many permits, for batch work. */
  readonly batchMaxOf: (capacity: number) => number;
  /** Told when this replica has no more answer, and when it has one again. */
  readonly onAlone: (isAlone: boolean, error?: unknown) => void;
}

const everyMs = 100;
/** With permits and no requests. */
const restingEveryMs = 250;
/** A pool nobody used for so long gives its permits back. */
const restsAfterMs = 10_000;
/** One late answer is no outage: parts that are taken for nothing would be used beside what the others hold. */
const doubtfulMs = 1_000;
const doubtfulRetryMs = 100;
const retryMs = 500;

export class SharedPool implements PoolShare {
  readonly #parts: SharedPoolParts;
  readonly #charges = new PoolCharges();
  #mode: 'shared' | 'doubtful' | 'alone' = 'shared';
  #capacity = 0;
  #isCapacityNew = false;
  /** Permits that are this replica's: in use, or kept for its next requests. */
  #held = 0;
  /** What the store takes it to hold. */
  #told = 0;
  /** The latest grant that was counted. */
  #granted = 0;
  /** Waiting requests of the latest statement that were not granted yet, and whose they were. */
  #toldWaiting = 0;
  #toldTenants: ReadonlySet<string> = new Set();
  #era: string | undefined;
  #isWanted = false;
  #free = 0;
  #spare = 0;
  #elsewhere: Elsewhere = { replicas: 0, running: 0, runningBatch: 0, waiting: 0 };
  /** As it was while the store knew everybody. */
  #place: Place;
  #hasShared = false;
  #isAsking = false;
  #isDue = false;
  #isClosed = false;
  #sentAtMs = Number.NEGATIVE_INFINITY;
  #answeredAtMs = Number.NEGATIVE_INFINITY;
  #usedAtMs = Number.NEGATIVE_INFINITY;
  #failedAtMs = 0;
  #nextTryAtMs = 0;

  constructor(parts: SharedPoolParts) {
    this.#parts = parts;
    this.#place = parts.place();
  }

  get elsewhere(): Elsewhere | undefined {
    return this.#mode === 'shared' && this.#era !== undefined ? this.#elsewhere : undefined;
  }

  capacitySet(permits: number): void {
    this.#capacity = permits;
    this.#isCapacityNew = true;
    this.#usedAtMs = this.#parts.clock.monotonicMs();
    if (this.#mode === 'shared') this.#askSoon();
    else this.#holdLocally();
  }

  changed(): void {
    const { running, queued } = this.#parts.pool.load;
    if (running + queued > 0) this.#usedAtMs = this.#parts.clock.monotonicMs();
    if (this.#mode !== 'shared') return;
    const isShort = this.#held - running <= 0 && this.#free > 0 && this.#spare > 0;
    if (isShort || this.#hasNews()) this.#askSoon();
  }

  returned(): void {
    if (this.#mode !== 'shared' || !this.#isWanted || this.#held === 0) return;
    this.#hold(this.#held - 1);
  }

  charged(charge: FlowCharge): void {
    this.#charges.charge(charge);
  }

  began(level: SharedLevel, key: string): void {
    this.#charges.began(level, key);
  }

  granted({ granted, number, times }: PoolGrant): void {
    const isFresh = this.#parts.clock.monotonicMs() - this.#answeredAtMs < permitTimes.placeholderMs / 2;
    if (this.#mode !== 'shared') return;
    // So late, the store may have given it to somebody else meanwhile: its answer tells.
    if (!isFresh) {
      this.#askSoon();
      return;
    }
    const gained = granted - this.#granted;
    if (gained <= 0) return;
    this.#granted = granted;
    // Who of those that wait here was meant is seen by these times.
    for (const { level, key, time } of times) {
      const since = this.#charges.since(level, key, number);
      if (!since.hasBegun) this.#parts.pool.adopt(level, key, time + since.units);
    }
    this.#gain(gained);
    // Whoever it was for has left: somebody else may wait.
    if (this.#held > this.#parts.pool.load.running) this.#askSoon();
    else this.changed();
  }

  wanted(): void {
    if (this.#mode !== 'shared') return;
    this.#isWanted = true;
    this.changed();
  }

  /** To be called ten times a second. */
  tick(): void {
    const nowMs = this.#parts.clock.monotonicMs();
    if (this.#mode !== 'shared') {
      if (nowMs >= this.#nextTryAtMs) void this.ask();
      return;
    }
    const { running, queued } = this.#parts.pool.load;
    // Whoever left without a permit has to be unsaid too, or the next one is kept for nobody.
    const isBusy = running + queued > 0 || this.#toldWaiting > 0 || !this.#charges.isEmpty || this.#isCapacityNew;
    if (nowMs - this.#sentAtMs < (isBusy ? everyMs * 0.95 : restingEveryMs)) return;
    if (isBusy || this.#held > 0) void this.ask();
  }

  close(): void {
    this.#isClosed = true;
  }

  /** One call at a time; what happens meanwhile is in the next. Never rejects. */
  async ask(): Promise<void> {
    if (this.#isAsking || this.#isClosed) return;
    this.#isAsking = true;
    const sentAtMs = this.#parts.clock.monotonicMs();
    this.#sentAtMs = sentAtMs;
    const statement = this.#state(sentAtMs);
    try {
      const answer = await this.#parts.exchange.exchange(statement);
      this.#isAsking = false;
      this.#answeredAtMs = sentAtMs;
      this.#accept(statement, answer);
    } catch (error) {
      this.#isAsking = false;
      this.#fail(error);
    }
  }

  /** Several events of one turn are one call. */
  #askSoon(): void {
    if (this.#isDue || this.#isAsking) return;
    this.#isDue = true;
    queueMicrotask(() => {
      this.#isDue = false;
      void this.ask();
    });
  }

  /** Something has happened that the others should hear of before the next tenth of a second. */
  #hasNews(): boolean {
    const { pool } = this.#parts;
    const { running, queued } = pool.load;
    if (this.#isCapacityNew) return true;
    // Given back after it was wanted, and the store keeps it for us still.
    if (this.#held < this.#told) return true;
    if (this.#isWanted && this.#held > running) return true;
    if (queued === 0) return false;
    return this.#toldWaiting <= 0 || pool.heads(1).some((head) => !this.#toldTenants.has(nameOf(head)));
  }

  #state(nowMs: number): PoolStatement {
    const { poolId, pool, batchMaxOf } = this.#parts;
    const { running, runningBatch } = pool.load;
    this.#hold(this.#toKeep(nowMs));
    const heads = pool.heads(headsMax);
    this.#toldTenants = new Set(heads.map(nameOf));
    return {
      poolId,
      capacity: this.#capacity,
      isCapacityNew: this.#isCapacityNew,
      batchMax: batchMaxOf(this.#capacity),
      part: this.#part(),
      held: this.#held,
      running,
      runningBatch,
      granted: this.#granted,
      heads,
      ...this.#charges.send(),
    };
  }

  /** The rest of what is held and not in use goes back. */
  #toKeep(nowMs: number): number {
    const { running } = this.#parts.pool.load;
    const isResting = nowMs - this.#usedAtMs >= restsAfterMs;
    // Without an answer its part is its own, and the store is told so.
    if (this.#mode === 'alone') return Math.max(running, this.#part());
    const isInDoubt = nowMs - this.#answeredAtMs > permitTimes.leaseMs / 2;
    if (isInDoubt || isResting || this.#isWanted) return running;
    return Math.max(running, Math.min(this.#held, running + this.#spare));
  }

  #accept(statement: PoolStatement, answer: PoolAnswer): void {
    const { pool, onAlone, place } = this.#parts;
    if (this.#mode === 'alone') onAlone(false);
    this.#mode = 'shared';
    this.#charges.confirm();
    if (statement.isCapacityNew || !this.#isCapacityNew) this.#takeCapacity(statement, answer);
    // A store that has lost everything has lost who is there as well.
    if (!answer.isLearning) this.#hasShared = true;
    if (!(answer.isLearning && this.#hasShared)) this.#place = place();
    this.#isWanted = answer.isWanted;
    this.#free = answer.free;
    this.#spare = answer.spare;
    this.#elsewhere = answer.elsewhere;
    this.#adopt(statement, answer);
    this.#toldWaiting = statement.heads.reduce((sum, { queued }) => sum + queued, 0);
    // Messages may have been quicker than this answer.
    const heard = Math.max(0, this.#granted - statement.granted);
    this.#toldWaiting -= heard;
    this.#told = statement.held + heard;
    const gained = Math.max(0, answer.granted - this.#granted) - answer.lost;
    this.#granted = Math.max(this.#granted, answer.granted);
    this.#held = Math.max(this.#held, pool.load.running);
    this.#gain(gained);
    if (this.#hasNews()) this.#askSoon();
  }

  /** Unless it was set again since. */
  #takeCapacity(statement: PoolStatement, { capacity }: PoolAnswer): void {
    if (this.#capacity !== statement.capacity) return;
    this.#isCapacityNew = false;
    this.#capacity = capacity;
  }

  #adopt({ charges, heads }: PoolStatement, answer: PoolAnswer): void {
    const { pool } = this.#parts;
    const { times, classTimes, chargeTimes, headTimes } = answer;
    const isNewEra = this.#era !== undefined && this.#era !== answer.era;
    this.#era = answer.era;
    if (isNewEra) pool.startEqual(times);
    for (const level of ['classes', 'interactive', 'batch'] as const) pool.adoptTime(level, times[level]);
    const adopt = (level: SharedLevel, key: string, time: number) => {
      const since = this.#charges.since(level, key);
      pool.adopt(level, key, (since.hasBegun ? Math.max(time, times[level]) : time) + since.units);
    };
    for (const workClass of ['interactive', 'batch'] as const) adopt('classes', workClass, classTimes[workClass]);
    for (const [index, { level, key }] of charges.entries()) adopt(level, key, chargeTimes[index] as number);
    for (const [index, { workClass, tenantId }] of heads.entries()) adopt(workClass, tenantId, headTimes[index] as number);
  }

  #fail(error: unknown): void {
    const nowMs = this.#parts.clock.monotonicMs();
    if (this.#mode === 'shared') {
      this.#mode = 'doubtful';
      this.#failedAtMs = nowMs;
    } else if (this.#mode === 'doubtful' && nowMs - this.#failedAtMs >= doubtfulMs) {
      this.#mode = 'alone';
      this.#parts.onAlone(true, error);
    }
    this.#nextTryAtMs = nowMs + (this.#mode === 'doubtful' ? doubtfulRetryMs : retryMs);
    this.#holdLocally();
  }

  /** While it is not known whether the others hear the store: what it has, and one where some were free, so that a request does not wait for nothing. */
  #holdLocally(): void {
    const part = this.#part();
    const least = this.#era === undefined || this.#spare > 0 ? Math.min(1, part) : 0;
    this.#hold(this.#mode === 'alone' ? part : Math.max(this.#held, least));
  }

  #part(): number {
    const { rank, count } = this.#place;
    return count === 0 ? this.#capacity : Math.floor(this.#capacity / count) + (rank < this.#capacity % count ? 1 : 0);
  }

  #gain(permits: number): void {
    this.#toldWaiting -= permits;
    this.#told += permits;
    this.#hold(Math.max(0, this.#held + permits));
  }

  #hold(permits: number): void {
    this.#held = permits;
    this.#parts.pool.setPermits(permits, this.#mode === 'shared' ? this.#elsewhere.runningBatch : 0);
  }
}

function nameOf({ workClass, tenantId }: { readonly workClass: WorkClass; readonly tenantId: string }): string {
  return `${workClass}:${tenantId}`;
}
