/**
 * One pool of slots and the flows that share it. Rules after VTC (arXiv 2401.00588) and SFQ(D): the tenant with the least virtual time goes
 * next; a dispatch is charged its input and a part (theta) of its predicted output, the rest as it streams; at the end the charge equals what was
 * really used. An idle flow banks nothing; a debt survives idling, until the whole pool has been idle.
 */
import type { TenantId } from '../primitives/ids.ts';
import type { Ticket } from './fair-queue.ts';
import { type TenantFlow as Tenant, TenantFlow, UserFlow, type Waiter } from './flow.ts';
import { FlowHeap } from './flow-heap.ts';

export interface ChargeRates {
  /** Whole charge units per token. */
  readonly input: number;
  readonly output: number;
  /** Part of the predicted output that is charged at dispatch: 0 is VTC, 1 full prediction. */
  readonly theta: number;
}

const usersPerTenantMax = 2_000;
const userBuckets = 64;
/** Weight of the newest observation in the pool's speed. */
const speedSmoothing = 0.1;

export class Pool {
  readonly id: string;
  capacity: number;
  inFlight = 0;
  queued = 0;
  readonly waitingTenants = new FlowHeap<Tenant>();
  readonly tenants = new Map<TenantId, Tenant>();
  readonly #rates: ChargeRates;
  /** Sum of the weights of the tenants that wait. */
  #waitingWeight = 0;
  #clock = 0;
  #largestCharge = 0;
  /** Work finished per millisecond and slot; 0 until something finished. */
  #workPerSlotMs = 0;

  constructor(id: string, capacity: number, rates: ChargeRates) {
    this.id = id;
    this.capacity = capacity;
    this.#rates = rates;
  }

  get hasFreeSlot(): boolean {
    return this.inFlight < this.capacity;
  }

  /** What a dispatch is charged, in whole units. */
  dispatchWork(ticket: Ticket): number {
    const { input, output, theta } = this.#rates;
    return Math.round(input * ticket.inputTokens + theta * output * ticket.predictedOutputTokens);
  }

  flowsOf(ticket: Ticket): { readonly tenant: Tenant; readonly user: UserFlow } {
    let tenant = this.tenants.get(ticket.tenantId);
    if (tenant === undefined) {
      tenant = new TenantFlow(ticket.tenantId, ticket.weight);
      this.tenants.set(ticket.tenantId, tenant);
    }
    if (tenant.weight !== ticket.weight) this.#reweigh(tenant, ticket.weight);
    const name = userName(tenant, ticket.user);
    let user = tenant.users.get(name);
    if (user === undefined) {
      user = new UserFlow(name);
      tenant.users.set(name, user);
    }
    if (tenant.isIdle) tenant.liftTo(this.#clock);
    if (user.isIdle) user.liftTo(tenant.userClock);
    this.waitingTenants.update(tenant);
    return { tenant, user };
  }

  enqueue(waiter: Waiter): void {
    const { tenant, user } = waiter;
    user.push(waiter);
    user.queued++;
    tenant.queued++;
    tenant.backlog += waiter.dispatchWork;
    this.queued++;
    tenant.waitingUsers.add(user);
    if (tenant.queued === 1) this.#waitingWeight += tenant.weight;
    this.waitingTenants.add(tenant);
  }

  /** Takes a waiter out that is not `waiting` any more. */
  leave(waiter: Waiter): void {
    const { tenant, user } = waiter;
    user.queued--;
    tenant.queued--;
    tenant.backlog -= waiter.dispatchWork;
    this.queued--;
    if (user.queued === 0) tenant.waitingUsers.remove(user);
    if (tenant.queued > 0) return;
    this.#waitingWeight -= tenant.weight;
    this.waitingTenants.remove(tenant);
  }

  /** Whose turn it is. */
  next(): Waiter | undefined {
    const tenant = this.waitingTenants.peek();
    return tenant?.waitingUsers.peek()?.shift();
  }

  /** A slot is taken. */
  dispatch(tenant: Tenant, user: UserFlow, work: number): void {
    this.#clock = Math.max(this.#clock, tenant.virtualTime());
    tenant.userClock = Math.max(tenant.userClock, user.virtualTime());
    this.inFlight++;
    tenant.inFlight++;
    user.inFlight++;
    this.charge(tenant, user, work);
  }

  /** Positive or negative; `work` is whole. */
  charge(tenant: Tenant, user: UserFlow, work: number): void {
    this.#largestCharge = Math.max(this.#largestCharge, work);
    tenant.charge(work);
    user.charge(work);
    this.waitingTenants.update(tenant);
    tenant.waitingUsers.update(user);
  }

  /** After a refund nobody may be further behind than two of the largest charges: a refund is no savings account. */
  capCredit(tenant: Tenant): void {
    tenant.liftTo(this.#clock - (2 * this.#largestCharge) / tenant.weight);
    this.waitingTenants.update(tenant);
  }

  /** A slot comes back. */
  release(tenant: Tenant, user: UserFlow): void {
    this.inFlight--;
    tenant.inFlight--;
    user.inFlight--;
    this.#forget(tenant, user);
  }

  learnSpeed(work: number, tookMs: number): void {
    if (tookMs <= 0 || work <= 0) return;
    const speed = work / tookMs;
    this.#workPerSlotMs += (this.#workPerSlotMs === 0 ? 1 : speedSmoothing) * (speed - this.#workPerSlotMs);
  }

  /** How long a new request of this tenant would wait for its share of the pool; 0 while nobody knows. */
  estimatedWaitMs(tenant: Tenant, work: number): number {
    if (this.#workPerSlotMs === 0) return 0;
    const weights = this.#waitingWeight + (tenant.queued > 0 ? 0 : tenant.weight);
    const share = (this.#workPerSlotMs * this.capacity * tenant.weight) / weights;
    return (tenant.backlog + work) / share;
  }

  #reweigh(tenant: Tenant, weight: number): void {
    if (tenant.queued > 0) this.#waitingWeight += weight - tenant.weight;
    tenant.weight = weight;
  }

  /** A flow that holds nothing and owes nothing is as good as new; once the whole pool is idle, everybody is. */
  #forget(tenant: Tenant, user: UserFlow): void {
    if (user.isIdle && user.virtualTime() <= tenant.userClock) tenant.users.delete(user.name);
    if (tenant.isIdle && tenant.virtualTime() <= this.#clock) this.tenants.delete(tenant.tenantId);
    if (this.inFlight > 0 || this.queued > 0) return;
    this.tenants.clear();
    this.#clock = 0;
  }
}

/** Beyond a number of users a tenant's further ones share buckets: minting names gains nothing and costs no memory. */
function userName(tenant: Tenant, user: string): string {
  if (tenant.users.size < usersPerTenantMax || tenant.users.has(user)) return user;
  let hash = 0;
  for (let index = 0; index < user.length; index++) hash = (Math.imul(hash, 31) + user.charCodeAt(index)) | 0;
  return `#${(hash >>> 0) % userBuckets}`;
}
