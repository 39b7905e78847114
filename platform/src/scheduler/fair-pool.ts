import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import type { PoolSnapshot, Ticket } from './fair-queue.ts';
import { FairRequest, type RequestOwner } from './fair-request.ts';
import type { QueueWatcher } from './fairness-record.ts';
import { ClassFlow, type TenantFlow } from './flow.ts';
import { FlowLevel } from './flow-level.ts';
import { type ActualTokens, type CostRule, costSoFar, finalCost, saneWeight, unitsOf, unitsPerCost } from './service-cost.ts';
import { ServiceRate } from './service-rate.ts';
import type { WaitingLine } from './waiting-line.ts';

export interface PoolParts {
  readonly poolId: string;
  readonly clock: Clock;
  readonly rule: CostRule;
  readonly line: WaitingLine;
  /** Refuses what is due. Called before permits are given away, so that nothing starts after its deadline. */
  readonly expire: (nowMs: number) => void;
  readonly watcher: QueueWatcher;
}

const classesMax = 2;

/** Permits of one pool and who gets the next: the class with the least virtual time, its tenant, that tenant's user, that user's oldest request. */
export class FairPool implements RequestOwner {
  readonly #classes = new FlowLevel((workClass: WorkClass) => new ClassFlow<FairRequest>(workClass), classesMax);
  readonly #parts: PoolParts;
  readonly #rate = new ServiceRate();
  #capacity = 0;
  #resumesAtMs = 0;
  #running = 0;
  #queued = 0;
  #isDispatching = false;

  constructor(parts: PoolParts) {
    this.#parts = parts;
  }

  setCapacity(permits: number, resumesInMs = 0): void {
    assert(Number.isInteger(permits) && permits >= 0, 'a capacity is a whole number of permits');
    this.#capacity = permits;
    this.#resumesAtMs = this.#parts.clock.monotonicMs() + resumesInMs;
    this.#dispatch();
  }

  /** Milliseconds until a pool without permits has some again, as far as is known; 0 for one that has. */
  standsStillMs(): number {
    return this.#capacity > 0 ? 0 : Math.max(1, this.#resumesAtMs - this.#parts.clock.monotonicMs());
  }

  /** A permit is free for this class. Then nobody of it waits, for permits are given away as they come free. */
  isFree(workClass: WorkClass): boolean {
    if (this.#running >= this.#capacity) return false;
    const work = this.#classes.find(workClass);
    return work === undefined || (work.queued === 0 && work.inFlight < work.permitsMax(this.#capacity));
  }

  /** The flow of the ticket's tenant in its class; undefined when it has nothing here. */
  tenantOf({ workClass, tenantId }: Ticket): TenantFlow<FairRequest> | undefined {
    return this.#classes.find(workClass)?.tenants.find(tenantId);
  }

  /** A request that runs at once when a permit is free and nobody waits, else waits. The bounds are the caller's to check. */
  submit(ticket: Ticket, nowMs: number): FairRequest {
    const isFree = this.isFree(ticket.workClass);
    const work = this.#classes.obtain(ticket.workClass);
    const tenant = work.tenants.obtain(ticket.tenantId);
    const user = tenant.users.obtain(ticket.user);
    const expectedUnits = unitsOf(finalCost(this.#parts.rule, { ...ticket, outputTokens: ticket.predictedOutputTokens }), 1);
    const request = new FairRequest(ticket, { owner: this, work, tenant, user, arrivedAtMs: nowMs, expectedUnits });
    weigh(work, tenant, request.weight);
    if (isFree) {
      this.#classes.lift(work);
      work.tenants.lift(tenant);
      tenant.users.lift(user);
      this.#start(request, nowMs);
    } else {
      this.#enqueue(request);
      this.#observe(nowMs);
    }
    return request;
  }

  withdraw(request: FairRequest): void {
    if (request.mode !== 'waiting') return;
    request.mode = 'ended';
    this.#leaveQueue(request);
    if (request.user.queued === 0) request.tenant.users.waiting.remove(request.user);
    if (request.tenant.queued === 0) stopWaiting(request.work, request.tenant);
    if (request.work.queued === 0) this.#classes.waiting.remove(request.work);
    this.#forget(request);
  }

  reportOutput(request: FairRequest): void {
    this.#chargeTo(request, costSoFar(this.#parts.rule, request.ticket, request.outputTokens));
  }

  /** A running request goes back to where it was before it started: its charge is undone, its flows keep their tags, its user's later requests stay behind it. */
  requeue(request: FairRequest): void {
    const { work, tenant, user } = request;
    this.#chargeTo(request, 0);
    this.#running--;
    work.inFlight--;
    tenant.inFlight--;
    user.inFlight--;
    request.waitAgain();
    this.#enqueue(request, 'again');
    this.#dispatch();
  }

  end(request: FairRequest, actual: ActualTokens | undefined): void {
    this.#chargeTo(request, actual === undefined ? 0 : finalCost(this.#parts.rule, actual));
    this.#running--;
    this.#rate.countEnd(request.expectedUnits);
    request.work.inFlight--;
    request.tenant.inFlight--;
    request.user.inFlight--;
    this.#forget(request);
    this.#dispatch();
  }

  /** Milliseconds until a new request of this user would start; undefined while the pool's speed is unknown. Fair shares make it an upper estimate. */
  estimatedWaitMs(ticket: Ticket): number | undefined {
    const work = this.#classes.find(ticket.workClass);
    const tenant = this.tenantOf(ticket);
    if (work === undefined || tenant === undefined || tenant.queued === 0) return 0;
    const user = tenant.users.find(ticket.user);
    const isWaiting = user !== undefined && user.queued > 0;
    const usersWaiting = tenant.users.waiting.size + (isWaiting ? 0 : 1);
    const units = Math.min(tenant.backlogUnits, (user?.backlogUnits ?? 0) * usersWaiting);
    const classShare = work.weight / this.#classes.waiting.members().reduce((sum, { weight }) => sum + weight, 0);
    return this.#rate.timeForMs(units, (this.#capacity * classShare * saneWeight(ticket.weight)) / work.weightWaiting);
  }

  snapshot(): PoolSnapshot {
    return {
      poolId: this.#parts.poolId,
      capacity: this.#capacity,
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
  #dispatch(): void {
    if (this.#isDispatching) return;
    this.#isDispatching = true;
    const nowMs = this.#parts.clock.monotonicMs();
    try {
      this.#parts.expire(nowMs);
      while (this.#running < this.#capacity && this.#grantNext(nowMs)) {}
      this.#observe(nowMs);
    } finally {
      this.#isDispatching = false;
    }
  }

  #observe(nowMs: number): void {
    this.#rate.observe(nowMs, { isSaturated: this.#queued > 0, capacity: this.#capacity, running: this.#running });
  }

  /** False: whoever waits must wait on. */
  #grantNext(nowMs: number): boolean {
    const request = this.#nextClass()?.tenants.waiting.first?.users.waiting.first?.oldest;
    if (request === undefined) return false;
    this.#leaveQueue(request);
    this.#start(request, nowMs);
    request.waiter?.granted(request);
    return true;
  }

  #nextClass(): ClassFlow<FairRequest> | undefined {
    const { first } = this.#classes.waiting;
    if (first === undefined || first.inFlight < first.permitsMax(this.#capacity)) return first;
    return this.#classes.waiting.members().find((work) => work.inFlight < work.permitsMax(this.#capacity));
  }

  #start(request: FairRequest, nowMs: number): void {
    const { work, tenant, user, ticket } = request;
    const cost = costSoFar(this.#parts.rule, ticket, 0);
    request.start(nowMs);
    this.#parts.watcher.started(ticket, request.queueMs);
    this.#parts.watcher.charged(ticket, unitsOf(cost, 1));
    request.workUnits = unitsOf(cost, work.weight);
    request.tenantUnits = unitsOf(cost, request.weight);
    request.userUnits = unitsOf(cost, 1);
    this.#running++;
    work.inFlight++;
    tenant.inFlight++;
    user.inFlight++;
    if (tenant.heapIndex >= 0 && tenant.queued === 0) work.weightWaiting -= tenant.weight;
    this.#classes.dispatch(work, request.workUnits);
    work.tenants.dispatch(tenant, request.tenantUnits);
    tenant.users.dispatch(user, request.userUnits);
  }

  #enqueue(request: FairRequest, time: 'first' | 'again' = 'first'): void {
    const { work, tenant, user } = request;
    if (time === 'again') user.insert(request);
    else user.append(request);
    work.queued++;
    tenant.queued++;
    tenant.backlogUnits += request.expectedUnits;
    this.#queued++;
    this.#parts.line.add(request);
    if (user.heapIndex < 0) tenant.users.startWaiting(user, time);
    if (work.heapIndex < 0) this.#classes.startWaiting(work, time);
    if (tenant.heapIndex >= 0) return;
    work.tenants.startWaiting(tenant, time);
    work.weightWaiting += tenant.weight;
  }

  #leaveQueue(request: FairRequest): void {
    request.user.remove(request);
    request.work.queued--;
    request.tenant.queued--;
    request.tenant.backlogUnits -= request.expectedUnits;
    this.#queued--;
    this.#parts.line.remove(request);
  }

  /** Brings what each level has been charged to `cost`. Differences of whole units: the sum does not depend on how often this is called. */
  #chargeTo(request: FairRequest, cost: number): void {
    const { work, tenant, user } = request;
    const workUnits = unitsOf(cost, work.weight);
    const tenantUnits = unitsOf(cost, request.weight);
    const userUnits = unitsOf(cost, 1);
    this.#parts.watcher.charged(request.ticket, userUnits - request.userUnits);
    this.#classes.charge(work, workUnits - request.workUnits, 2 * request.workUnits);
    work.tenants.charge(tenant, tenantUnits - request.tenantUnits, 2 * request.tenantUnits);
    tenant.users.charge(user, userUnits - request.userUnits, 2 * request.userUnits);
    request.workUnits = workUnits;
    request.tenantUnits = tenantUnits;
    request.userUnits = userUnits;
  }

  #forget(request: FairRequest): void {
    const { work, tenant, user } = request;
    if (this.#queued === 0 && this.#running === 0) {
      this.#classes.reset();
      return;
    }
    tenant.users.forgetIfIdle(user);
    if (tenant.queued === 0 && tenant.inFlight === 0) tenant.users.reset();
    work.tenants.forgetIfIdle(tenant);
    if (work.queued === 0 && work.inFlight === 0) work.tenants.reset();
    this.#classes.forgetIfIdle(work);
  }
}

function weigh(work: ClassFlow<FairRequest>, tenant: TenantFlow<FairRequest>, weight: number): void {
  if (tenant.heapIndex >= 0) work.weightWaiting += weight - tenant.weight;
  tenant.weight = weight;
}

function stopWaiting(work: ClassFlow<FairRequest>, tenant: TenantFlow<FairRequest>): void {
  work.tenants.waiting.remove(tenant);
  work.weightWaiting -= tenant.weight;
}
