import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { PoolSnapshot, Ticket } from './fair-queue.ts';
import { FairRequest, type RequestOwner } from './fair-request.ts';
import { TenantFlow } from './flow.ts';
import { FlowLevel } from './flow-level.ts';
import { type ActualTokens, type CostRule, costSoFar, finalCost, saneWeight, unitsOf } from './service-cost.ts';
import { ServiceRate } from './service-rate.ts';
import type { WaitingLine } from './waiting-line.ts';

export interface PoolParts {
  readonly poolId: string;
  readonly clock: Clock;
  readonly rule: CostRule;
  readonly line: WaitingLine;
  /** Refuses what is due. Called before permits are given away, so that nothing starts after its deadline. */
  readonly expire: (nowMs: number) => void;
}

/** Tenants that owe and have nothing here; a tenant waits or runs within the queue's bounds. */
const tenantDebtorsMax = 10_000;

/** Permits of one pool and who gets the next: the tenant with the least virtual time, its user with the least, that user's oldest request. */
export class FairPool implements RequestOwner {
  readonly tenants = new FlowLevel((tenant: TenantId) => new TenantFlow<FairRequest>(tenant), tenantDebtorsMax);
  readonly #parts: PoolParts;
  readonly #rate = new ServiceRate();
  #capacity = 0;
  #running = 0;
  #queued = 0;
  #weightWaiting = 0;
  #isDispatching = false;

  constructor(parts: PoolParts) {
    this.#parts = parts;
  }

  setCapacity(permits: number): void {
    assert(Number.isInteger(permits) && permits >= 0, 'a capacity is a whole number of permits');
    this.#capacity = permits;
    this.#dispatch();
  }

  /** A permit is free and nobody waits. */
  isFree(): boolean {
    return this.#queued === 0 && this.#running < this.#capacity;
  }

  /** A request that runs at once when a permit is free and nobody waits, else waits. The bounds are the caller's to check. */
  submit(ticket: Ticket, nowMs: number): FairRequest {
    const tenant = this.tenants.obtain(ticket.tenantId);
    const user = tenant.users.obtain(ticket.user);
    const expectedUnits = unitsOf(finalCost(this.#parts.rule, { ...ticket, outputTokens: ticket.predictedOutputTokens }), 1);
    const request = new FairRequest(ticket, { owner: this, tenant, user, arrivedAtMs: nowMs, expectedUnits });
    this.#weigh(tenant, request.weight);
    if (this.isFree()) {
      this.tenants.lift(tenant);
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
    if (request.tenant.queued === 0) this.#stopWaiting(request.tenant);
    this.#forget(request);
  }

  reportOutput(request: FairRequest): void {
    this.#chargeTo(request, costSoFar(this.#parts.rule, request.ticket, request.outputTokens));
  }

  end(request: FairRequest, actual: ActualTokens | undefined): void {
    this.#chargeTo(request, actual === undefined ? 0 : finalCost(this.#parts.rule, actual));
    this.#running--;
    this.#rate.countEnd(request.expectedUnits);
    request.tenant.inFlight--;
    request.user.inFlight--;
    this.#forget(request);
    this.#dispatch();
  }

  /** Milliseconds until a new request of this user would start; undefined while the pool's speed is unknown. Fair shares make it an upper estimate. */
  estimatedWaitMs(ticket: Ticket): number | undefined {
    const tenant = this.tenants.find(ticket.tenantId);
    if (tenant === undefined || tenant.queued === 0) return 0;
    const user = tenant.users.find(ticket.user);
    const isWaiting = user !== undefined && user.queued > 0;
    const usersWaiting = tenant.users.waiting.size + (isWaiting ? 0 : 1);
    const units = Math.min(tenant.backlogUnits, (user?.backlogUnits ?? 0) * usersWaiting);
    return this.#rate.timeForMs(units, (this.#capacity * saneWeight(ticket.weight)) / this.#weightWaiting);
  }

  snapshot(): PoolSnapshot {
    return {
      poolId: this.#parts.poolId,
      capacity: this.#capacity,
      inFlight: this.#running,
      queued: this.#queued,
      tenants: Array.from(this.tenants.flows(), ({ key, queued, inFlight, weight, virtualTime }) => {
        return { tenantId: key, queued, inFlight, weight, virtualTime };
      }),
    };
  }

  /** Whoever is told of a grant may end another request at once: that one's permit is given away by the loop that runs already. */
  #dispatch(): void {
    if (this.#isDispatching) return;
    this.#isDispatching = true;
    const nowMs = this.#parts.clock.monotonicMs();
    try {
      this.#parts.expire(nowMs);
      while (this.#running < this.#capacity && this.#queued > 0) this.#grantNext(nowMs);
      this.#observe(nowMs);
    } finally {
      this.#isDispatching = false;
    }
  }

  #observe(nowMs: number): void {
    this.#rate.observe(nowMs, { isSaturated: this.#queued > 0, capacity: this.#capacity, running: this.#running });
  }

  #grantNext(nowMs: number): void {
    const request = this.tenants.waiting.first?.users.waiting.first?.oldest;
    assert(request !== undefined, 'a waiting tenant has a waiting user with a request');
    this.#leaveQueue(request);
    this.#start(request, nowMs);
    request.waiter?.granted(request);
  }

  #start(request: FairRequest, nowMs: number): void {
    const { tenant, user, ticket } = request;
    const cost = costSoFar(this.#parts.rule, ticket, 0);
    request.start(nowMs);
    request.tenantUnits = unitsOf(cost, request.weight);
    request.userUnits = unitsOf(cost, 1);
    this.#running++;
    tenant.inFlight++;
    user.inFlight++;
    if (tenant.heapIndex >= 0 && tenant.queued === 0) this.#weightWaiting -= tenant.weight;
    this.tenants.dispatch(tenant, request.tenantUnits);
    tenant.users.dispatch(user, request.userUnits);
  }

  #weigh(tenant: TenantFlow<FairRequest>, weight: number): void {
    if (tenant.heapIndex >= 0) this.#weightWaiting += weight - tenant.weight;
    tenant.weight = weight;
  }

  #enqueue(request: FairRequest): void {
    const { tenant, user } = request;
    user.append(request);
    tenant.queued++;
    tenant.backlogUnits += request.expectedUnits;
    this.#queued++;
    this.#parts.line.add(request);
    if (user.heapIndex < 0) tenant.users.startWaiting(user);
    if (tenant.heapIndex >= 0) return;
    this.tenants.startWaiting(tenant);
    this.#weightWaiting += tenant.weight;
  }

  #leaveQueue(request: FairRequest): void {
    request.user.remove(request);
    request.tenant.queued--;
    request.tenant.backlogUnits -= request.expectedUnits;
    this.#queued--;
    this.#parts.line.remove(request);
  }

  #stopWaiting(tenant: TenantFlow<FairRequest>): void {
    this.tenants.waiting.remove(tenant);
    this.#weightWaiting -= tenant.weight;
  }

  /** Brings what both levels have been charged to `cost`. Differences of whole units: the sum does not depend on how often this is called. */
  #chargeTo(request: FairRequest, cost: number): void {
    const { tenant, user } = request;
    const tenantUnits = unitsOf(cost, request.weight);
    const userUnits = unitsOf(cost, 1);
    this.tenants.charge(tenant, tenantUnits - request.tenantUnits, 2 * request.tenantUnits);
    tenant.users.charge(user, userUnits - request.userUnits, 2 * request.userUnits);
    request.tenantUnits = tenantUnits;
    request.userUnits = userUnits;
  }

  #forget(request: FairRequest): void {
    const { tenant, user } = request;
    if (this.#queued === 0 && this.#running === 0) {
      this.tenants.reset();
      return;
    }
    tenant.users.forgetIfIdle(user);
    if (tenant.queued === 0 && tenant.inFlight === 0) tenant.users.reset();
    this.tenants.forgetIfIdle(tenant);
  }
}
