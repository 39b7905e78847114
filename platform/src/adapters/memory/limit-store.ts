/**
 * Limits counted in this process. Everything here is synchronous between two awaits of the caller, which is what makes a reservation all-or-nothing without a
 * lock; only a budget that is met for the first time waits, for what it has cost so far, before that.
 */

import {
  assertWhole,
  correct,
  type Found,
  isIdle,
  type Moment,
  newState,
  refusalOf,
  release,
  type ScopeState,
  take,
  tightestStates,
} from '../../admission/limit-arithmetic.ts';
import type {
  Amounts,
  BudgetSource,
  LimitScope,
  LimitStore,
  ReserveOutcome,
  ReserveRequest,
  SettleOutcome,
} from '../../admission/limit-store.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import { Slots } from '../../primitives/slots.ts';

/** Settled ids remembered, so that none is admitted again: this many at least, twice as many at most (about 60 bytes each). */
const settledMax = 50_000;
const settled = -1;
/** How long a reaped reservation may still be corrected. */
const reapedMs = 15 * 60_000;
const reapedMax = 10_000;
const sweepEvery = 4_096;
/** A budget is loaded and still missing only when requests of two of its periods met. */
const loadsMax = 3;
const nothing: Amounts = { inputTokens: 0, outputTokens: 0, costNanoUsd: 0 };
const noMoneySpent: BudgetSource = { spentNanoUsd: async () => 0 };

interface Lease {
  readonly reservationId: string;
  readonly held: readonly Found[];
  readonly reserved: Amounts;
  readonly outcome: ReserveOutcome & { readonly kind: 'reserved' };
  expiresAtMs: number;
  progress: Amounts;
}

interface Reaped {
  readonly charged: Amounts;
  readonly scopes: readonly LimitScope[];
  readonly atMs: number;
}

export class MemoryLimitStore implements LimitStore {
  readonly #clock: Clock;
  readonly #budgets: BudgetSource;
  readonly #scopes = new Map<string, ScopeState>();
  readonly #loading = new Map<string, Promise<void>>();
  readonly #leases = new Slots<Lease>();
  /**
   * Reservation id -> slot of its lease, or `settled`. One look-up tells of both, because it is the ids, not the arithmetic, that cost most: each is a text to hash
   * and a place in a table larger than the caches. Two generations: the older is dropped whole, which costs nothing per id.
   */
  #slotOf = new Map<string, number>();
  #slotOfBefore = new Map<string, number>();
  #settledCount = 0;
  readonly #reaped = new Map<string, Reaped>();
  #sinceSweep = 0;

  constructor(clock: Clock, budgets = noMoneySpent) {
    this.#clock = clock;
    this.#budgets = budgets;
  }

  async reserve(request: ReserveRequest): Promise<ReserveOutcome> {
    const { reservationId, scopes } = request;
    assertWhole(request.amounts);
    const found = this.#find(scopes) ?? (await this.#findLoaded(scopes));
    const slot = this.#slot(reservationId);
    if (slot === settled || this.#reaped.has(reservationId)) return { kind: 'spent' };
    return slot === undefined ? this.#take(request, found) : this.#leases.at(slot).outcome;
  }

  #take(request: ReserveRequest, found: readonly Found[]): ReserveOutcome {
    const { reservationId, leaseMs, amounts } = request;
    const now = this.#now();
    const refusal = refusalOf(request, found, now);
    if (refusal !== undefined) return refusal;
    for (const each of found) {
      if (each.state.usedAtS < 0) this.#scopes.set(each.scope.key, each.state);
      take(each, amounts, now.us);
    }
    const outcome = { kind: 'reserved', states: tightestStates(found, now) } as const;
    const expiresAtMs = now.us / 1_000 + leaseMs;
    const lease: Lease = { reservationId, held: found, reserved: amounts, outcome, expiresAtMs, progress: nothing };
    this.#slotOf.set(reservationId, this.#leases.put(lease));
    this.#sweepSometimes();
    return outcome;
  }

  async settle(reservationId: string, actual: Amounts): Promise<SettleOutcome> {
    assertWhole(actual);
    const slot = this.#slot(reservationId);
    if (slot === settled) return 'unknown';
    if (slot !== undefined) {
      this.#end(this.#leases.take(slot), actual);
      this.#rememberSettled(reservationId);
      return 'settled';
    }
    const reaped = this.#reaped.get(reservationId);
    if (reaped === undefined) return 'unknown';
    const change = { from: reaped.charged, to: actual };
    for (const scope of reaped.scopes) correct({ scope, state: this.#stateFor(scope), money: undefined }, change, this.#nowUs());
    this.#reaped.delete(reservationId);
    this.#rememberSettled(reservationId);
    return 'corrected_after_reap';
  }

  async renew(reservationId: string, leaseMs: number, progress: Amounts): Promise<boolean> {
    assertWhole(progress);
    const slot = this.#slot(reservationId);
    if (slot === undefined || slot === settled) return false;
    const lease = this.#leases.at(slot);
    lease.expiresAtMs = this.#clock.monotonicMs() + leaseMs;
    lease.progress = {
      inputTokens: Math.max(lease.progress.inputTokens, progress.inputTokens),
      outputTokens: Math.max(lease.progress.outputTokens, progress.outputTokens),
      costNanoUsd: Math.max(lease.progress.costNanoUsd, progress.costNanoUsd),
    };
    return true;
  }

  async reap(): Promise<number> {
    const nowMs = this.#clock.monotonicMs();
    let reaped = 0;
    for (const lease of this.#leases) {
      if (lease.expiresAtMs > nowMs) continue;
      const { reservationId, progress } = lease;
      this.#leases.take(this.#forget(reservationId));
      this.#end(lease, progress);
      this.#rememberReaped(reservationId, { charged: progress, scopes: lease.held.map(({ scope }) => scope), atMs: nowMs });
      reaped++;
    }
    this.#sweep();
    return reaped;
  }

  async liveCount(): Promise<number> {
    return this.#leases.size;
  }

  /** Begins a scope that nothing is known of where it stood elsewhere: how far its rates are ahead of now. */
  begin({ key }: Pick<LimitScope, 'key'>, aheadUs: readonly number[]): void {
    if (this.#scopes.has(key)) return;
    const nowUs = this.#nowUs();
    this.#scopes.set(key, { ...newState(), tats: aheadUs.map((ahead) => nowUs + ahead), usedAtS: Math.floor(nowUs / 1e6) });
  }

  /** Scopes that hold anything; idle ones are forgotten, so this does not grow with the number of tenants. For tests. */
  get scopeCount(): number {
    return this.#scopes.size;
  }

  #nowUs(): number {
    return this.#clock.monotonicMs() * 1_000;
  }

  #now(): Moment {
    return { us: this.#nowUs(), wallMs: this.#clock.nowMs() };
  }

  /** One look-up a scope. Undefined: what a budget has cost is not known here. */
  #find(scopes: readonly LimitScope[]): Found[] | undefined {
    const found: Found[] = [];
    for (const scope of scopes) {
      const state = this.#scopes.get(scope.key);
      if (lacksBudget(scope, state)) return undefined;
      found.push({ scope, state: state ?? newState(), money: undefined });
    }
    return found;
  }

  async #findLoaded(scopes: readonly LimitScope[]): Promise<readonly Found[]> {
    for (let load = 0; load < loadsMax; load++) {
      for (const scope of scopes) if (lacksBudget(scope, this.#scopes.get(scope.key))) await this.#loadBudget(scope);
      const found = this.#find(scopes);
      if (found !== undefined) return found;
    }
    throw new Error('a budget was loaded and is not there');
  }

  /** Once for all who wait. What runs in the period before settles there, on the state it holds. */
  #loadBudget(scope: LimitScope): Promise<void> {
    const { key, budget } = scope;
    assert(budget !== undefined, 'there is a budget to load');
    const periodId = budget.period.id;
    const slot = `${key} ${periodId}`;
    const known = this.#loading.get(slot);
    if (known !== undefined) return known;
    const spent = budget.isKept ? this.#budgets.spentNanoUsd(key, periodId) : Promise.resolve(0);
    const loading = spent
      .catch((error: unknown) => {
        // What refuses nothing must not fail a request either; the ledger has the sum all the same.
        if (budget.isHard) throw error;
        return 0;
      })
      .then((nanoUsd) => {
        this.#stateFor(scope).money = { periodId, spent: nanoUsd, reserved: 0 };
      })
      .finally(() => this.#loading.delete(slot));
    this.#loading.set(slot, loading);
    return loading;
  }

  #slot(reservationId: string): number | undefined {
    return this.#slotOf.get(reservationId) ?? this.#slotOfBefore.get(reservationId);
  }

  #end(lease: Lease, actual: Amounts): void {
    const nowUs = this.#nowUs();
    const change = { from: lease.reserved, to: actual };
    for (const each of lease.held) release(each, change, nowUs);
  }

  #stateFor(scope: LimitScope): ScopeState {
    const known = this.#scopes.get(scope.key);
    if (known !== undefined) return known;
    const state = newState();
    this.#scopes.set(scope.key, state);
    return state;
  }

  #rememberSettled(reservationId: string): void {
    this.#slotOf.set(reservationId, settled);
    this.#settledCount++;
    if (this.#settledCount < settledMax) return;
    const next = new Map<string, number>();
    for (const lease of this.#leases) next.set(lease.reservationId, this.#slot(lease.reservationId) as number);
    this.#slotOfBefore = this.#slotOf;
    this.#slotOf = next;
    this.#settledCount = 0;
  }

  /** What was reaped has its own place, for it may still be corrected. */
  #forget(reservationId: string): number {
    const slot = this.#slot(reservationId);
    assert(slot !== undefined && slot !== settled, 'a lease ends once');
    this.#slotOf.delete(reservationId);
    this.#slotOfBefore.delete(reservationId);
    return slot;
  }

  #rememberReaped(reservationId: string, reaped: Reaped): void {
    const oldest = this.#reaped.size >= reapedMax ? this.#reaped.keys().next().value : undefined;
    if (oldest !== undefined) this.#reaped.delete(oldest);
    this.#reaped.set(reservationId, reaped);
  }

  #sweepSometimes(): void {
    this.#sinceSweep++;
    if (this.#sinceSweep >= sweepEvery) this.#sweep();
  }

  /** Forgets scopes that are full and idle, which is how a new one starts, and what was reaped long ago (the map is in that order). */
  #sweep(): void {
    this.#sinceSweep = 0;
    const nowUs = this.#nowUs();
    for (const [key, state] of this.#scopes) if (isIdle(state, nowUs)) this.#scopes.delete(key);
    for (const [reservationId, reaped] of this.#reaped) {
      if (nowUs / 1_000 - reaped.atMs < reapedMs) break;
      this.#reaped.delete(reservationId);
    }
  }
}

function lacksBudget({ budget }: LimitScope, state: ScopeState | undefined): boolean {
  return budget !== undefined && state?.money?.periodId !== budget.period.id;
}
