import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { UpstreamRefusal } from '../../inference/provider.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';

export interface QuotaLimits {
  readonly concurrency: number;
  readonly requestsPerMinute?: number | undefined;
  readonly tokensPerMinute?: number | undefined;
}

const minuteMs = 60_000;
/** A full house says to come back no sooner, whatever it expects. */
const busyRetryMsMin = 50;

/**
 * The limits of the simulated provider's account, as OpenAI keeps them: buckets of a minute that refill evenly, charged at the start by
 * the most the request may use, not refunded. A refusal takes nothing and says when a lone retry will pass.
 */
export class Quota {
  readonly #clock: Clock;
  readonly #concurrency: number;
  readonly #requests: Bucket | undefined;
  readonly #tokens: Bucket | undefined;
  /** When each call in flight should end. */
  readonly #endings = new Map<symbol, number>();

  constructor(limits: QuotaLimits, clock: Clock) {
    this.#clock = clock;
    this.#concurrency = limits.concurrency;
    this.#requests = limits.requestsPerMinute === undefined ? undefined : new Bucket(limits.requestsPerMinute, clock);
    this.#tokens = limits.tokensPerMinute === undefined ? undefined : new Bucket(limits.tokensPerMinute, clock);
  }

  get inFlight(): number {
    return this.#endings.size;
  }

  /** Charges one request and returns what gives its slot back. Throws `upstream_rate_limited`, or `upstream_rejected` when no wait can help. */
  admit(call: { readonly tokens: number; readonly expectedMs: number }): () => void {
    if (this.#tokens !== undefined && call.tokens > this.#tokens.size) {
      throw new BulkheadError(
        'upstream_rejected',
        `The request asks for ${call.tokens} tokens; the limit is ${this.#tokens.size} a minute.`,
      );
    }
    const rateMs = Math.max(this.#requests?.waitMs(1) ?? 0, this.#tokens?.waitMs(call.tokens) ?? 0);
    const waitMs = Math.max(rateMs, this.#busyMs());
    if (waitMs > 0) {
      throw new UpstreamRefusal(rateMs > 0 ? 'rate' : 'concurrency', {
        code: 'upstream_rate_limited',
        message: 'The simulated provider is at its limit.',
        options: { retryAfterMs: Math.ceil(waitMs) },
      });
    }
    this.#requests?.take(1);
    this.#tokens?.take(call.tokens);
    const key = Symbol('call');
    this.#endings.set(key, this.#clock.monotonicMs() + call.expectedMs);
    return () => {
      this.#endings.delete(key);
    };
  }

  #busyMs(): number {
    if (this.#endings.size < this.#concurrency) return 0;
    let first = Number.POSITIVE_INFINITY;
    for (const endingMs of this.#endings.values()) first = Math.min(first, endingMs);
    return Math.max(busyRetryMsMin, first - this.#clock.monotonicMs());
  }
}

/** Refills `perMinute` a minute, holds at most as much. */
class Bucket {
  readonly size: number;
  readonly #clock: Clock;
  #level: number;
  #atMs: number;

  constructor(perMinute: number, clock: Clock) {
    assert(perMinute >= 1, 'a limit is at least 1 a minute');
    this.size = perMinute;
    this.#clock = clock;
    this.#level = perMinute;
    this.#atMs = clock.monotonicMs();
  }

  /** Until `amount` is there. */
  waitMs(amount: number): number {
    this.#refill();
    return Math.max(0, ((amount - this.#level) / this.size) * minuteMs);
  }

  take(amount: number): void {
    this.#refill();
    this.#level -= amount;
  }

  #refill(): void {
    const nowMs = this.#clock.monotonicMs();
    this.#level = Math.min(this.size, this.#level + ((nowMs - this.#atMs) / minuteMs) * this.size);
    this.#atMs = nowMs;
  }
}
