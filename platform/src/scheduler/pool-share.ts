import type { TenantId } from '../primitives/ids.ts';
import type { WorkClass } from '../primitives/work-class.ts';

/** A level of flows whose virtual times replicas count together: the two classes, or the tenants of one. */
export type SharedLevel = 'classes' | WorkClass;

/** A tenant that waits here. */
export interface PoolHead {
  readonly workClass: WorkClass;
  readonly tenantId: TenantId;
  /** What its next request is charged when it starts, by its weight. */
  readonly units: number;
  /** And its class. */
  readonly classUnits: number;
  readonly queued: number;
}

/** What other replicas have in a pool, as last heard. */
export interface Elsewhere {
  readonly replicas: number;
  readonly running: number;
  readonly runningBatch: number;
  readonly waiting: number;
}

export interface FlowCharge {
  readonly level: SharedLevel;
  readonly key: string;
  readonly units: number;
  /** How far below the level's time a negative charge may lead; undefined when a request starts: then the level's time is the flow's before this charge. */
  readonly creditMax: number | undefined;
}

/** What a pool tells whoever shares its permits with other replicas, as it happens. Nothing here throws. */
export interface PoolShare {
  /** Undefined while the others cannot be heard. */
  readonly elsewhere: Elsewhere | undefined;
  capacitySet(permits: number): void;
  /** Something has begun to wait or to run, or has left. */
  changed(): void;
  /** A permit has come back and is not given away yet. */
  returned(): void;
  charged(charge: FlowCharge): void;
  /** A flow with nothing waiting here begins to wait or to run. */
  began(level: SharedLevel, key: string): void;
}

/** The pool, as whoever shares its permits sees it. */
export interface SharedFairPool {
  readonly load: { readonly running: number; readonly runningBatch: number; readonly queued: number };
  /** The tenants of each class that come next, at most `count` of a class. */
  heads(count: number): readonly PoolHead[];
  /** How many of the pool's permits may be in use here, and how many of all are in use for batch work elsewhere. */
  setPermits(permits: number, batchElsewhere: number): void;
  /** Takes a virtual time over. A flow that is not here is passed over. */
  adopt(level: SharedLevel, key: string, virtualTime: number): void;
  /** The level's own time; it does not fall. */
  adoptTime(level: SharedLevel, virtualTime: number): void;
  /** Nothing that was counted holds any more: all that wait start equal at these times. */
  startEqual(times: Readonly<Record<SharedLevel, number>>): void;
}
