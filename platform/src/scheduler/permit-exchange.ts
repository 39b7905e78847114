/**
 * Port: the store in which replicas share the permits and the virtual times of pools. One call says how a replica stands, and hears how all stand; permits move, decisions
 * do not: who of its own requests goes next is each replica's to say.
 *
 * What a replica says is how things are, never what has changed, so a lost call or answer leaves nothing wrong behind. Only charges are differences: a batch has a number, and
 * counts once however often it is said. What a replica is granted is one growing number, heard by an answer or by a message, whichever is first.
 */
import type { WorkClass } from '../primitives/work-class.ts';
import type { Elsewhere, PoolHead, SharedLevel } from './pool-share.ts';

/** Milliseconds of the store's clock. */
export const permitTimes = {
  /** Permits of a replica that says nothing come back after this. */
  leaseMs: 5_000,
  /** Its waiting requests are passed over after this: while it waits it speaks ten times a second, and one that is dead must not draw all permits to itself. */
  waitingMs: 500,
  /** What it was granted and has not confirmed is taken back after this. */
  placeholderMs: 1_000,
  /** A store that knows nothing gives a replica no more than its part for this long: others may hold permits it has forgotten. */
  learningMs: 3_000,
};
/** Waiting tenants of a class that one call tells of. */
export const headsMax = 16;
export const chargesMax = 256;

export interface PoolCharge {
  readonly level: SharedLevel;
  readonly key: string;
  /** It began to wait or run: unless it waits elsewhere, what it had not used until then is gone. */
  readonly hasBegun: boolean;
  /** Units of this charge before its latest request started; undefined when none did. */
  readonly startedAfter: number | undefined;
  readonly units: number;
  /** A negative sum leads at most this far below the level's time. */
  readonly creditMax: number;
}

export interface PoolStatement {
  readonly poolId: string;
  /** Permits of the whole pool. It counts where the store knows none, or where it is new. */
  readonly capacity: number;
  readonly isCapacityNew: boolean;
  /** Of the capacity, for batch work. */
  readonly batchMax: number;
  /** This replica's part of the capacity. */
  readonly part: number;
  /** Permits it has: those in use and those it keeps for its next requests. */
  readonly held: number;
  readonly running: number;
  readonly runningBatch: number;
  /** The latest grant it has heard of. */
  readonly granted: number;
  /** Of the batch of charges: one more than the one before it. */
  readonly number: number;
  readonly charges: readonly PoolCharge[];
  readonly heads: readonly PoolHead[];
}

export interface PoolAnswer {
  /** Changes when the store has lost its counts, or has begun them again. */
  readonly era: string;
  readonly capacity: number;
  /** Of all grants to this replica, so that each counts once. */
  readonly granted: number;
  /** Grants that were taken back before this statement confirmed them. */
  readonly lost: number;
  /** Somebody waits elsewhere, or more permits are in use than there are: what comes free here goes back. */
  readonly isWanted: boolean;
  /** Permits nobody has. */
  readonly free: number;
  /** How many unused permits each replica may keep. */
  readonly spare: number;
  readonly isLearning: boolean;
  readonly elsewhere: Elsewhere;
  readonly times: Readonly<Record<SharedLevel, number>>;
  readonly classTimes: Readonly<Record<WorkClass, number>>;
  /** As the charges of the statement are ordered, after them; then as its heads are. */
  readonly chargeTimes: readonly number[];
  readonly headTimes: readonly number[];
}

export interface PoolGrant {
  /** Of all grants to this replica. */
  readonly granted: number;
  /** The latest batch of its charges that the times include. */
  readonly number: number;
  /** Of the classes and of its tenants that waited, as they were when it was granted. */
  readonly times: readonly { readonly level: SharedLevel; readonly key: string; readonly time: number }[];
}

/** Told as it happens; a message may be lost or late. */
export interface PermitMessages {
  granted(poolId: string, grant: PoolGrant): void;
  wanted(poolId: string): void;
}

export interface PermitExchange {
  /** Rejects when the store cannot be asked; it may have heard the statement all the same. */
  exchange(statement: PoolStatement): Promise<PoolAnswer>;
  /** This replica ends: what it had comes back at once. */
  leave(poolId: string): Promise<void>;
  listen(messages: PermitMessages): void;
}
