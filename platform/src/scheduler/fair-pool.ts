import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import type { CapacityOptions, PoolSnapshot, Ticket } from './fair-queue.ts';
import { FairRequest, type RequestOwner } from './fair-request.ts';
import type { QueueWatcher } from './fairness-record.ts';
import { ClassFlow, type SessionFlow, type TenantFlow, type UserFlow } from './flow.ts';
import { type Flow, FlowLevel } from './flow-level.ts';
import { countShared, sessionPlaceOf, sharedSessionPlace, userPlaceOf } from './flow-places.ts';
import type { Interactions } from './interactions.ts';
import type { PoolHead, PoolShare, SharedFairPool, SharedLevel } from './pool-share.ts';
import { type ActualTokens, type CostRule, costSoFar, expectedCost, finalCost, saneWeight, unitsOf, unitsPerCost } from './service-cost.ts';
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

const classesMax = 2;
/** What a session has had beyond the others of its user halves in this time without a call. */
const debtHalfLifeMs = 60_000;
/** A session in the middle of an interaction waits ahead by so many of the charges its next request is expected to make. */
const aheadCharges = 2;

/** Permits of one pool and who gets the next: the class with the least virtual time, its tenant, that tenant's user, that user's session, its oldest request. */
export class FairPool implements RequestOwner, SharedFairPool {
  readonly #classes = new FlowLevel((workClass: WorkClass) => this.#openClass(workClass), classesMax);
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
  #running = 0;
  #queued = 0;
  #isDispatching = false;

  constructor(parts: PoolParts) {
    this.#parts = parts;
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
    return { running: this.#running, runningBatch: this.#classes.find('batch')?.inFlight ?? 0, queued: this.#queued };
  }

  setPermits(permits: number, batchElsewhere: number): void {
    this.#permits = permits;
    this.#batchElsewhere = batchElsewhere;
    if (this.#queued > 0 && this.#running < this.#limit) this.#dispatch(this.#parts.clock.monotonicMs());
  }

  heads(count: number): readonly PoolHead[] {
    // A permit that is granted here could not be used.
    if (this.#running >= this.#capacity && this.#capacity < this.#ofAll) return [];
    return this.#classes.waiting.members().flatMap(({ key: workClass, weight, tenants }) =>
      tenants.waiting.leading(count).map(({ key: tenantId, queued, users }) => {
        const next = users.waiting.first?.sessions.waiting.first?.oldest;
        const cost = next === undefined ? 0 : costSoFar(this.#parts.rule, next.ticket, 0);
        return { workClass, tenantId, units: unitsOf(cost, next?.weight ?? 1), classUnits: unitsOf(cost, weight), queued };
      }),
    );
  }

  adopt(level: SharedLevel, key: string, virtualTime: number): void {
    const classes = this.#classes;
    if (level === 'classes') {
      const work = classes.find(key as WorkClass);
      if (work !== undefined) classes.adopt(work, virtualTime);
      return;
    }
    const tenants = classes.find(level)?.tenants;
    const tenant = tenants?.find(key as TenantId);
    if (tenant !== undefined) tenants?.adopt(tenant, virtualTime);
  }

  adoptTime(level: SharedLevel, virtualTime: number): void {
    if (level === 'classes') this.#classes.adoptTime(virtualTime);
    else this.#classes.find(level)?.tenants.adoptTime(virtualTime);
  }

  startEqual(times: Readonly<Record<SharedLevel, number>>): void {
    this.#classes.startEqual(times.classes);
    for (const { key, tenants } of this.#classes.flows()) tenants.startEqual(times[key]);
  }

  get #limit(): number {
    return Math.min(this.#capacity, this.#permits);
  }

  /** A permit is free for this class. Then nobody of it waits, for permits are given away as they come free. */
  isFree(workClass: WorkClass): boolean {
    if (this.#running >= this.#limit) return false;
    const work = this.#classes.find(workClass);
    return work === undefined || (work.queued === 0 && this.#hasRoom(work));
  }

  /** The flow of the ticket's tenant in its class; undefined when it has nothing here. */
  tenantOf({ workClass, tenantId }: Ticket): TenantFlow<FairRequest> | undefined {
    return this.#classes.find(workClass)?.tenants.find(tenantId);
  }

  /** A call of the session runs in this pool, or one finished a moment ago in any. */
  goesOn(ticket: Ticket, user: UserFlow<FairRequest> | undefined, nowMs: number): boolean {
    if (ticket.session === undefined) return false;
    return this.#parts.interactions.goesOn(ticket, nowMs) || (user?.sessions.find(ticket.session)?.inFlight ?? 0) > 0;
  }

  /** A request that runs at once when a permit is free and nobody waits, else waits. The bounds are the caller's to check. */
  submit(ticket: Ticket, nowMs: number): FairRequest {
    const isFree = this.isFree(ticket.workClass);
    const work = this.#classes.obtain(ticket.workClass);
    const tenant = work.tenants.obtain(ticket.tenantId);
    const user = tenant.users.obtain(userPlaceOf(tenant, ticket.user));
    const session = user.sessions.obtain(sessionPlaceOf(user, ticket.session));
    const expectedUnits = unitsOf(expectedCost(this.#parts.rule, ticket), 1);
    const request = new FairRequest(ticket, { owner: this, session, arrivedAtMs: nowMs, expectedUnits });
    weigh(work, tenant, request.weight);
    if (work.queued === 0) this.#share?.began('classes', work.key);
    if (tenant.queued === 0) this.#share?.began(work.key, tenant.key);
    if (isFree) {
      this.#classes.lift(work);
      work.tenants.lift(tenant);
      tenant.users.lift(user);
      user.sessions.lift(session);
      this.#start(request, nowMs);
    } else {
      this.#enqueue(request);
      this.#observe(nowMs);
    }
    this.#share?.changed();
    return request;
  }

  withdraw(request: FairRequest): void {
    if (request.mode !== 'waiting') return;
    request.mode = 'ended';
    this.#leaveQueue(request);
    const { session } = request;
    const { user } = session;
    const { tenant } = user;
    const { work } = tenant;
    if (session.queued === 0) stopSession(session);
    if (user.queued === 0) tenant.users.stopWaiting(user);
    if (tenant.queued === 0) stopWaiting(work, tenant);
    if (work.queued === 0) this.#classes.stopWaiting(work);
    this.#forget(session);
    this.#share?.changed();
  }

  reportOutput(request: FairRequest): void {
    this.#chargeTo(request, costSoFar(this.#parts.rule, request.ticket, request.outputTokens));
  }

  /** A running request goes back to where it was before it started: its charge is undone, its flows keep their tags, its user's later requests stay behind it. */
  requeue(request: FairRequest): void {
    this.#chargeTo(request, 0);
    this.#stopRunning(request.session);
    request.waitAgain();
    this.#enqueue(request, 'again');
    this.#share?.returned();
    this.#dispatch(this.#parts.clock.monotonicMs());
    this.#share?.changed();
  }

  end(request: FairRequest, actual: ActualTokens | undefined): void {
    const nowMs = this.#parts.clock.monotonicMs();
    this.#chargeTo(request, actual === undefined ? 0 : finalCost(this.#parts.rule, actual));
    if (actual !== undefined) this.#parts.interactions.finished(request.ticket, nowMs);
    this.#rate.countEnd(request.expectedUnits);
    const { session } = request;
    session.servedAtMs = nowMs;
    this.#stopRunning(session);
    this.#forget(session);
    this.#share?.returned();
    this.#dispatch(nowMs);
    this.#share?.changed();
  }

  #stopRunning(session: SessionFlow<FairRequest>): void {
    const { user } = session;
    this.#running--;
    session.inFlight--;
    user.inFlight--;
    user.tenant.inFlight--;
    user.tenant.work.inFlight--;
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
    for (const { weight } of this.#classes.waiting.members()) weights += weight;
    const permits = (this.#limit * work.weight) / weights;
    return this.#rate.timeForMs(units, (permits * saneWeight(ticket.weight)) / work.weightWaiting);
  }

  snapshot(): PoolSnapshot {
    return {
      poolId: this.#parts.poolId,
      capacity: this.#capacity,
      permits: this.#limit,
      elsewhere: this.#share?.elsewhere,
      inFlight: this.#running,
      queued: this.#queued,
      tenants: Array.from(this.#classes.flows()).flatMap(({ key: workClass, tenants }) =>
        Array.from(tenants.flows(), ({ key, queued, inFlight, weight, virtualTime }) => {
          const lagCost = queued === 0 ? 0 : ((tenants.virtualTime - virtualTime) * weight) / unitsPerCost;
          return { tenantId: key, workClass, queued, inFlight, weight, virtualTime, lagCost };
        }),
      ),
    };
  }

  /** Whoever is told of a grant may end another request at once: that one's permit is given away by the loop that runs already. */
  #dispatch(nowMs: number): void {
    if (this.#isDispatching) return;
    this.#isDispatching = true;
    try {
      this.#parts.expire(nowMs);
      while (this.#running < this.#limit && this.#grantNext(nowMs)) {}
      this.#observe(nowMs);
    } finally {
      this.#isDispatching = false;
    }
  }

  #openClass(workClass: WorkClass): ClassFlow<FairRequest> {
    const { watcher, poolId } = this.#parts;
    return new ClassFlow(workClass, (tenantId) => watcher.tenant(poolId, tenantId));
  }

  #observe(nowMs: number): void {
    this.#rate.observe(nowMs, { isSaturated: this.#queued > 0, capacity: this.#limit, running: this.#running });
  }

  /** False: whoever waits must wait on. */
  #grantNext(nowMs: number): boolean {
    const user = this.#nextClass()?.tenants.waiting.first?.users.waiting.first;
    const request = user?.sessions.waiting.first?.oldest;
    if (request === undefined) return false;
    this.#leaveQueue(request);
    this.#start(request, nowMs);
    request.waiter?.granted(request);
    return true;
  }

  #nextClass(): ClassFlow<FairRequest> | undefined {
    const { first } = this.#classes.waiting;
    if (first === undefined || this.#hasRoom(first)) return first;
    return this.#classes.waiting.members().find((work) => this.#hasRoom(work));
  }

  #hasRoom(work: ClassFlow<FairRequest>): boolean {
    const elsewhere = work.key === 'batch' ? this.#batchElsewhere : 0;
    return work.inFlight < work.permitsMax(this.#capacity) && work.inFlight + elsewhere < work.permitsMax(this.#ofAll);
  }

  #start(request: FairRequest, nowMs: number): void {
    const { session } = request;
    const { user } = session;
    const { tenant } = user;
    const { work } = tenant;
    const cost = costSoFar(this.#parts.rule, request.ticket, 0);
    const userUnits = unitsOf(cost, 1);
    request.start(nowMs);
    request.chargedCost = cost;
    tenant.watcher.started(request.weight, request.queueMs);
    tenant.watcher.charged(userUnits);
    this.#running++;
    work.inFlight++;
    tenant.inFlight++;
    user.inFlight++;
    session.inFlight++;
    session.joinedUnits = 0;
    if (tenant.heapIndex >= 0 && tenant.queued === 0) work.weightWaiting -= tenant.weight;
    const workUnits = unitsOf(cost, work.weight);
    const tenantUnits = unitsOf(cost, request.weight);
    this.#classes.dispatch(work, workUnits);
    work.tenants.dispatch(tenant, tenantUnits);
    tenant.users.dispatch(user, userUnits);
    user.sessions.dispatch(session, userUnits);
    this.#share?.charged({ level: 'classes', key: work.key, units: workUnits, creditMax: undefined });
    this.#share?.charged({ level: work.key, key: tenant.key, units: tenantUnits, creditMax: undefined });
  }

  #enqueue(request: FairRequest, time: 'first' | 'again' = 'first'): void {
    const { session } = request;
    const { user } = session;
    const { tenant } = user;
    const { work } = tenant;
    const aheadUnits = time === 'first' && session.queued === 0 ? this.#takePlace(request) : 0;
    if (time === 'first') session.append(request);
    else session.insert(request);
    if (session.key === sharedSessionPlace && request.ticket.session !== undefined) countShared(user, request.ticket.session, 1);
    work.queued++;
    tenant.queued++;
    tenant.backlogUnits += request.expectedUnits;
    user.queued++;
    user.backlogUnits += request.expectedUnits;
    this.#queued++;
    this.#parts.line.add(request);
    if (session.heapIndex < 0) user.sessions.startWaiting(session, time, aheadUnits);
    if (user.heapIndex < 0) tenant.users.startWaiting(user, time);
    if (work.heapIndex < 0) this.#classes.startWaiting(work, time);
    if (tenant.heapIndex >= 0) return;
    work.tenants.startWaiting(tenant, time);
    work.weightWaiting += tenant.weight;
  }

  /** A session with nothing waiting begins to wait. Returns by how many units ahead of its virtual time. */
  #takePlace({ session, ticket, arrivedAtMs, expectedUnits }: FairRequest): number {
    if (session.key === sharedSessionPlace) return 0;
    const { sessions } = session.user;
    const isRunning = session.inFlight > 0;
    const isInteracting = this.#parts.interactions.goesOn(ticket, arrivedAtMs);
    session.isGoingOn = isInteracting || isRunning;
    if (!isRunning && session.servedAtMs !== undefined) {
      sessions.decay(session, arrivedAtMs - session.servedAtMs, debtHalfLifeMs);
      session.servedAtMs = arrivedAtMs;
    }
    if (isInteracting) return aheadCharges * expectedUnits;
    if (!isRunning && session.servedAtMs === undefined) {
      session.joinedUnits = expectedUnits;
      sessions.joinFile(session, expectedUnits);
    }
    return 0;
  }

  #leaveQueue(request: FairRequest): void {
    const { session } = request;
    const { user } = session;
    const { tenant } = user;
    session.remove(request);
    if (session.key === sharedSessionPlace && request.ticket.session !== undefined) countShared(user, request.ticket.session, -1);
    user.queued--;
    user.backlogUnits -= request.expectedUnits;
    tenant.queued--;
    tenant.backlogUnits -= request.expectedUnits;
    tenant.work.queued--;
    this.#queued--;
    this.#parts.line.remove(request);
  }

  /**
   * Brings what each level has been charged to `cost`. Units are whole and a cost always has the same, so differences of them are exact and their sum does not depend
   * on how often this is called.
   */
  #chargeTo(request: FairRequest, cost: number): void {
    const { session, chargedCost, weight } = request;
    const { user } = session;
    const { tenant } = user;
    const { work } = tenant;
    const workUnits = unitsOf(chargedCost, work.weight);
    const tenantUnits = unitsOf(chargedCost, weight);
    const userUnits = unitsOf(chargedCost, 1);
    const change = unitsOf(cost, 1) - userUnits;
    const ofWork = { units: unitsOf(cost, work.weight) - workUnits, creditMax: 2 * workUnits };
    const ofTenant = { units: unitsOf(cost, weight) - tenantUnits, creditMax: 2 * tenantUnits };
    tenant.watcher.charged(change);
    this.#classes.charge(work, ofWork.units, ofWork.creditMax);
    work.tenants.charge(tenant, ofTenant.units, ofTenant.creditMax);
    this.#share?.charged({ level: 'classes', key: work.key, ...ofWork });
    this.#share?.charged({ level: work.key, key: tenant.key, ...ofTenant });
    tenant.users.charge(user, change, 2 * userUnits);
    user.sessions.charge(session, change, 2 * userUnits);
    request.chargedCost = cost;
  }

  /** What has nothing here and owes nothing needs no place. A level with nobody left to be compared with starts anew. */
  #forget(session: SessionFlow<FairRequest>): void {
    if (this.#queued === 0 && this.#running === 0) {
      this.#classes.reset();
      return;
    }
    const { user } = session;
    const { tenant } = user;
    const { work } = tenant;
    if (isIdle(user)) user.sessions.reset();
    else user.sessions.forgetIfIdle(session);
    if (isIdle(tenant)) tenant.users.reset();
    else tenant.users.forgetIfIdle(user);
    if (isIdle(work)) work.tenants.reset();
    else work.tenants.forgetIfIdle(tenant);
    this.#classes.forgetIfIdle(work);
  }
}

function isIdle({ queued, inFlight }: Flow): boolean {
  return queued === 0 && inFlight === 0;
}

function stopSession(session: SessionFlow<FairRequest>): void {
  const { sessions } = session.user;
  sessions.stopWaiting(session);
  if (session.joinedUnits > 0) sessions.leaveFile(session, session.joinedUnits);
  session.joinedUnits = 0;
}

function weigh(work: ClassFlow<FairRequest>, tenant: TenantFlow<FairRequest>, weight: number): void {
  if (tenant.heapIndex >= 0) work.weightWaiting += weight - tenant.weight;
  tenant.weight = weight;
}

function stopWaiting(work: ClassFlow<FairRequest>, tenant: TenantFlow<FairRequest>): void {
  work.tenants.stopWaiting(tenant);
  work.weightWaiting -= tenant.weight;
}
