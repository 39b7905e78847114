/**
 * Port: who goes next when a pool is saturated. Weighted fair over two classes of work (9 to 1), in each of them over tenants, then over the users of a tenant, then over the
 * sessions of a user; first come first served inside a session. Nobody waits while a permit is free, but batch work leaves 15 % of the permits to what comes next.
 * Algorithm: virtual counters charged a fraction theta of the predicted output at dispatch and the rest as it streams
 * (VTC, Sheng et al., OSDI'24, arXiv 2401.00588; SFQ(D), Jin et al., SIGMETRICS'04).
 */
import type { TenantId } from '../primitives/ids.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import type { Elsewhere } from './pool-share.ts';

export interface Ticket {
  /** Deployments that can serve the same request share a pool. */
  readonly poolId: string;
  readonly tenantId: TenantId;
  readonly workClass: WorkClass;
  /** Second level: user or key inside the tenant. */
  readonly user: string;
  /** Third level: conversation or run of an agent inside the user, as the client names it; never empty. */
  readonly session?: string | undefined;
  readonly weight: number;
  readonly inputTokens: number;
  readonly predictedOutputTokens: number;
  /** Size of the waiting body, for the global bound. */
  readonly bytes: number;
}

/** A slot of the pool. Exactly one of `finish` and `cancel` ends it; a second call does nothing. */
export interface Permit {
  /** Time spent waiting. */
  readonly queueMs: number;
  /** Charges output as it is delivered: tokens since the last call. */
  reportOutput(tokens: number): void;
  /** Returns the slot and replaces the prediction by what was really used. Cached input tokens are part of the input tokens, and cost a tenth. */
  finish(actual: { readonly inputTokens: number; readonly cachedInputTokens?: number | undefined; readonly outputTokens: number }): void;
  /** Returns the slot and undoes the dispatch charge: nothing was delivered. */
  cancel(): void;
}

export interface CapacityOptions {
  /** A pool without permits gets some again after so long; what cannot wait for that is refused at once. Absent: it is not known, and requests wait as long as they may. */
  readonly resumesInMs?: number;
  /** The permits that all replicas share; the latest that any of them sets. Absent: as many as this one can use. */
  readonly ofAll?: number;
}

export interface FairQueue {
  /**
   * Waits for a slot. Rejects with `queue_full`, `queue_timeout` (each with `retryAfterMs`), `capacity_unavailable` for a pool that was
   * never given a capacity, `shutting_down`, or the signal's reason; then nothing is held and nothing is charged.
   */
  acquire(ticket: Ticket, signal: AbortSignal): Promise<Permit>;
  /**
   * Undoes the dispatch of a permit of this queue and waits for another slot with the tag the request had, before what its user sent later; its time limit counts from
   * its arrival. Resolves when the permit holds a slot again. Rejects as `acquire` does; then the permit has ended. For what could not be sent: nothing may have been reported.
   */
  requeue(permit: Permit, signal: AbortSignal): Promise<void>;
  /**
   * Sets how many of a pool's permits this process can use; lowering it takes effect as permits return.
   */
  setCapacity(poolId: string, permits: number, capacity?: CapacityOptions): void;
  snapshot(): readonly PoolSnapshot[];
  /** Rejects everything that waits, with `shutting_down`. */
  close(): void;
}

export interface PoolSnapshot {
  readonly poolId: string;
  /** Of the whole pool. */
  readonly capacity: number;
  /** Of the capacity, what may be in use in this process now; less where replicas share it. */
  readonly permits: number;
  /** What other replicas have, as last heard; undefined where nothing is shared or nobody is heard. */
  readonly elsewhere?: Elsewhere | undefined;
  /** This and all that follows: in this process. */
  readonly inFlight: number;
  readonly queued: number;
  readonly tenants: readonly {
    readonly tenantId: TenantId;
    readonly workClass: WorkClass;
    readonly queued: number;
    readonly inFlight: number;
    readonly weight: number;
    readonly virtualTime: number;
    /** Cost it may receive before others of its class come first; negative when it is ahead of its level, 0 when it does not wait. */
    readonly lagCost: number;
  }[];
}
