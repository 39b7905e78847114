/**
 * The levels of one pool: where each request stands, what each level is charged for it, and whose turn is next. Classes, their tenants, their users, their sessions, the requests of
 * one in order of arrival. Knows nothing of permits.
 */
import type { TenantId } from '../primitives/ids.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import type { PoolSnapshot, Ticket } from './fair-queue.ts';
import { FairRequest, type RequestOwner } from './fair-request.ts';
import type { QueueWatcher } from './fairness-record.ts';
import { ClassFlow, type SessionFlow, type TenantFlow, type UserFlow } from './flow.ts';
import { type Flow, FlowLevel } from './flow-level.ts';
import { countShared, sessionPlaceOf, sharedSessionPlace, userPlaceOf } from './flow-places.ts';
import type { Interactions } from './interactions.ts';
import type { FlowCharge, PoolHead, SharedLevel } from './pool-share.ts';
import { type CostRule, costSoFar, unitsOf, unitsPerCost } from './service-cost.ts';
import type { WaitingLine } from './waiting-line.ts';

export interface TreeParts {
  readonly poolId: string;
  readonly rule: CostRule;
  readonly line: WaitingLine;
  readonly interactions: Interactions;
  readonly watcher: QueueWatcher;
  /** Told of every charge of the levels that replicas count together; absent: there are no others. */
  readonly charged?: ((charge: FlowCharge) => void) | undefined;
}

const classesMax = 2;
/** What a session has had beyond the others of its user halves in this time without a call. */
const debtHalfLifeMs = 60_000;
/** A session in the middle of an interaction waits ahead by so many of the charges its next request is expected to make. */
const aheadCharges = 2;

export class FlowTree {
  readonly #classes = new FlowLevel((workClass: WorkClass) => this.#openClass(workClass), classesMax);
  readonly #parts: TreeParts;
  #running = 0;
  #queued = 0;

  constructor(parts: TreeParts) {
    this.#parts = parts;
  }

  get running(): number {
    return this.#running;
  }

  get queued(): number {
    return this.#queued;
  }

  find(workClass: WorkClass): ClassFlow<FairRequest> | undefined {
    return this.#classes.find(workClass);
  }

  /** Classes with something waiting, in no particular order. */
  waiting(): readonly ClassFlow<FairRequest>[] {
    return this.#classes.waiting.members();
  }

  get firstClass(): ClassFlow<FairRequest> | undefined {
    return this.#classes.waiting.first;
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

  /** A new request in its place, neither waiting nor running yet. */
  open(ticket: Ticket, owner: RequestOwner, nowMs: number): FairRequest {
    const work = this.#classes.obtain(ticket.workClass);
    const tenant = work.tenants.obtain(ticket.tenantId);
    const user = tenant.users.obtain(userPlaceOf(tenant, ticket.user));
    const session = user.sessions.obtain(sessionPlaceOf(user, ticket.session));
    const request = new FairRequest(ticket, { owner, session, arrivedAtMs: nowMs });
    weigh(work, tenant, request.weight);
    return request;
  }

  /** Without having waited. */
  startAtOnce(request: FairRequest, nowMs: number): void {
    const { session } = request;
    const { user } = session;
    const { tenant } = user;
    this.#classes.lift(tenant.work);
    tenant.work.tenants.lift(tenant);
    tenant.users.lift(user);
    user.sessions.lift(session);
    this.#start(request, nowMs);
  }

  /** The next request of a class starts and is returned. */
  startNext(work: ClassFlow<FairRequest>, nowMs: number): FairRequest | undefined {
    const request = work.tenants.waiting.first?.users.waiting.first?.sessions.waiting.first?.oldest;
    if (request === undefined) return undefined;
    this.#leaveQueue(request);
    this.#start(request, nowMs);
    return request;
  }

  /** A waiting request leaves without having started. */
  withdraw(request: FairRequest): void {
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
  }

  /** A running request goes back to where it was before it started: its charge is undone, its flows keep their tags, its user's later requests stay behind it. */
  putBack(request: FairRequest): void {
    this.chargeTo(request, 0);
    this.#stopRunning(request.session);
    request.waitAgain();
    this.enqueue(request, 'again');
  }

  /** A running request has cost this much and leaves. */
  end(request: FairRequest, cost: number, nowMs: number): void {
    this.chargeTo(request, cost);
    const { session } = request;
    session.servedAtMs = nowMs;
    this.#stopRunning(session);
    this.#forget(session);
  }

  /** The tenants of each class that come next, at most `count` of a class. */
  heads(count: number): readonly PoolHead[] {
    return this.waiting().flatMap(({ key: workClass, weight, tenants }) =>
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

  tenants(): PoolSnapshot['tenants'] {
    return Array.from(this.#classes.flows()).flatMap(({ key: workClass, tenants }) =>
      Array.from(tenants.flows(), ({ key, queued, inFlight, weight, virtualTime }) => {
        const lagCost = queued === 0 ? 0 : ((tenants.virtualTime - virtualTime) * weight) / unitsPerCost;
        return { tenantId: key, workClass, queued, inFlight, weight, virtualTime, lagCost };
      }),
    );
  }

  #stopRunning(session: SessionFlow<FairRequest>): void {
    const { user } = session;
    this.#running--;
    session.inFlight--;
    user.inFlight--;
    user.tenant.inFlight--;
    user.tenant.work.inFlight--;
  }

  #openClass(workClass: WorkClass): ClassFlow<FairRequest> {
    const { watcher, poolId } = this.#parts;
    return new ClassFlow(workClass, (tenantId) => watcher.tenant(poolId, tenantId));
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
    this.#parts.charged?.({ level: 'classes', key: work.key, units: workUnits, creditMax: undefined });
    this.#parts.charged?.({ level: work.key, key: tenant.key, units: tenantUnits, creditMax: undefined });
  }

  /** `again`: it was put back. */
  enqueue(request: FairRequest, time: 'first' | 'again' = 'first'): void {
    const { session } = request;
    const { user } = session;
    const { tenant } = user;
    const { work } = tenant;
    const aheadUnits = time === 'first' && session.queued === 0 ? this.#takePlace(request) : 0;
    if (time === 'first') session.append(request);
    else session.insert(request);
    if (session.key === sharedSessionPlace && request.ticket.session !== undefined) countShared(user, request.ticket.session, 1);
    const { expectedUnits } = request;
    work.queued++;
    tenant.queued++;
    tenant.backlogUnits += expectedUnits;
    user.queued++;
    user.backlogUnits += expectedUnits;
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
    const { expectedUnits } = request;
    user.queued--;
    user.backlogUnits -= expectedUnits;
    tenant.queued--;
    tenant.backlogUnits -= expectedUnits;
    tenant.work.queued--;
    this.#queued--;
    this.#parts.line.remove(request);
  }

  /**
   * Brings what each level has been charged to `cost`. Units are whole and a cost always has the same, so differences of them are exact and their sum does not depend
   * on how often this is called.
   */
  chargeTo(request: FairRequest, cost: number): void {
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
    this.#parts.charged?.({ level: 'classes', key: work.key, ...ofWork });
    this.#parts.charged?.({ level: work.key, key: tenant.key, ...ofTenant });
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
