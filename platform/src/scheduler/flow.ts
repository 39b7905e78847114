import type { TenantId } from '../primitives/ids.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import type { TenantWatcher } from './fairness-record.ts';
import { type Flow, FlowLevel } from './flow-level.ts';

/** A request as its flow links it. */
export interface Linked<Request> {
  before: Request | undefined;
  behind: Request | undefined;
  readonly arrivedAtMs: number;
}

/** Fourth level. Its requests wait in order of arrival, linked through themselves: one that leaves from the middle costs O(1). */
export class SessionFlow<Request extends Linked<Request>> implements Flow {
  readonly key: string;
  readonly user: UserFlow<Request>;
  virtualTime = 0;
  aheadUnits = 0;
  turn = 0;
  heapIndex = -1;
  queued = 0;
  inFlight = 0;
  /** Monotonic time of the latest end of a call, or since then up to which its debt has decayed; undefined for a new one. */
  servedAtMs: number | undefined = undefined;
  /** When it began to wait, a call of it ran or had finished a moment ago: it goes on with something that has begun. */
  isGoingOn = false;
  /** With how much it joined the file of new sessions; 0 once a request of it has started. */
  joinedUnits = 0;
  oldest: Request | undefined = undefined;
  newest: Request | undefined = undefined;

  constructor(key: string, user: UserFlow<Request>) {
    this.key = key;
    this.user = user;
  }

  append(request: Request): void {
    request.before = this.newest;
    if (this.newest === undefined) this.oldest = request;
    else this.newest.behind = request;
    this.newest = request;
    this.queued++;
  }

  /** In its place by arrival: before all but those that came back as it does. */
  insert(request: Request): void {
    let behind = this.oldest;
    while (behind !== undefined && behind.arrivedAtMs < request.arrivedAtMs) behind = behind.behind;
    if (behind === undefined) {
      this.append(request);
      return;
    }
    request.before = behind.before;
    request.behind = behind;
    if (behind.before === undefined) this.oldest = request;
    else behind.before.behind = request;
    behind.before = request;
    this.queued++;
  }

  remove(request: Request): void {
    const { before, behind } = request;
    if (before === undefined) this.oldest = behind;
    else before.behind = behind;
    if (behind === undefined) this.newest = before;
    else behind.before = before;
    request.before = undefined;
    request.behind = undefined;
    this.queued--;
  }
}

/** Sessions of one user that owe and have nothing here. */
const sessionDebtorsMax = 32;

/** Third level. Shares are computed over users first, so a user that invents sessions gains nothing by it. */
export class UserFlow<Request extends Linked<Request>> implements Flow {
  readonly key: string;
  readonly tenant: TenantFlow<Request>;
  virtualTime = 0;
  aheadUnits = 0;
  turn = 0;
  heapIndex = -1;
  queued = 0;
  inFlight = 0;
  backlogUnits = 0;
  readonly sessions: FlowLevel<SessionFlow<Request>>;
  /** Of sessions that found no place of their own: how many of their requests wait in the shared one. */
  sharedWaiting: Map<string, number> | undefined = undefined;

  constructor(key: string, tenant: TenantFlow<Request>) {
    this.key = key;
    this.tenant = tenant;
    this.sessions = new FlowLevel((session: string) => new SessionFlow<Request>(session, this), sessionDebtorsMax);
  }
}

/** Users of one tenant that owe and have nothing here. Those that wait or run are bounded by the tenant's queue and the pool's permits. */
const userDebtorsMax = 256;

/** Second level. Shares are computed over tenants first, so a tenant that invents users gains nothing by it. */
export class TenantFlow<Request extends Linked<Request>> implements Flow<TenantId> {
  readonly key: TenantId;
  readonly work: ClassFlow<Request>;
  virtualTime = 0;
  aheadUnits = 0;
  turn = 0;
  heapIndex = -1;
  queued = 0;
  inFlight = 0;
  backlogUnits = 0;
  queuedBytes = 0;
  /** Of the latest request, for estimates; each request is charged by the weight it came with. */
  weight = 1;
  /** Written by `BacklogRanking` alone: which one, its rank there, and the bytes per weight from which and below which it keeps it. */
  backlogIn: object | undefined = undefined;
  backlogRank = -1;
  backlogFrom = 0;
  backlogTo = Number.MIN_VALUE;
  /** Some of its users stand in places that several share. */
  hasSharedPlaces = false;
  readonly watcher: TenantWatcher;
  readonly users: FlowLevel<UserFlow<Request>>;

  constructor(key: TenantId, work: ClassFlow<Request>, watcher: TenantWatcher) {
    this.key = key;
    this.work = work;
    this.watcher = watcher;
    this.users = new FlowLevel((user: string) => new UserFlow<Request>(user, this), userDebtorsMax);
  }
}

/** Tenants that owe and have nothing here; a tenant waits or runs within the queue's bounds. */
const tenantDebtorsMax = 10_000;

/** First level. Interactive work gets nine tenths of a saturated pool; what it does not use is batch work's, but for the last permits. */
export class ClassFlow<Request extends Linked<Request>> implements Flow<WorkClass> {
  readonly key: WorkClass;
  readonly weight: number;
  virtualTime = 0;
  aheadUnits = 0;
  turn = 0;
  heapIndex = -1;
  queued = 0;
  inFlight = 0;
  /** Of its tenants that wait. */
  weightWaiting = 0;
  readonly tenants: FlowLevel<TenantFlow<Request>, TenantId>;

  constructor(key: WorkClass, watcherOf: (tenant: TenantId) => TenantWatcher) {
    this.key = key;
    this.tenants = new FlowLevel((tenant: TenantId) => new TenantFlow<Request>(tenant, this, watcherOf(tenant)), tenantDebtorsMax);
    this.weight = key === 'interactive' ? 9 : 1;
  }

  permitsMax(capacity: number): number {
    return permitsMaxOf(this.key, capacity);
  }
}

/** How many of a pool's permits a class may hold. The rest of a pool is free when an interactive request comes, whatever batch work there is. */
export function permitsMaxOf(workClass: WorkClass, capacity: number): number {
  return workClass === 'interactive' ? capacity : Math.min(capacity, Math.max(1, Math.floor(capacity * 0.85)));
}
