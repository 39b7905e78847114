/**
 * Port: where limits are counted. One primitive, reserve -> settle (or release), atomic over every scope and dimension.
 * The in-memory adapter and a Valkey adapter pass one contract suite (`platform/test/contracts/limit-store.ts`).
 * Algorithm: GCRA per rate (ITU-T I.371 annex A; one number, the theoretical arrival time), gauges for concurrency, sums for money, leases so
 * that nothing held by a dead process is held for ever.
 */
import type { LimitPolicy } from '../tenancy/tenant.ts';

/** `tokens` is input and output together. */
export type RateDimension = 'requests' | 'tokens' | 'input_tokens' | 'output_tokens';
export type LimitDimension = RateDimension | 'concurrency' | 'budget';
export type LimitScopeName = 'tenant' | 'team' | 'key' | 'user' | 'session';

export interface LimitScope {
  readonly name: LimitScopeName;
  /** Unique over all scopes: length-prefixed parts, first the tenant. */
  readonly key: string;
  /** Which team, key, user or session; absent for the tenant. */
  readonly member?: string | undefined;
  readonly limits: LimitPolicy;
  readonly budget?: ScopeBudget | undefined;
}

/** Money of one calendar period, in whole nano-dollars (a thousandth of a micro-dollar); a sum of numbers below 2^53 is exact. */
export interface ScopeBudget {
  readonly limitNanoUsd: number;
  /** False: it is counted and refuses nothing. */
  readonly isHard: boolean;
  /** False: it begins with nothing spent wherever it is met, and is in no ledger. */
  readonly isKept: boolean;
  readonly period: BudgetPeriod;
}

export interface BudgetPeriod {
  /** Sums of two ids never meet. */
  readonly id: string;
  /** Wall clock. */
  readonly endsAtMs: number;
}

/** What one request takes, beside itself and a slot. Whole numbers. */
export interface Amounts {
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** At most this is spent: what a hard budget sets aside. */
  readonly costNanoUsd: number;
}

/** What a period has cost so far, from where it is durable. Asked when a budget is met for the first time, or again after it was forgotten. */
export interface BudgetSource {
  spentNanoUsd(scopeKey: string, periodId: string): Promise<number>;
}

export interface ReserveRequest {
  readonly reservationId: string;
  /** After this long without `renew` the reservation is reaped. */
  readonly leaseMs: number;
  readonly amounts: Amounts;
  /** Outermost first; all must pass. */
  readonly scopes: readonly LimitScope[];
  /** Part of each rate and concurrency that may be in use afterwards, greater than 0, at most 1 (absent). A concurrency limit leaves at least one slot. */
  readonly share?: number;
}

export interface LimitState {
  readonly scope: LimitScopeName;
  readonly dimension: LimitDimension;
  /** A budget's numbers are nano-dollars. */
  readonly limit: number;
  readonly remaining: number;
  /** Until the bucket is full again, or the budget's period ends. */
  readonly resetMs: number;
}

export type ReserveOutcome =
  /** Of each dimension the scope that has least left, right after reserving. */
  | { readonly kind: 'reserved'; readonly states: readonly LimitState[] }
  /** The binding limit: the one with the longest wait. A lone retry after `retryAfterMs` succeeds. */
  | { readonly kind: 'denied'; readonly binding: LimitState; readonly used: number; readonly retryAfterMs: number }
  /** Larger than the bucket: no wait can help. */
  | { readonly kind: 'too_large'; readonly binding: LimitState; readonly requested: number }
  /** What the period has left, without what runs, is less than the request may cost: nothing before its end can help. */
  | { readonly kind: 'exhausted'; readonly binding: LimitState; readonly used: number; readonly requested: number }
  /** The id was settled or reaped before; it is never admitted again. */
  | { readonly kind: 'spent' };

export type SettleOutcome = 'settled' | 'corrected_after_reap' | 'unknown';

export interface LimitStore {
  /** All or nothing: a denied reserve changes nothing. Repeating a live reservation returns the first answer. */
  reserve(request: ReserveRequest): Promise<ReserveOutcome>;
  /** Exactly once, in any order with `reap`. Over-use becomes debt, under-use is refunded, never above the burst. Requests are never refunded. */
  settle(reservationId: string, actual: Amounts): Promise<SettleOutcome>;
  /** Extends the lease and records progress, so that a reap charges what was already delivered. */
  renew(reservationId: string, leaseMs: number, progress: Amounts): Promise<boolean>;
  /** Settles every expired lease at its recorded progress; returns how many. */
  reap(): Promise<number>;
  /** Live reservations, for tests and gauges. */
  liveCount(): Promise<number>;
}
