/**
 * Port: where limits are counted. One primitive, reserve -> settle (or release), atomic over every scope and dimension.
 * The in-memory adapter and a Valkey adapter pass one contract suite (`platform/test/contracts/limit-store.ts`).
 * Algorithm: GCRA per rate (ITU-T I.371 annex A; one number, the theoretical arrival time), gauges for concurrency, leases so that
 * nothing held by a dead process is held for ever.
 */
import type { LimitPolicy } from '../tenancy/tenant.ts';

export type LimitDimension = 'requests' | 'tokens' | 'concurrency';
export type LimitScopeName = 'tenant' | 'key';

export interface LimitScope {
  readonly name: LimitScopeName;
  /** Unique over all scopes: length-prefixed parts, first the tenant. */
  readonly key: string;
  readonly limits: LimitPolicy;
}

export interface ReserveRequest {
  readonly reservationId: string;
  /** After this long without `renew` the reservation is reaped. */
  readonly leaseMs: number;
  readonly amounts: { readonly requests: number; readonly tokens: number };
  /** Outermost first; all must pass. */
  readonly scopes: readonly LimitScope[];
  /** Part of each limit that may be in use afterwards, greater than 0, at most 1 (absent). A concurrency limit leaves at least one slot. */
  readonly share?: number;
}

export interface LimitState {
  readonly scope: LimitScopeName;
  readonly dimension: LimitDimension;
  readonly limit: number;
  readonly remaining: number;
  /** Until the bucket is full again. */
  readonly resetMs: number;
}

export type ReserveOutcome =
  | { readonly kind: 'reserved'; readonly states: readonly LimitState[] }
  /** The binding limit: the one with the longest wait. A lone retry after `retryAfterMs` succeeds. */
  | { readonly kind: 'denied'; readonly binding: LimitState; readonly used: number; readonly retryAfterMs: number }
  /** Larger than the bucket: no wait can help. */
  | { readonly kind: 'too_large'; readonly binding: LimitState; readonly requested: number }
  /** The id was settled or reaped before; it is never admitted again. */
  | { readonly kind: 'spent' };

export type SettleOutcome = 'settled' | 'corrected_after_reap' | 'unknown';

export interface LimitStore {
  /** All or nothing: a denied reserve changes nothing. Repeating a live reservation returns the first answer. */
  reserve(request: ReserveRequest): Promise<ReserveOutcome>;
  /** Exactly once, in any order with `reap`. Over-use becomes debt, under-use is refunded, never above the burst. Requests are never refunded. */
  settle(reservationId: string, actual: { readonly tokens: number }): Promise<SettleOutcome>;
  /** Extends the lease and records progress, so that a reap charges what was already delivered. */
  renew(reservationId: string, leaseMs: number, progress: { readonly tokens: number }): Promise<boolean>;
  /** Settles every expired lease at its recorded progress; returns how many. */
  reap(): Promise<number>;
  /** Live reservations, for tests and gauges. */
  liveCount(): Promise<number>;
}
