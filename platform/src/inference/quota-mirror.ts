/**
 * Our account's limits at a provider, as far as they are configured or its answers tell: buckets that refill evenly over a minute, charged when a call is
 * sent, corrected by what the provider says is left. With them a call waits here in its turn instead of being refused there.
 */
import type { QuotaLevel, QuotaReport } from './provider.ts';

/** What a call is expected to take. */
export interface CallSize {
  readonly inputTokens: number;
  readonly outputTokens: number;
}

const dimensions = ['requests', 'tokens', 'inputTokens', 'outputTokens'] as const;
type Dimension = (typeof dimensions)[number];
const minuteMs = 60_000;
/** A provider's number is believed for so long after its last word. */
const believedMs = 300_000;
/** No provider's number makes us wait longer. */
const waitMsMax = 60_000;
/** Some limits are of a second or a day; a bucket that lacks this much shows by its reset how fast it refills. */
const tellingShare = 0.1;
const refillMsMin = 1_000;
const refillMsMax = 86_400_000;

/** What the operator knows of the account. */
export type ConfiguredRates = { readonly [Name in `${Dimension}PerMinute`]?: number | undefined };

export interface QuotaSnapshot {
  readonly limit: number;
  readonly remaining: number;
}

export class QuotaMirror {
  readonly #buckets = new Map<Dimension, MirroredBucket>();

  constructor(configured: ConfiguredRates) {
    for (const dimension of dimensions) {
      const limit = configured[`${dimension}PerMinute`];
      if (limit !== undefined) this.#buckets.set(dimension, new MirroredBucket(limit, limit));
    }
  }

  /** Milliseconds until a call of this size fits; 0: now. A call larger than the bucket fits when that is full. */
  waitMs(size: CallSize, nowMs: number): number {
    let longestMs = 0;
    for (const [dimension, bucket] of this.#buckets) longestMs = Math.max(longestMs, bucket.waitMs(amountOf(dimension, size), nowMs));
    return Math.min(longestMs, waitMsMax);
  }

  /** The size of the smallest configured bucket that can never hold this call; undefined: all can. */
  limitExceeded(size: CallSize): number | undefined {
    const exceeded = Array.from(this.#buckets).flatMap(([dimension, bucket]) =>
      bucket.configured < amountOf(dimension, size) ? [bucket.configured] : [],
    );
    return exceeded.length === 0 ? undefined : Math.min(...exceeded);
  }

  take(size: CallSize, nowMs: number): void {
    for (const [dimension, bucket] of this.#buckets) bucket.take(amountOf(dimension, size), nowMs);
  }

  /** Of a call that was not sent. */
  giveBack(size: CallSize, nowMs: number): void {
    for (const [dimension, bucket] of this.#buckets) bucket.take(-amountOf(dimension, size), nowMs);
  }

  /** What was expected and not used comes back, what was used beyond it is charged. */
  settle(expected: CallSize, actual: CallSize, nowMs: number): void {
    for (const [dimension, bucket] of this.#buckets) {
      bucket.take(amountOf(dimension, actual) - amountOf(dimension, expected), nowMs);
    }
  }

  /** What an answer says is left. Only ever lowers what is believed to be left: the answer does not know what was sent since. */
  learn(report: QuotaReport, nowMs: number): void {
    for (const dimension of dimensions) {
      const level = report[dimension];
      if (level !== undefined) this.#learn(dimension, level, nowMs);
    }
  }

  snapshot(nowMs: number): Partial<Record<Dimension, QuotaSnapshot>> {
    return Object.fromEntries(Array.from(this.#buckets, ([dimension, bucket]) => [dimension, bucket.snapshot(nowMs)]));
  }

  #learn(dimension: Dimension, level: QuotaLevel, nowMs: number): void {
    const known = this.#buckets.get(dimension);
    const bucket = known ?? (level.limit === undefined ? undefined : new MirroredBucket(level.limit, Number.POSITIVE_INFINITY));
    if (bucket === undefined) return;
    if (known === undefined) this.#buckets.set(dimension, bucket);
    bucket.learn(level, nowMs);
  }
}

/** Refills its limit in a minute, holds at most as much. */
class MirroredBucket {
  /** The operator's word stands above the provider's. */
  readonly configured: number;
  #limit: number;
  #level: number;
  /** A whole refill. */
  #refillMs = minuteMs;
  #atMs = 0;
  #toldAtMs = Number.NEGATIVE_INFINITY;

  constructor(limit: number, configured: number) {
    this.#limit = limit;
    this.#level = limit;
    this.configured = configured;
  }

  waitMs(amount: number, nowMs: number): number {
    if (!this.#isBelieved(nowMs)) return 0;
    this.#refill(nowMs);
    return Math.max(0, Math.ceil(((Math.min(amount, this.#limit) - this.#level) / this.#limit) * this.#refillMs));
  }

  take(amount: number, nowMs: number): void {
    this.#refill(nowMs);
    this.#level = Math.min(this.#limit, this.#level - amount);
  }

  learn({ limit, remaining, resetMs }: QuotaLevel, nowMs: number): void {
    this.#refill(nowMs);
    this.#toldAtMs = nowMs;
    if (limit !== undefined && limit > 0) this.#limit = Math.min(limit, this.configured);
    if (remaining === undefined) return;
    this.#level = Math.min(this.#level, remaining, this.#limit);
    const missingShare = limit === undefined ? 0 : (limit - remaining) / limit;
    // "Reset" is when all is back. Near the full bucket its rounding says more than it does.
    if (resetMs !== undefined && missingShare >= tellingShare)
      this.#refillMs = Math.min(refillMsMax, Math.max(refillMsMin, resetMs / missingShare));
  }

  snapshot(nowMs: number): QuotaSnapshot {
    this.#refill(nowMs);
    return { limit: this.#limit, remaining: Math.max(0, Math.floor(this.#level)) };
  }

  #isBelieved(nowMs: number): boolean {
    return this.configured !== Number.POSITIVE_INFINITY || nowMs - this.#toldAtMs < believedMs;
  }

  #refill(nowMs: number): void {
    this.#level = Math.min(this.#limit, this.#level + (Math.max(0, nowMs - this.#atMs) / this.#refillMs) * this.#limit);
    this.#atMs = nowMs;
  }
}

function amountOf(dimension: Dimension, { inputTokens, outputTokens }: CallSize): number {
  switch (dimension) {
    case 'requests':
      return 1;
    case 'tokens':
      return inputTokens + outputTokens;
    case 'inputTokens':
      return inputTokens;
    case 'outputTokens':
      return outputTokens;
    default:
      return dimension satisfies never;
  }
}
