/**
 * Limits counted in this process. Everything here is synchronous between two awaits of the caller, which is what makes a reservation all-or-nothing without a
 * lock; only a budget that is met for the first time waits, for what it has cost so far, before that.
 */

import {
  assertWhole,
  correct,
  type Found,
  isIdle,
  newState,
  refusalOf,
  release,
  type ScopeState,
  statesOf,
  take,
} from '../../admission/limit-arithmetic.ts';
import type {
  Amounts,
  BudgetSource,
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

/** Settled ids remembered, so that none is admitted again: this many at least, twice as many at most (about 60 bytes each). */
const settledMax = 50_000;
/** How long a reaped reservation may still be corrected. */
const reapedMs = 15 * 60_000;
const reapedMax = 10_000;
const sweepEvery = 4_096;
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
  /** Reservation id -> slot of its lease. */
  readonly #slotOf = new Map<string, number>();
  readonly #reaped = new Map<string, Reaped>();
  /** Two generations: the older is dropped whole, which costs nothing per id. */
  #settled = new Set<string>();
  #settledBefore = new Set<string>();
  #sinceSweep = 0;

  constructor(clock: Clock, budgets = noMoneySpent) {
    this.#clock = clock;
    this.#budgets = budgets;
  }

  async reserve(request: ReserveRequest): Promise<ReserveOutcome> {
    const { reservationId, amounts } = request;
    assertWhole(amounts);
    for (const scope of request.scopes) if (this.#lacksBudgetOf(scope)) await this.#loadBudget(scope);
    if (this.#isSpent(reservationId)) return { kind: 'spent' };
    const live = this.#leaseOf(reservationId);
    if (live !== undefined) return live.outcome;
    const now = this.#now();
    const found = request.scopes.map((scope): Found => ({ scope, state: this.#scopes.get(scope.key) ?? newState() }));
    const refusal = refusalOf(request, found, now);
    if (refusal !== undefined) return refusal;
    const states: LimitState[] = [];
    for (const each of found) {
      take(each, amounts, now);
      this.#scopes.set(each.scope.key, each.state);
      states.push(...statesOf(each, now));
    }
    const outcome = { kind: 'reserved', states } as const;
    const expiresAtMs = now.us / 1_000 + request.leaseMs;
    const lease: Lease = { reservationId, held: found, reserved: amounts, outcome, expiresAtMs, progress: nothing };
    this.#slotOf.set(reservationId, this.#leases.put(lease));
    this.#sweepSometimes();
    return outcome;
  }

  async settle(reservationId: string, actual: Amounts): Promise<SettleOutcome> {
    assertWhole(actual);
    const lease = this.#leaseOf(reservationId);
    if (lease !== undefined) {
      this.#end(lease, actual);
      this.#rememberSettled(reservationId);
      return 'settled';
    }
    const reaped = this.#reaped.get(reservationId);
    if (reaped === undefined) return 'unknown';
    const now = this.#now();
    for (const scope of reaped.scopes) correct({ scope, state: this.#stateFor(scope) }, { from: reaped.charged, to: actual }, now);
    this.#reaped.delete(reservationId);
    this.#rememberSettled(reservationId);
    return 'corrected_after_reap';
  }

  async renew(reservationId: string, leaseMs: number, progress: Amounts): Promise<boolean> {
    assertWhole(progress);
    const lease = this.#leaseOf(reservationId);
    if (lease === undefined) return false;
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
    const now = this.#now();
    this.#scopes.set(key, { ...newState(), tats: aheadUs.map((ahead) => now.us + ahead), usedAtUs: now.us });
  }

  /** Scopes that hold anything; idle ones are forgotten, so this does not grow with the number of tenants. For tests. */
  get scopeCount(): number {
    return this.#scopes.size;
  }

  #now() {
    return { us: this.#clock.monotonicMs() * 1_000, wallMs: this.#clock.nowMs() };
  }

  #lacksBudgetOf({ key, budget }: LimitScope): boolean {
    return budget !== undefined && this.#scopes.get(key)?.money?.periodId !== budget.period.id;
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

  #leaseOf(reservationId: string): Lease | undefined {
    const slot = this.#slotOf.get(reservationId);
    return slot === undefined ? undefined : this.#leases.at(slot);
  }

  #end(lease: Lease, actual: Amounts): void {
    const slot = this.#slotOf.get(lease.reservationId);
    assert(slot !== undefined, 'a lease ends once');
    this.#slotOf.delete(lease.reservationId);
    this.#leases.take(slot);
    const now = this.#now();
    for (const each of lease.held) release(each, { from: lease.reserved, to: actual }, now);
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

  #sweepSometimes(): void {
    this.#sinceSweep++;
    if (this.#sinceSweep >= sweepEvery) this.#sweep();
  }

  /** Forgets scopes that are full and idle, which is how a new one starts, and what was reaped long ago (the map is in that order). */
  #sweep(): void {
    this.#sinceSweep = 0;
    const now = this.#now();
    for (const [key, state] of this.#scopes) if (isIdle(state, now)) this.#scopes.delete(key);
    for (const [reservationId, reaped] of this.#reaped) {
      if (now.us / 1_000 - reaped.atMs < reapedMs) break;
      this.#reaped.delete(reservationId);
    }
  }
}
