import type { TenantId } from '../primitives/ids.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import { type Flow, FlowLevel } from './flow-level.ts';

/** A request as its flow links it. */
export interface Linked<Request> {
  before: Request | undefined;
  behind: Request | undefined;
  /** Cost we expect of it, in units at weight 1. */
  readonly expectedUnits: number;
  readonly arrivedAtMs: number;
}

/** Third level. Its requests wait in order of arrival, linked through themselves: one that leaves from the middle costs O(1). */
export class UserFlow<Request extends Linked<Request>> implements Flow {
  readonly key: string;
  virtualTime = 0;
  turn = 0;
  heapIndex = -1;
  queued = 0;
  inFlight = 0;
  backlogUnits = 0;
  oldest: Request | undefined = undefined;
  newest: Request | undefined = undefined;

  constructor(key: string) {
    this.key = key;
  }

  append(request: Request): void {
    request.before = this.newest;
    if (this.newest === undefined) this.oldest = request;
    else this.newest.behind = request;
    this.newest = request;
    this.queued++;
    this.backlogUnits += request.expectedUnits;
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
    this.backlogUnits += request.expectedUnits;
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
    this.backlogUnits -= request.expectedUnits;
  }
}

/** Users of one tenant that owe and have nothing here. Those that wait or run are bounded by the tenant's queue and the pool's permits. */
const userDebtorsMax = 256;

/** Second level. Shares are computed over tenants first, so a tenant that invents users gains nothing by it. */
export class TenantFlow<Request extends Linked<Request>> implements Flow<TenantId> {
  readonly key: TenantId;
  virtualTime = 0;
  turn = 0;
  heapIndex = -1;
  queued = 0;
  inFlight = 0;
  backlogUnits = 0;
  queuedBytes = 0;
  /** Of the latest request, for estimates; each request is charged by the weight it came with. */
  weight = 1;
  /** Written by `BacklogRanking` alone. */
  backlogRank = -1;
  readonly users = new FlowLevel((user: string) => new UserFlow<Request>(user), userDebtorsMax);

  constructor(key: TenantId) {
    this.key = key;
  }
}

/** Tenants that owe and have nothing here; a tenant waits or runs within the queue's bounds. */
const tenantDebtorsMax = 10_000;

/** First level. Interactive work gets nine tenths of a saturated pool; what it does not use is batch work's, but for the last permits. */
export class ClassFlow<Request extends Linked<Request>> implements Flow<WorkClass> {
  readonly key: WorkClass;
  readonly weight: number;
  virtualTime = 0;
  turn = 0;
  heapIndex = -1;
  queued = 0;
  inFlight = 0;
  /** Of its tenants that wait. */
  weightWaiting = 0;
  readonly tenants = new FlowLevel((tenant: TenantId) => new TenantFlow<Request>(tenant), tenantDebtorsMax);

  constructor(key: WorkClass) {
    this.key = key;
    this.weight = key === 'interactive' ? 9 : 1;
  }

  /** How many of a pool's permits it may hold. The rest of a pool is free when an interactive request comes, whatever batch work there is. */
  permitsMax(capacity: number): number {
    return this.key === 'interactive' ? capacity : Math.min(capacity, Math.max(1, Math.floor(capacity * 0.85)));
  }
}
