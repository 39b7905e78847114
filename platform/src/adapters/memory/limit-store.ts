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
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import { Slots } from '../../primitives/slots.ts';

const rates = ['requests', 'tokens'] as const;
const dimensions = ['requests', 'tokens', 'concurrency'] as const;
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

/** A scope with what is known of it: looked up once for a reservation. A state that is in use is never swept, so a lease may keep it. */
interface Found {
  readonly scope: LimitScope;
  readonly state: ScopeState;
}

interface Lease {
  readonly reservationId: string;
  readonly held: readonly Found[];
  readonly reservedTokens: number;
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
  readonly #leases = new Slots<Lease>();
  /** Reservation id -> slot of its lease. */
  readonly #slotOf = new Map<string, number>();
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
    assertTokens(request.amounts.tokens);
    if (this.#isSpent(reservationId)) return { kind: 'spent' };
    const live = this.#leaseOf(reservationId);
    if (live !== undefined) return live.outcome;
    const nowUs = this.#nowUs();
    const found = request.scopes.map((scope): Found => ({ scope, state: this.#scopes.get(scope.key) ?? newState() }));
    const refusal = refusalOf(request, found, nowUs);
    if (refusal !== undefined) return refusal;
    const states: LimitState[] = [];
    for (const each of found) {
      take(each, request, nowUs);
      this.#scopes.set(each.scope.key, each.state);
      appendStates(states, each, nowUs);
    }
    const outcome = { kind: 'reserved', states } as const;
    const reservedTokens = request.amounts.tokens;
    const lease: Lease = {
      reservationId,
      held: found,
      reservedTokens,
      outcome,
      expiresAtMs: nowUs / 1_000 + request.leaseMs,
      progressTokens: 0,
    };
    this.#slotOf.set(reservationId, this.#leases.put(lease));
    this.#sweepSometimes(nowUs);
    return outcome;
  }

  async settle(reservationId: string, actual: { readonly tokens: number }): Promise<SettleOutcome> {
    assertTokens(actual.tokens);
    const lease = this.#leaseOf(reservationId);
    if (lease !== undefined) {
      this.#end(lease, actual.tokens);
      this.#rememberSettled(reservationId);
      return 'settled';
    }
    const reaped = this.#reaped.get(reservationId);
    if (reaped === undefined) return 'unknown';
    const nowUs = this.#nowUs();
    for (const scope of reaped.scopes) correctTokens({ scope, state: this.#stateFor(scope) }, actual.tokens - reaped.tokens, nowUs);
    this.#reaped.delete(reservationId);
    this.#rememberSettled(reservationId);
    return 'corrected_after_reap';
  }

  async renew(reservationId: string, leaseMs: number, progress: { readonly tokens: number }): Promise<boolean> {
    const lease = this.#leaseOf(reservationId);
    if (lease === undefined) return false;
    lease.expiresAtMs = this.#clock.monotonicMs() + leaseMs;
    lease.progressTokens = Math.max(lease.progressTokens, progress.tokens);
    return true;
  }

  async reap(): Promise<number> {
    const nowMs = this.#clock.monotonicMs();
    let reaped = 0;
    for (const lease of this.#leases) {
      if (lease.expiresAtMs > nowMs) continue;
      const { reservationId } = lease;
      this.#end(lease, lease.progressTokens);
      const scopes = lease.held.map(({ scope }) => scope);
      this.#rememberReaped(reservationId, { tokens: lease.progressTokens, scopes, atMs: nowMs });
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

  #leaseOf(reservationId: string): Lease | undefined {
    const slot = this.#slotOf.get(reservationId);
    return slot === undefined ? undefined : this.#leases.at(slot);
  }

  #end(lease: Lease, tokens: number): void {
    const slot = this.#slotOf.get(lease.reservationId);
    assert(slot !== undefined, 'a lease ends once');
    this.#slotOf.delete(lease.reservationId);
    this.#leases.take(slot);
    const nowUs = this.#nowUs();
    for (const each of lease.held) {
      each.state.inFlight--;
      correctTokens(each, tokens - lease.reservedTokens, nowUs);
    }
  }

  #stateFor(scope: LimitScope): ScopeState {
    const known = this.#scopes.get(scope.key);
    if (known !== undefined) return known;
    const state = newState();
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

/** One count that is not a number would stop a bucket for ever. */
function assertTokens(tokens: number): void {
  assert(Number.isSafeInteger(tokens) && tokens >= 0, 'tokens are a whole number');
}

function newState(): ScopeState {
  return { requestsTat: 0, tokensTat: 0, inFlight: 0 };
}

/** Reads only. The refusal with the longest wait over all scopes, or one that no wait can help. */
function refusalOf(request: ReserveRequest, found: readonly Found[], nowUs: number): ReserveOutcome | undefined {
  const { share = 1 } = request;
  let worst: (ReserveOutcome & { readonly kind: 'denied' }) | undefined;
  for (const each of found) {
    for (const dimension of rates) {
      const limit = limitOf(each.scope, dimension);
      const amount = request.amounts[dimension];
      if (limit === undefined || amount === 0) continue;
      const part = limit * share < 1 ? 1 : share;
      if (amount > limit * part) return { kind: 'too_large', binding: stateOf(each, dimension, nowUs), requested: amount };
      const overUs = tatAfter(tatOf(each.state, dimension, nowUs), amount, limit) - nowUs - minuteUs * part;
      if (overUs <= 0.5) continue;
      const retryAfterMs = Math.ceil(overUs / 1_000);
      if (worst === undefined || retryAfterMs > worst.retryAfterMs) worst = denial(stateOf(each, dimension, nowUs), retryAfterMs);
    }
    const slots = each.scope.limits.concurrency;
    if (slots === undefined || each.state.inFlight < Math.max(1, Math.floor(slots * share))) continue;
    // Nobody knows when a slot returns; a second is short for a person and long for a robot.
    if (worst === undefined) worst = denial(stateOf(each, 'concurrency', nowUs), 1_000);
  }
  return worst;
}

function denial(binding: LimitState, retryAfterMs: number) {
  return { kind: 'denied', binding, used: binding.limit - binding.remaining, retryAfterMs } as const;
}

function take({ scope, state }: Found, { amounts }: ReserveRequest, nowUs: number): void {
  const { requestsPerMinute, tokensPerMinute } = scope.limits;
  if (requestsPerMinute !== undefined)
    state.requestsTat = tatAfter(Math.max(state.requestsTat, nowUs), amounts.requests, requestsPerMinute);
  if (tokensPerMinute !== undefined) state.tokensTat = tatAfter(Math.max(state.tokensTat, nowUs), amounts.tokens, tokensPerMinute);
  state.inFlight++;
}

/** Over-use becomes debt from now on; a refund may leave the TAT in the past, and the next read clamps it, so never above the burst. */
function correctTokens({ scope, state }: Found, difference: number, nowUs: number): void {
  const rate = scope.limits.tokensPerMinute;
  if (rate === undefined || difference === 0) return;
  const from = difference > 0 ? Math.max(state.tokensTat, nowUs) : state.tokensTat;
  state.tokensTat = tatAfter(from, difference, rate);
}

function appendStates(states: LimitState[], found: Found, nowUs: number): void {
  for (const dimension of dimensions) {
    if (limitOf(found.scope, dimension) !== undefined) states.push(stateOf(found, dimension, nowUs));
  }
}

function stateOf({ scope, state }: Found, dimension: LimitDimension, nowUs: number): LimitState {
  const limit = limitOf(scope, dimension) ?? 0;
  if (dimension === 'concurrency') {
    return { scope: scope.name, dimension, limit, remaining: Math.max(0, limit - state.inFlight), resetMs: 0 };
  }
  const fullInUs = tatOf(state, dimension, nowUs) - nowUs;
  const remaining = Math.floor(((minuteUs - fullInUs) / minuteUs) * limit + 1e-6);
  return { scope: scope.name, dimension, limit, remaining: Math.max(0, remaining), resetMs: Math.ceil(fullInUs / 1_000) };
}

function tatOf(state: ScopeState, dimension: 'requests' | 'tokens', nowUs: number): number {
  return Math.max(dimension === 'requests' ? state.requestsTat : state.tokensTat, nowUs);
}

function limitOf(scope: LimitScope, dimension: LimitDimension): number | undefined {
  if (dimension === 'requests') return scope.limits.requestsPerMinute;
  return dimension === 'tokens' ? scope.limits.tokensPerMinute : scope.limits.concurrency;
}

function tatAfter(tatUs: number, amount: number, perMinute: number): number {
  return tatUs + (amount * minuteUs) / perMinute;
}
