/**
 * Limits counted in this process. GCRA: one number per rate, the theoretical arrival time (TAT), in microseconds of the monotonic clock;
 * admit when `max(TAT, now) + n * T - now <= burst * T`. A rate of r per minute has T = 60e6 / r µs and a burst of one minute's worth.
 *
 * Everything here is synchronous between two awaits of the caller, which is what makes a reservation all-or-nothing without a lock.
 * TAT is a double: one hour of microseconds (3.6e9) leaves 20 bits for fractions of a token, and a bucket never holds more than its debt.
 */
import type {
  LimitDimension,
  LimitScope,
  LimitState,
  LimitStore,
  ReserveOutcome,
  ReserveRequest,
  SettleOutcome,
} from '../../admission/limit-store.ts';
import type { Clock } from '../../primitives/clock.ts';

const minuteUs = 60_000_000;
/** Settled ids remembered, so that none is admitted again: this many at least, twice as many at most (about 60 bytes each). */
const settledMax = 50_000;
/** How long a reaped reservation may still be corrected. */
const reapedMs = 15 * 60_000;
const reapedMax = 10_000;
const sweepEvery = 4_096;

interface ScopeState {
  requestsTat: number;
  tokensTat: number;
  inFlight: number;
}

interface Lease {
  readonly request: ReserveRequest;
  readonly outcome: ReserveOutcome & { readonly kind: 'reserved' };
  expiresAtMs: number;
  progressTokens: number;
}

interface Reaped {
  readonly tokens: number;
  readonly scopes: readonly LimitScope[];
  readonly atMs: number;
}

export class MemoryLimitStore implements LimitStore {
  readonly #clock: Clock;
  readonly #scopes = new Map<string, ScopeState>();
  readonly #leases = new Map<string, Lease>();
  readonly #reaped = new Map<string, Reaped>();
  /** Two generations: the older is dropped whole, which costs nothing per id. */
  #settled = new Set<string>();
  #settledBefore = new Set<string>();
  #sinceSweep = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async reserve(request: ReserveRequest): Promise<ReserveOutcome> {
    const { reservationId } = request;
    if (this.#isSpent(reservationId)) return { kind: 'spent' };
    const live = this.#leases.get(reservationId);
    if (live !== undefined) return live.outcome;
    const nowUs = this.#nowUs();
    const refusal = this.#refusalOf(request, nowUs);
    if (refusal !== undefined) return refusal;
    for (const scope of request.scopes) this.#take(scope, request, nowUs);
    const outcome = { kind: 'reserved', states: request.scopes.flatMap((scope) => this.#statesOf(scope, nowUs)) } as const;
    this.#leases.set(reservationId, { request, outcome, expiresAtMs: this.#clock.monotonicMs() + request.leaseMs, progressTokens: 0 });
    this.#sweepSometimes(nowUs);
    return outcome;
  }

  async settle(reservationId: string, actual: { readonly tokens: number }): Promise<SettleOutcome> {
    const lease = this.#leases.get(reservationId);
    if (lease !== undefined) {
      this.#end(reservationId, lease, actual.tokens);
      this.#rememberSettled(reservationId);
      return 'settled';
    }
    const reaped = this.#reaped.get(reservationId);
    if (reaped === undefined) return 'unknown';
    for (const scope of reaped.scopes) this.#correctTokens(scope, actual.tokens - reaped.tokens);
    this.#reaped.delete(reservationId);
    this.#rememberSettled(reservationId);
    return 'corrected_after_reap';
  }

  async renew(reservationId: string, leaseMs: number, progress: { readonly tokens: number }): Promise<boolean> {
    const lease = this.#leases.get(reservationId);
    if (lease === undefined) return false;
    lease.expiresAtMs = this.#clock.monotonicMs() + leaseMs;
    lease.progressTokens = Math.max(lease.progressTokens, progress.tokens);
    return true;
  }

  async reap(): Promise<number> {
    const nowMs = this.#clock.monotonicMs();
    let reaped = 0;
    for (const [reservationId, lease] of this.#leases) {
      if (lease.expiresAtMs > nowMs) continue;
      this.#end(reservationId, lease, lease.progressTokens);
      this.#rememberReaped(reservationId, { tokens: lease.progressTokens, scopes: lease.request.scopes, atMs: nowMs });
      reaped++;
    }
    this.#sweep(this.#nowUs());
    return reaped;
  }

  async liveCount(): Promise<number> {
    return this.#leases.size;
  }

  /** Scopes that hold anything; idle ones are forgotten, so this does not grow with the number of tenants. For tests. */
  get scopeCount(): number {
    return this.#scopes.size;
  }

  #nowUs(): number {
    return this.#clock.monotonicMs() * 1_000;
  }

  /** Reads only. The refusal with the longest wait over all scopes, or one that no wait can help. */
  #refusalOf(request: ReserveRequest, nowUs: number): ReserveOutcome | undefined {
    let worst: (ReserveOutcome & { readonly kind: 'denied' }) | undefined;
    for (const scope of request.scopes) {
      for (const dimension of ['requests', 'tokens'] as const) {
        const limit = limitOf(scope, dimension);
        const amount = request.amounts[dimension];
        if (limit === undefined || amount === 0) continue;
        if (amount > limit) return { kind: 'too_large', binding: this.#stateOf(scope, dimension, nowUs), requested: amount };
        const overUs = tatAfter(this.#tatOf(scope, dimension, nowUs), amount, limit) - nowUs - minuteUs;
        if (overUs <= 0.5) continue;
        const retryAfterMs = Math.ceil(overUs / 1_000);
        if (worst === undefined || retryAfterMs > worst.retryAfterMs) worst = this.#denial(scope, dimension, { nowUs, retryAfterMs });
      }
      const slots = scope.limits.concurrency;
      if (slots === undefined || (this.#scopes.get(scope.key)?.inFlight ?? 0) < slots) continue;
      // Nobody knows when a slot returns; a second is short for a person and long for a robot.
      if (worst === undefined) worst = this.#denial(scope, 'concurrency', { nowUs, retryAfterMs: 1_000 });
    }
    return worst;
  }

  #denial(scope: LimitScope, dimension: LimitDimension, when: { readonly nowUs: number; readonly retryAfterMs: number }) {
    const binding = this.#stateOf(scope, dimension, when.nowUs);
    return { kind: 'denied', binding, used: binding.limit - binding.remaining, retryAfterMs: when.retryAfterMs } as const;
  }

  #take(scope: LimitScope, request: ReserveRequest, nowUs: number): void {
    const state = this.#stateFor(scope);
    const { requestsPerMinute, tokensPerMinute } = scope.limits;
    if (requestsPerMinute !== undefined)
      state.requestsTat = tatAfter(Math.max(state.requestsTat, nowUs), request.amounts.requests, requestsPerMinute);
    if (tokensPerMinute !== undefined)
      state.tokensTat = tatAfter(Math.max(state.tokensTat, nowUs), request.amounts.tokens, tokensPerMinute);
    state.inFlight++;
  }

  #end(reservationId: string, lease: Lease, tokens: number): void {
    this.#leases.delete(reservationId);
    for (const scope of lease.request.scopes) {
      const state = this.#stateFor(scope);
      state.inFlight = Math.max(0, state.inFlight - 1);
      this.#correctTokens(scope, tokens - lease.request.amounts.tokens);
    }
  }

  /** Over-use becomes debt from now on; a refund may leave the TAT in the past, and the next read clamps it, so never above the burst. */
  #correctTokens(scope: LimitScope, difference: number): void {
    const rate = scope.limits.tokensPerMinute;
    if (rate === undefined || difference === 0) return;
    const state = this.#stateFor(scope);
    const from = difference > 0 ? Math.max(state.tokensTat, this.#nowUs()) : state.tokensTat;
    state.tokensTat = tatAfter(from, difference, rate);
  }

  #statesOf(scope: LimitScope, nowUs: number): LimitState[] {
    const dimensions: readonly LimitDimension[] = ['requests', 'tokens', 'concurrency'];
    return dimensions
      .filter((dimension) => limitOf(scope, dimension) !== undefined)
      .map((dimension) => this.#stateOf(scope, dimension, nowUs));
  }

  #stateOf(scope: LimitScope, dimension: LimitDimension, nowUs: number): LimitState {
    const limit = limitOf(scope, dimension) ?? 0;
    if (dimension === 'concurrency') {
      const inFlight = this.#scopes.get(scope.key)?.inFlight ?? 0;
      return { scope: scope.name, dimension, limit, remaining: Math.max(0, limit - inFlight), resetMs: 0 };
    }
    const fullInUs = this.#tatOf(scope, dimension, nowUs) - nowUs;
    const remaining = Math.floor(((minuteUs - fullInUs) / minuteUs) * limit + 1e-6);
    return { scope: scope.name, dimension, limit, remaining: Math.max(0, remaining), resetMs: Math.ceil(fullInUs / 1_000) };
  }

  #tatOf(scope: LimitScope, dimension: 'requests' | 'tokens', nowUs: number): number {
    const state = this.#scopes.get(scope.key);
    if (state === undefined) return nowUs;
    return Math.max(dimension === 'requests' ? state.requestsTat : state.tokensTat, nowUs);
  }

  #stateFor(scope: LimitScope): ScopeState {
    const known = this.#scopes.get(scope.key);
    if (known !== undefined) return known;
    const state: ScopeState = { requestsTat: 0, tokensTat: 0, inFlight: 0 };
    this.#scopes.set(scope.key, state);
    return state;
  }

  #isSpent(reservationId: string): boolean {
    return this.#settled.has(reservationId) || this.#settledBefore.has(reservationId) || this.#reaped.has(reservationId);
  }

  #rememberSettled(reservationId: string): void {
    this.#settled.add(reservationId);
    if (this.#settled.size < settledMax) return;
    this.#settledBefore = this.#settled;
    this.#settled = new Set();
  }

  #rememberReaped(reservationId: string, reaped: Reaped): void {
    const oldest = this.#reaped.size >= reapedMax ? this.#reaped.keys().next().value : undefined;
    if (oldest !== undefined) this.#reaped.delete(oldest);
    this.#reaped.set(reservationId, reaped);
  }

  #sweepSometimes(nowUs: number): void {
    this.#sinceSweep++;
    if (this.#sinceSweep >= sweepEvery) this.#sweep(nowUs);
  }

  /** Forgets scopes that are full and idle, which is how a new one starts, and what was reaped long ago (the map is in that order). */
  #sweep(nowUs: number): void {
    this.#sinceSweep = 0;
    for (const [key, state] of this.#scopes) {
      if (state.inFlight === 0 && state.requestsTat <= nowUs && state.tokensTat <= nowUs) this.#scopes.delete(key);
    }
    for (const [reservationId, reaped] of this.#reaped) {
      if (nowUs / 1_000 - reaped.atMs < reapedMs) break;
      this.#reaped.delete(reservationId);
    }
  }
}

function limitOf(scope: LimitScope, dimension: LimitDimension): number | undefined {
  if (dimension === 'requests') return scope.limits.requestsPerMinute;
  return dimension === 'tokens' ? scope.limits.tokensPerMinute : scope.limits.concurrency;
}

function tatAfter(tatUs: number, amount: number, perMinute: number): number {
  return tatUs + (amount * minuteUs) / perMinute;
}
