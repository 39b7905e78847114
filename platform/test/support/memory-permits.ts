/** The pool script of `adapters/valkey/pool-script.ts` as plain code, for histories in simulated time. `contracts/permit-exchange.ts` holds both to the same answers. */
import type { WorkClass } from '../../src/primitives/work-class.ts';
import {
  type PermitExchange,
  type PermitMessages,
  type PoolAnswer,
  type PoolStatement,
  permitTimes,
} from '../../src/scheduler/permit-exchange.ts';
import type { PoolHead, SharedLevel } from '../../src/scheduler/pool-share.ts';

interface Promised extends PoolHead {
  readonly grant: number;
}

interface Replica {
  readonly name: string;
  heads: { readonly head: PoolHead; left: number }[];
  promised: Promised[];
  lease: number;
  waiting: number;
  place: number;
  held: number;
  running: number;
  batch: number;
  granted: number;
  seen: number;
  number: number;
}

interface Pool {
  era: string;
  capacity: number;
  learning: number;
  readonly times: Record<SharedLevel, number>;
  readonly flows: Map<string, number>;
  readonly replicas: Map<string, Replica>;
}

const classes = ['interactive', 'batch'] as const;

export class MemoryPermits {
  readonly #nowMs: () => number;
  #pools = new Map<string, Pool>();
  readonly #listeners = new Map<string, PermitMessages>();
  #eras = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** As one replica has it. `deliver`: how messages travel; at once where it is absent. */
  replica(name: string, deliver: (send: () => void) => void = (send) => send()): PermitExchange {
    return {
      exchange: async (statement) => this.exchange(name, statement),
      leave: async (poolId) => void this.#pools.get(poolId)?.replicas.delete(name),
      listen: (messages) =>
        this.#listeners.set(name, {
          granted: (...grant) => deliver(() => messages.granted(...grant)),
          wanted: (poolId) => deliver(() => messages.wanted(poolId)),
        }),
    };
  }

  /** A process that was killed hears nothing. */
  silence(name: string): void {
    this.#listeners.delete(name);
  }

  /** As after a restart without its data. */
  forget(): void {
    this.#pools = new Map();
  }

  /** Permits that replicas hold, or were granted and have not confirmed. */
  used(poolId: string): number {
    const replicas = this.#pools.get(poolId)?.replicas.values() ?? [];
    return [...replicas].reduce((sum, replica) => sum + permitsOf(replica), 0);
  }

  exchange(me: string, statement: PoolStatement): PoolAnswer {
    const at = this.#nowMs();
    const pool = this.#obtain(statement, at);
    if (statement.isCapacityNew) pool.capacity = statement.capacity;
    expire(pool, at);
    const wasWaiting = waitingOf(pool.replicas.get(me)) > 0;
    const lost = this.#record(pool, me, { statement, at });
    this.#charge(pool, me, statement);
    const replica = obtainReplica(pool, me, statement);
    replica.heads = statement.heads.map((head) => ({ head, left: head.queued }));
    const isLearning = at < pool.learning;
    const times = timesOf(pool, me, statement);
    const told = this.#grant(pool, me, { statement, at, isLearning });
    return { ...this.#answer(pool, me, { statement, lost, isLearning, wasWaiting, told }), ...times };
  }

  #obtain({ poolId, capacity }: PoolStatement, at: number): Pool {
    const known = this.#pools.get(poolId);
    if (known !== undefined) return known;
    const pool: Pool = {
      era: `era ${this.#eras++}`,
      capacity,
      learning: at + permitTimes.learningMs,
      times: { classes: 0, interactive: 0, batch: 0 },
      flows: new Map(),
      replicas: new Map(),
    };
    this.#pools.set(poolId, pool);
    return pool;
  }

  #record(pool: Pool, me: string, { statement, at }: { readonly statement: PoolStatement; readonly at: number }): number {
    const replica = obtainReplica(pool, me, statement);
    const lost = Math.max(0, replica.seen - statement.granted);
    replica.seen = Math.max(replica.seen, statement.granted);
    replica.granted = Math.max(replica.granted, replica.seen);
    confirm(replica);
    replica.lease = at + permitTimes.leaseMs;
    replica.waiting = at + permitTimes.waitingMs;
    replica.place = at + permitTimes.placeholderMs;
    replica.held = statement.held;
    replica.running = statement.running;
    replica.batch = statement.runningBatch;
    return lost;
  }

  #charge(pool: Pool, me: string, statement: PoolStatement): void {
    const replica = obtainReplica(pool, me, statement);
    if (statement.number > replica.number) {
      for (const { level, key, hasBegun, startedAfter, units, creditMax } of statement.charges) {
        const stored = timeOf(pool, level, key);
        const from = hasBegun && !waitsElsewhere(pool, me, { level, key }) ? Math.max(stored, pool.times[level]) : stored;
        if (startedAfter !== undefined) pool.times[level] = Math.max(pool.times[level], from + startedAfter);
        const floor = units < 0 ? Math.min(from, pool.times[level] - creditMax) : from;
        pool.flows.set(`${level}:${key}`, Math.max(from + units, floor));
      }
    }
    replica.number = Math.max(replica.number, statement.number);
    if (Math.max(...Object.values(pool.times)) <= 2 ** 50) return;
    pool.flows.clear();
    pool.era = `era ${this.#eras++}`;
    for (const level of ['classes', ...classes] as const) pool.times[level] = 0;
    for (const each of pool.replicas.values()) Object.assign(each, { heads: [], promised: [] });
  }

  #grant(
    pool: Pool,
    me: string,
    facts: { readonly statement: PoolStatement; readonly at: number; readonly isLearning: boolean },
  ): Set<Replica> {
    const told = new Set<Replica>();
    const { statement, at, isLearning } = facts;
    const replicas = sorted(pool);
    const mayHave = (each: Replica) => !isLearning || (each.name === me && permitsOf(each) < statement.part);
    const nextOf = (workClass: WorkClass) =>
      replicas
        .filter(mayHave)
        .flatMap((replica) =>
          replica.heads.filter(({ head, left }) => head.workClass === workClass && left > 0).map((place) => ({ replica, place })),
        )
        .reduce<Next | undefined>((best, each) => (best === undefined || isBefore(pool, each, best) ? each : best), undefined);
    while (freeOf(pool) > 0) {
      const batch = replicas.reduce((sum, each) => sum + each.batch, 0);
      const [first, other] = [nextOf('interactive'), batch < statement.batchMax ? nextOf('batch') : undefined];
      const isOther =
        other !== undefined && (first === undefined || tagOf(pool, 'classes', 'batch') < tagOf(pool, 'classes', 'interactive'));
      const next = isOther ? other : first;
      if (next === undefined) break;
      const { replica, place } = next;
      place.left--;
      replica.granted++;
      replica.place = at + permitTimes.placeholderMs;
      replica.promised.push({ ...place.head, grant: replica.granted });
      if (isOther) replica.batch++;
      if (replica.name !== me) told.add(replica);
    }
    return told;
  }

  #answer(
    pool: Pool,
    me: string,
    facts: {
      readonly statement: PoolStatement;
      readonly lost: number;
      readonly isLearning: boolean;
      readonly wasWaiting: boolean;
      readonly told: ReadonlySet<Replica>;
    },
  ): Omit<PoolAnswer, keyof ReturnType<typeof timesOf>> {
    const { statement, isLearning } = facts;
    const replica = obtainReplica(pool, me, statement);
    const others = sorted(pool).filter((each) => each !== replica);
    const sum = (of: (each: Replica) => number) => others.reduce((total, each) => total + of(each), 0);
    const isWaiting = waitingOf(replica) > 0;
    const waiting = sum(waitingOf);
    const unused = freeOf(pool) + sum(idleOf) + idleOf(replica);
    const spare = waiting > 0 || isWaiting || unused <= 0 ? 0 : Math.ceil(unused / (others.length + 1));
    const room = isLearning ? statement.part - permitsOf(replica) : Number.POSITIVE_INFINITY;
    if (freeOf(pool) > 0 && spare > 0) replica.granted += Math.max(0, Math.min(freeOf(pool), spare - idleOf(replica), room));
    const elsewhere = { replicas: others.length, running: sum(({ running }) => running), runningBatch: sum(({ batch }) => batch), waiting };
    const isOver = freeOf(pool) < 0;
    if ((isWaiting && (!facts.wasWaiting || sum(idleOf) > 0)) || (statement.isCapacityNew && isOver))
      this.#callBack(statement.poolId, others);
    for (const { name, granted, number, heads } of facts.told) {
      const time = (level: SharedLevel, key: string) => ({ level, key, time: tagOf(pool, level, key, name) });
      const times = [...classes.map((key) => time('classes', key)), ...heads.map(({ head }) => time(head.workClass, head.tenantId))];
      this.#listeners.get(name)?.granted(statement.poolId, { granted, number, times });
    }
    return {
      era: pool.era,
      capacity: pool.capacity,
      granted: replica.granted,
      lost: facts.lost,
      isWanted: waiting > 0 || isOver,
      free: Math.max(0, freeOf(pool)),
      spare,
      isLearning,
      elsewhere,
    };
  }

  #callBack(poolId: string, others: readonly Replica[]): void {
    for (const each of others) each.running = Math.max(each.running, permitsOf(each));
    for (const messages of this.#listeners.values()) messages.wanted(poolId);
  }
}

function expire(pool: Pool, at: number): void {
  for (const [name, replica] of pool.replicas) {
    if (replica.lease <= at) pool.replicas.delete(name);
    if (replica.waiting <= at) replica.heads = [];
    if (replica.place > at) continue;
    replica.seen = replica.granted;
    confirm(replica);
  }
}

function obtainReplica(pool: Pool, name: string, { granted }: PoolStatement): Replica {
  const known = pool.replicas.get(name);
  if (known !== undefined) return known;
  const never = { lease: 0, waiting: 0, place: 0, held: 0, running: 0, batch: 0 };
  const replica: Replica = { name, heads: [], promised: [], ...never, granted, seen: granted, number: 0 };
  pool.replicas.set(name, replica);
  return replica;
}

function confirm(replica: Replica): void {
  replica.promised = replica.promised.filter(({ grant }) => grant > replica.seen);
}

function waitsElsewhere(pool: Pool, me: string, { level, key }: { readonly level: SharedLevel; readonly key: string }): boolean {
  const others = [...pool.replicas.values()].filter(({ name }) => name !== me);
  const waiting = others.flatMap(({ heads }) => heads.filter(({ left }) => left > 0));
  return waiting.some(({ head }) => (level === 'classes' ? head.workClass === key : head.workClass === level && head.tenantId === key));
}

/** With what others were promised: what this replica was promised it charges itself. */
function timesOf(pool: Pool, me: string, { charges, heads }: PoolStatement) {
  const at = (level: SharedLevel, key: string) => tagOf(pool, level, key, me);
  return {
    times: { ...pool.times },
    classTimes: { interactive: at('classes', 'interactive'), batch: at('classes', 'batch') },
    chargeTimes: charges.map(({ level, key }) => at(level, key)),
    headTimes: heads.map(({ workClass, tenantId }) => at(workClass, tenantId)),
  };
}

function tagOf(pool: Pool, level: SharedLevel, key: string, but?: string): number {
  let tag = timeOf(pool, level, key);
  for (const { name, promised } of pool.replicas.values()) {
    for (const { workClass, tenantId, units, classUnits } of name === but ? [] : promised) {
      if (level === 'classes' && workClass === key) tag += classUnits;
      else if (level === workClass && tenantId === key) tag += units;
    }
  }
  return tag;
}

interface Next {
  readonly replica: Replica;
  readonly place: Replica['heads'][0];
}

function timeOf(pool: Pool, level: SharedLevel, key: string): number {
  return pool.flows.get(`${level}:${key}`) ?? pool.times[level];
}

function isBefore(pool: Pool, each: Next, best: Next): boolean {
  const [tag, bestTag] = [each, best].map(({ place: { head } }) => tagOf(pool, head.workClass, head.tenantId)) as [number, number];
  return tag < bestTag || (tag === bestTag && permitsOf(each.replica) < permitsOf(best.replica));
}

function sorted(pool: Pool): readonly Replica[] {
  return [...pool.replicas.values()].toSorted((left, right) => (left.name < right.name ? -1 : 1));
}

function permitsOf({ held, granted, seen }: Replica): number {
  return held + granted - seen;
}

function idleOf(replica: Replica): number {
  return Math.max(0, permitsOf(replica) - replica.running);
}

function freeOf(pool: Pool): number {
  return [...pool.replicas.values()].reduce((free, replica) => free - permitsOf(replica), pool.capacity);
}

function waitingOf(replica: Replica | undefined): number {
  return replica?.heads.reduce((sum, { left }) => sum + left, 0) ?? 0;
}
