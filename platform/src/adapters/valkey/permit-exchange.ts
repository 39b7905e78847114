/**
 * Permits and virtual times of pools, shared in Valkey: one script a call in the slot of one pool. Grants to other replicas are published to each of them; a message that is lost
 * is made up for by the next call.
 */
import {
  type PermitExchange,
  type PermitMessages,
  type PoolAnswer,
  type PoolGrant,
  type PoolStatement,
  permitTimes,
} from '../../scheduler/permit-exchange.ts';
import type { SharedLevel } from '../../scheduler/pool-share.ts';
import { poolScript } from './pool-script.ts';
import { Script, type ValkeyConnection } from './valkey-connection.ts';

export interface ValkeyPermitExchangeParts {
  readonly connection: ValkeyConnection;
  /** Of this replica, as `ReplicaPresence` has it. */
  readonly replicaId: string;
  /** Apart from others on the same server. */
  readonly prefix?: string;
  /** Tests move time by hand; absent: the server's. Milliseconds. */
  readonly nowMs?: () => number;
}

const script = new Script(poolScript);
/** As the script counts levels. */
const numberOf: Readonly<Record<SharedLevel, number>> = { classes: 1, interactive: 2, batch: 3 };
/** Of the values behind the keys. Another one is another place: processes of two versions never read what the other wrote. */
const format = 2;

export class ValkeyPermitExchange implements PermitExchange {
  readonly #parts: ValkeyPermitExchangeParts;
  readonly #prefix: string;

  constructor(parts: ValkeyPermitExchangeParts) {
    this.#parts = parts;
    this.#prefix = parts.prefix ?? 'bulkhead';
  }

  async exchange(statement: PoolStatement): Promise<PoolAnswer> {
    const { charges, heads, poolId } = statement;
    const { leaseMs, waitingMs, placeholderMs, learningMs } = permitTimes;
    const args = [this.#parts.replicaId, this.#parts.nowMs?.() ?? '', leaseMs, waitingMs, placeholderMs, learningMs];
    args.push(statement.capacity, statement.isCapacityNew ? 1 : 0, statement.batchMax, statement.part);
    args.push(statement.held, statement.running, statement.runningBatch, statement.granted, statement.number);
    args.push(this.#channel, poolId, charges.length, heads.length);
    for (const { level, key, hasBegun, startedAfter, units, creditMax } of charges)
      args.push(numberOf[level], `${level}:${key}`, hasBegun ? 1 : 0, startedAfter ?? '', units, creditMax);
    for (const { workClass, tenantId, units, classUnits, queued } of heads)
      args.push(numberOf[workClass], `${workClass}:${tenantId}`, units, classUnits, queued);
    const reply = await this.#parts.connection.run<Reply>(script, this.#keys(poolId), args.map(String));
    return answerOf(reply, statement);
  }

  async leave(poolId: string): Promise<void> {
    await this.#parts.connection.send(['HDEL', this.#keys(poolId)[1], this.#parts.replicaId]);
  }

  listen(messages: PermitMessages): void {
    const { connection, replicaId } = this.#parts;
    connection.subscribe(`${this.#channel}:wanted`, (poolId) => messages.wanted(poolId));
    connection.subscribe(`${this.#channel}:granted:${replicaId}`, (message) => {
      const [granted = '', number = '', times = '', ...poolId] = message.split(';');
      messages.granted(poolId.join(';'), { granted: Number(granted), number: Number(number), times: times.split(',').map(timeOf) });
    });
  }

  get #channel(): string {
    return `${this.#prefix}:${format}:permits`;
  }

  /** One hash tag a pool, so that all of it is in one slot. */
  #keys(poolId: string): readonly [string, string, string] {
    const pool = `${this.#prefix}:${format}:{p:${poolId}}`;
    return [`${pool}:pool`, `${pool}:replicas`, `${pool}:times`];
  }
}

/** `level:key=time` */
function timeOf(text: string): PoolGrant['times'][number] {
  const [, level, key = '', time] = /^(classes|interactive|batch):([^=]*)=(.*)$/.exec(text) ?? [];
  return { level: level as SharedLevel, key, time: Number(time) };
}

/** Whole numbers, but for the first. */
type Reply = readonly [era: string, ...numbers: number[]];

function answerOf(reply: Reply, { charges, heads }: PoolStatement): PoolAnswer {
  const [era, ...numbers] = reply;
  const [capacity, granted, lost, isWanted, free, spare, isLearning, replicas, running, runningBatch, waiting, ...times] = numbers;
  const chargesAt = 5;
  const headsAt = chargesAt + charges.length;
  return {
    era,
    ...({ capacity, granted, lost, free, spare } as Pick<PoolAnswer, 'capacity' | 'granted' | 'lost' | 'free' | 'spare'>),
    isWanted: isWanted === 1,
    isLearning: isLearning === 1,
    elsewhere: { replicas, running, runningBatch, waiting } as PoolAnswer['elsewhere'],
    times: { classes: times[0], interactive: times[1], batch: times[2] } as PoolAnswer['times'],
    classTimes: { interactive: times[3], batch: times[4] } as PoolAnswer['classTimes'],
    chargeTimes: times.slice(chargesAt, headsAt),
    headTimes: times.slice(headsAt, headsAt + heads.length),
  };
}
