import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import type { CapacityOptions, PoolSnapshot, Ticket } from './fair-queue.ts';
import type { FairRequest, RequestOwner } from './fair-request.ts';
import type { QueueWatcher } from './fairness-record.ts';
import type { ClassFlow, TenantFlow, UserFlow } from './flow.ts';
import { FlowTree } from './flow-tree.ts';
import type { Interactions } from './interactions.ts';
import type { PoolHead, PoolShare, SharedFairPool, SharedLevel } from './pool-share.ts';
import { type ActualTokens, type CostRule, costSoFar, expectedCost, finalCost, saneWeight, unitsOf } from './service-cost.ts';
import { ServiceRate } from './service-rate.ts';
import type { WaitingLine } from './waiting-line.ts';

export interface PoolParts {
  readonly poolId: string;
  readonly clock: Clock;
  readonly rule: CostRule;
  readonly line: WaitingLine;
  readonly interactions: Interactions;
  /** Refuses what is due. Called before permits are given away, so that nothing starts after its deadline. */
  readonly expire: (nowMs: number) => void;
  readonly watcher: QueueWatcher;
  /** Set where replicas share the permits; absent: all of them are here. */
  readonly share?: ((pool: SharedFairPool) => PoolShare) | undefined;
}

/** Permits of one pool: how many there are, here and in all, and that whoever is next gets one as soon as there is one. Who is next is its tree's to say. */
export class FairPool implements RequestOwner, SharedFairPool {
  readonly #tree: FlowTree;
  readonly #parts: PoolParts;
  readonly #rate = new ServiceRate();
  readonly #share: PoolShare | undefined;
  #capacity = 0;
  #resumesAtMs = 0;
  /** The whole pool's, however many replicas share it. */
  #ofAll = -1;
  /** How many of the permits may be in use here. */
  #permits = Number.POSITIVE_INFINITY;
  #batchElsewhere = 0;
  #isDispatching = false;

  constructor(parts: PoolParts) {
    this.#parts = parts;
    this.#tree = new FlowTree({ ...parts, charged: parts.share && ((charge) => this.#share?.charged(charge)) });
    if (parts.share === undefined) return;
    this.#permits = 0;
    this.#share = parts.share(this);
  }

  setCapacity(permits: number, { resumesInMs = 0, ofAll = permits }: CapacityOptions = {}): void {
    assert(
      [permits, ofAll].every((count) => Number.isInteger(count) && count >= 0),
      'a capacity is a whole number of permits',
    );
    const nowMs = this.#parts.clock.monotonicMs();
    this.#capacity = permits;
    this.#resumesAtMs = nowMs + resumesInMs;
    if (ofAll !== this.#ofAll) this.#share?.capacitySet(ofAll);
    this.#ofAll = ofAll;
    this.#dispatch(nowMs);
  }

  /** Milliseconds until a pool without permits has some again, as far as is known; 0 for one that has. */
  standsStillMs(): number {
    return this.#capacity > 0 ? 0 : Math.max(1, this.#resumesAtMs - this.#parts.clock.monotonicMs());
  }

  get load(): SharedFairPool['load'] {
    return { running: this.#tree.running, runningBatch: this.#tree.find('batch')?.inFlight ?? 0, queued: this.#tree.queued };
  }

  setPermits(permits: number, batchElsewhere: number): void {
    this.#permits = permits;
    this.#batchElsewhere = batchElsewhere;
    if (this.#tree.queued > 0 && this.#tree.running < this.#limit) this.#dispatch(this.#parts.clock.monotonicMs());
  }

  heads(count: number): readonly PoolHead[] {
    // A permit that is granted here could not be used.
    if (this.#tree.running >= this.#capacity && this.#capacity < this.#ofAll) return [];
    return this.#tree.heads(count);
  }

  adopt(level: SharedLevel, key: string, virtualTime: number): void {
    this.#tree.adopt(level, key, virtualTime);
  }

  adoptTime(level: SharedLevel, virtualTime: number): void {
    this.#tree.adoptTime(level, virtualTime);
  }

  startEqual(times: Readonly<Record<SharedLevel, number>>): void {
    this.#tree.startEqual(times);
  }

  get #limit(): number {
    return Math.min(this.#capacity, this.#permits);
  }

  /** A permit is free for this class. Then nobody of it waits, for permits are given away as they come free. */
  isFree(workClass: WorkClass): boolean {
    if (this.#tree.running >= this.#limit) return false;
    const work = this.#tree.find(workClass);
    return work === undefined || (work.queued === 0 && this.#hasRoom(work));
  }

  tenantOf(ticket: Ticket): TenantFlow<FairRequest> | undefined {
    return this.#tree.tenantOf(ticket);
  }

  goesOn(ticket: Ticket, user: UserFlow<FairRequest> | undefined, nowMs: number): boolean {
    return this.#tree.goesOn(ticket, user, nowMs);
  }

  /** A request that runs at once when a permit is free and nobody waits, else waits. The bounds are the caller's to check. */
  submit(ticket: Ticket, nowMs: number): FairRequest {
    const isFree = this.isFree(ticket.workClass);
    const request = this.#tree.open(ticket, this, nowMs);
    const { tenant } = request.session.user;
    if (tenant.work.queued === 0) this.#share?.began('classes', tenant.work.key);
    if (tenant.queued === 0) this.#share?.began(tenant.work.key, tenant.key);
    if (isFree) this.#tree.startAtOnce(request, nowMs);
    else {
      this.#tree.enqueue(request);
      this.#observe(nowMs);
    }
    this.#share?.changed();
    return request;
  }

  withdraw(request: FairRequest): void {
    if (request.mode !== 'waiting') return;
    request.mode = 'ended';
    this.#tree.withdraw(request);
    this.#share?.changed();
  }

  expectedUnits(ticket: Ticket): number {
    return unitsOf(expectedCost(this.#parts.rule, ticket), 1);
  }

  reportOutput(request: FairRequest): void {
    this.#tree.chargeTo(request, costSoFar(this.#parts.rule, request.ticket, request.outputTokens));
  }

  /** A running request waits again, in its old place. */
  requeue(request: FairRequest): void {
    this.#tree.putBack(request);
    this.#share?.returned();
    this.#dispatch(this.#parts.clock.monotonicMs());
    this.#share?.changed();
  }

  end(request: FairRequest, actual: ActualTokens | undefined): void {
    const nowMs = this.#parts.clock.monotonicMs();
    if (actual !== undefined) this.#parts.interactions.finished(request.ticket, nowMs);
    this.#rate.countEnd(request.expectedUnits);
    this.#tree.end(request, actual === undefined ? 0 : finalCost(this.#parts.rule, actual), nowMs);
    this.#share?.returned();
    this.#dispatch(nowMs);
    this.#share?.changed();
  }

  /** Milliseconds until a new request of this user would start; undefined while the pool's speed is unknown. Fair shares make it an upper estimate. */
  estimatedWaitMs(
    ticket: Ticket,
    tenant: TenantFlow<FairRequest> | undefined,
    user: UserFlow<FairRequest> | undefined,
  ): number | undefined {
    if (tenant === undefined || tenant.queued === 0) return 0;
    const { work } = tenant;
    const isWaiting = user !== undefined && user.queued > 0;
    const usersWaiting = tenant.users.waiting.size + (isWaiting ? 0 : 1);
    const units = Math.min(tenant.backlogUnits, (user?.backlogUnits ?? 0) * usersWaiting);
    if (units === 0) return 0;
    let weights = 0;
    for (const { weight } of this.#tree.waiting()) weights += weight;
    const permits = (this.#limit * work.weight) / weights;
    return this.#rate.timeForMs(units, (permits * saneWeight(ticket.weight)) / work.weightWaiting);
  }

  snapshot(): PoolSnapshot {
    return {
      poolId: this.#parts.poolId,
      capacity: this.#capacity,
      permits: this.#limit,
      elsewhere: this.#share?.elsewhere,
      inFlight: this.#tree.running,
      queued: this.#tree.queued,
      tenants: this.#tree.tenants(),
    };
  }

  /** Whoever is told of a grant may end another request at once: that one's permit is given away by the loop that runs already. */
  #dispatch(nowMs: number): void {
    if (this.#isDispatching) return;
    this.#isDispatching = true;
    try {
      this.#parts.expire(nowMs);
      while (this.#tree.running < this.#limit && this.#grantNext(nowMs)) {}
      this.#observe(nowMs);
    } finally {
      this.#isDispatching = false;
    }
  }

  #observe(nowMs: number): void {
    this.#rate.observe(nowMs, { isSaturated: this.#tree.queued > 0, capacity: this.#limit, running: this.#tree.running });
  }

  /** False: whoever waits must wait on. */
  #grantNext(nowMs: number): boolean {
    const work = this.#nextClass();
    const request = work === undefined ? undefined : this.#tree.startNext(work, nowMs);
    if (request === undefined) return false;
    request.waiter?.granted(request);
    return true;
  }

  #nextClass(): ClassFlow<FairRequest> | undefined {
    const { firstClass } = this.#tree;
    if (firstClass === undefined || this.#hasRoom(firstClass)) return firstClass;
    return this.#tree.waiting().find((work) => this.#hasRoom(work));
  }

  #hasRoom(work: ClassFlow<FairRequest>): boolean {
    const elsewhere = work.key === 'batch' ? this.#batchElsewhere : 0;
    return work.inFlight < work.permitsMax(this.#capacity) && work.inFlight + elsewhere < work.permitsMax(this.#ofAll);
  }
}
