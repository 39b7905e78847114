/**
 * The fair queue over all pools, without promises and timers: every call returns at once, and time comes from the clock. Bounds, in this order:
 *
 * 1. A request that would wait longer than `waitMaxMs` by the pool's learned speed is refused on arrival: early, not after waiting.
 * 2. A tenant has at most `requestsPerTenantMax` requests waiting in a pool. Beyond that the newest of its user with the most makes room,
 *    so one user's script does not lock colleagues out; what begins a session before what goes on with one, so that runs that have begun come to an end.
 * 3. All that waits has at most `bytesMax` bytes. Beyond that the newest of the tenant with the longest queue for its weight makes room.
 * 4. Nothing starts after its deadline.
 */
import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import { type Random, systemRandom } from '../primitives/random.ts';
import { FairPool } from './fair-pool.ts';
import type { CapacityOptions, PoolSnapshot, Ticket } from './fair-queue.ts';
import type { FairRequest } from './fair-request.ts';
import type { QueueWatcher, TenantWatcher } from './fairness-record.ts';
import type { SessionFlow, TenantFlow, UserFlow } from './flow.ts';
import { findUser, sharedSessionPlace } from './flow-places.ts';
import { Interactions } from './interactions.ts';
import type { PoolShare, SharedFairPool } from './pool-share.ts';
import { QueueRefusal, QueueRefusals } from './refusals.ts';
import { type CostRule, saneWeight } from './service-cost.ts';
import { WaitingLine } from './waiting-line.ts';

export interface FairQueueOptions extends Partial<CostRule> {
  readonly clock: Clock;
  /** Waiting requests of one tenant in one pool. */
  readonly requestsPerTenantMax: number;
  /** `Ticket.bytes` of everything that waits. */
  readonly bytesMax: number;
  readonly waitMaxMs: number;
  /** Spreads retries. */
  readonly random?: Random;
  readonly watcher?: QueueWatcher;
  /** Set where replicas share the permits of pools. */
  readonly share?: (poolId: string, pool: SharedFairPool) => PoolShare;
}

const untold: TenantWatcher = { charged: () => {}, started: () => {} };
const noWatcher: QueueWatcher = { tenant: () => untold, shed: () => {} };
const thetaDefault = 0.25;
/** The usual ratio of prices; the VTC paper uses 2. */
const outputTokenCostDefault = 4;

export class WeightedFairQueue {
  readonly #options: FairQueueOptions;
  readonly #rule: CostRule;
  readonly #refusals: QueueRefusals;
  readonly #watcher: QueueWatcher;
  readonly #pools = new Map<string, FairPool>();
  readonly #line = new WaitingLine();
  readonly #interactions = new Interactions();
  #mode: 'open' | 'closed' = 'open';

  constructor(options: FairQueueOptions) {
    const { theta = thetaDefault, outputTokenCost = outputTokenCostDefault } = options;
    assert(theta >= 0 && theta <= 1, 'theta is a part of 1');
    assert(outputTokenCost >= 0, 'a token cannot have a negative cost');
    this.#options = options;
    this.#rule = { theta, outputTokenCost };
    this.#refusals = new QueueRefusals(options.random ?? systemRandom);
    this.#watcher = options.watcher ?? noWatcher;
  }

  /** A request that runs already, or waits: then its `waiter` must be set before anything else is called. Throws the refusals of the port. */
  submit(ticket: Ticket): FairRequest {
    assert(ticket.bytes >= 0, 'a request has a size');
    if (this.#mode === 'closed') throw this.#refusals.shuttingDown();
    const pool = this.#pools.get(ticket.poolId);
    if (pool === undefined) throw this.#refusals.noCapacity();
    const nowMs = this.#options.clock.monotonicMs();
    if (pool.isFree(ticket.workClass)) return pool.submit(ticket, nowMs);
    this.expire(nowMs);
    try {
      this.#makeRoom(pool, ticket, nowMs);
    } catch (error) {
      if (error instanceof QueueRefusal) this.#watcher.shed(ticket, error.shedCause);
      throw error;
    }
    return pool.submit(ticket, nowMs);
  }

  /** Refuses everything whose deadline is reached. */
  expire(nowMs = this.#options.clock.monotonicMs()): void {
    const { waitMaxMs } = this.#options;
    for (;;) {
      const due = this.#line.oldest;
      if (due === undefined || due.arrivedAtMs + waitMaxMs > nowMs) return;
      const { user } = due.session;
      const pool = this.#pools.get(due.ticket.poolId);
      const standsStillMs = pool?.standsStillMs() ?? 0;
      if (standsStillMs > 0) this.#refuse(due, this.#refusals.standsStill(standsStillMs));
      else this.#refuse(due, this.#refusals.waitedTooLong(waitMaxMs, pool?.estimatedWaitMs(due.ticket, user.tenant, user)));
    }
  }

  /** Monotonic milliseconds at which `expire` has something to do; undefined when nothing waits. */
  nextDeadlineMs(): number | undefined {
    const oldest = this.#line.oldest;
    return oldest === undefined ? undefined : oldest.arrivedAtMs + this.#options.waitMaxMs;
  }

  /** A running request waits again; its `waiter` must be set. It may run again before this returns. */
  requeue(request: FairRequest): void {
    const pool = this.#pools.get(request.ticket.poolId);
    assert(pool !== undefined, 'what runs has a pool');
    pool.requeue(request);
    if (this.#mode === 'closed' && request.mode === 'waiting') this.#refuse(request, this.#refusals.shuttingDown());
  }

  /** A pool that stands still refuses what cannot wait until it goes on. */
  setCapacity(poolId: string, permits: number, options?: CapacityOptions): void {
    let pool = this.#pools.get(poolId);
    if (pool === undefined) {
      const { clock, share } = this.#options;
      pool = new FairPool({
        poolId,
        clock,
        rule: this.#rule,
        line: this.#line,
        interactions: this.#interactions,
        watcher: this.#watcher,
        expire: (nowMs) => this.expire(nowMs),
        share: share && ((shared) => share(poolId, shared)),
      });
      this.#pools.set(poolId, pool);
    }
    pool.setCapacity(permits, options);
  }

  snapshot(): readonly PoolSnapshot[] {
    return Array.from(this.#pools.values(), (pool) => pool.snapshot());
  }

  close(): void {
    this.#mode = 'closed';
    while (this.#line.oldest !== undefined) this.#refuse(this.#line.oldest, this.#refusals.shuttingDown());
  }

  #makeRoom(pool: FairPool, ticket: Ticket, nowMs: number): void {
    const { waitMaxMs, bytesMax } = this.#options;
    const standsStillMs = pool.standsStillMs();
    if (standsStillMs > waitMaxMs) throw this.#refusals.standsStill(standsStillMs);
    const tenant = pool.tenantOf(ticket);
    const user = findUser(tenant, ticket.user);
    const estimatedWaitMs = pool.estimatedWaitMs(ticket, tenant, user);
    if (ticket.bytes > bytesMax) throw this.#refusals.bytesFull(bytesMax, estimatedWaitMs);
    if (estimatedWaitMs !== undefined && estimatedWaitMs > waitMaxMs) throw this.#refusals.wouldWaitTooLong(estimatedWaitMs, waitMaxMs);
    if (tenant !== undefined && tenant.queued >= this.#options.requestsPerTenantMax) {
      const error = this.#refusals.tenantQueueFull(tenant.queued, this.#options.requestsPerTenantMax, estimatedWaitMs);
      const victim = victimInTenant(tenant, { own: user, goesOn: pool.goesOn(ticket, user, nowMs) });
      if (victim === undefined) throw error;
      this.#refuse(victim, error);
    }
    this.#makeRoomInMemory(tenant, ticket, estimatedWaitMs);
  }

  /** `tenant` is the arriving request's, if it is known. */
  #makeRoomInMemory(tenant: TenantFlow<FairRequest> | undefined, ticket: Ticket, estimatedWaitMs: number | undefined): void {
    const { bytesMax } = this.#options;
    while (this.#line.bytes + ticket.bytes > bytesMax) {
      const error = this.#refusals.bytesFull(bytesMax, estimatedWaitMs);
      const longest = this.#line.ranking.longest();
      const ownBytesPerWeight = ((tenant?.queuedBytes ?? 0) + ticket.bytes) / saneWeight(ticket.weight);
      if (longest === undefined || longest.queuedBytes / longest.weight <= ownBytesPerWeight) throw error;
      const user = longestOf<UserFlow<FairRequest>>(longest.users.waiting.members());
      const victim = user && newestOf(user);
      assert(victim !== undefined, 'a tenant with queued bytes has a queued request');
      this.#refuse(victim, error);
    }
  }

  #refuse(request: FairRequest, error: QueueRefusal): void {
    const { waiter } = request;
    request.owner.withdraw(request);
    this.#watcher.shed(request.ticket, error.shedCause);
    waiter?.refused(error);
  }
}

/** What makes room for a request of the user `own`; undefined: the request itself must go. */
function victimInTenant(
  tenant: TenantFlow<FairRequest>,
  { own, goesOn }: { readonly own: UserFlow<FairRequest> | undefined; readonly goesOn: boolean },
): FairRequest | undefined {
  const longest = longestOf<UserFlow<FairRequest>>(tenant.users.waiting.members());
  if (longest !== undefined && longest.queued > (own?.queued ?? 0) + 1) return newestOf(longest);
  // Of the same user: the tables cannot turn, because what goes on never makes room for what begins.
  return goesOn && own !== undefined ? newestBeginning(own) : undefined;
}

/** One that begins a session, if there is any. */
function newestOf(user: UserFlow<FairRequest>): FairRequest | undefined {
  return newestBeginning(user) ?? longestOf<SessionFlow<FairRequest>>(user.sessions.waiting.members())?.newest;
}

function newestBeginning({ sessions }: UserFlow<FairRequest>): FairRequest | undefined {
  let newest: FairRequest | undefined;
  for (const session of sessions.waiting.members()) {
    const isBeginning = !session.isGoingOn && (session.inFlight === 0 || session.key === sharedSessionPlace);
    if (isBeginning && session.newest !== undefined && session.newest.arrivedAtMs >= (newest?.arrivedAtMs ?? 0)) newest = session.newest;
  }
  return newest;
}

/** Asked only when a bound is reached; a tenant has at most `requestsPerTenantMax` users waiting, a user 257 sessions. */
function longestOf<Member extends { readonly queued: number }>(flows: readonly Member[]): Member | undefined {
  let longest: Member | undefined;
  for (const flow of flows) if (longest === undefined || flow.queued > longest.queued) longest = flow;
  return longest;
}
