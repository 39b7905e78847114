/** A replica's queue as `app/replicas.ts` composes it, around a real Valkey, and load for it. */
import { setTimeout as wait } from 'node:timers/promises';
import { ValkeyPermitExchange } from '../../src/adapters/valkey/permit-exchange.ts';
import { ReplicaPresence } from '../../src/adapters/valkey/replica-presence.ts';
import { ValkeyConnection } from '../../src/adapters/valkey/valkey-connection.ts';
import { type Clock, systemClock } from '../../src/primitives/clock.ts';
import { parseTenantId } from '../../src/primitives/ids.ts';
import type { Ticket } from '../../src/scheduler/fair-queue.ts';
import { permitsMaxOf } from '../../src/scheduler/flow.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import type { PoolStatement } from '../../src/scheduler/permit-exchange.ts';
import { SharedPermits } from '../../src/scheduler/shared-permits.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';

export interface SharingOptions {
  readonly url: string;
  readonly prefix: string;
  readonly id: string;
  readonly capacity: number;
  readonly clock?: Clock;
  readonly commandTimeoutMs?: number;
}

export type SharingReplica = Awaited<ReturnType<typeof openSharingReplica>>;

export async function openSharingReplica(options: SharingOptions) {
  const { url, prefix, id, capacity, clock = systemClock, commandTimeoutMs = 25 } = options;
  const connection = ValkeyConnection.open({ url, commandTimeoutMs, logger: silentLogger });
  while (!connection.isReady) await wait(5);
  const presence = new ReplicaPresence(connection, { id, prefix });
  await presence.beHere();
  const valkey = new ValkeyPermitExchange({ connection, replicaId: id, prefix });
  const counted = { calls: 0 };
  const exchange = {
    exchange: (statement: PoolStatement) => {
      counted.calls++;
      return valkey.exchange(statement);
    },
    leave: (poolId: string) => valkey.leave(poolId),
    listen: (messages: Parameters<typeof valkey.listen>[0]) => valkey.listen(messages),
  };
  const permits = new SharedPermits({
    exchange,
    clock,
    place: () => presence.place,
    batchMaxOf: (capacity) => permitsMaxOf('batch', capacity),
    logger: silentLogger,
  }).start();
  const queue = new MemoryFairQueue({
    clock,
    requestsPerTenantMax: 100_000,
    bytesMax: 1e12,
    waitMaxMs: 600_000,
    share: (poolId, pool) => permits.share(poolId, pool),
  });
  queue.setCapacity('pool', capacity);
  return {
    id,
    connection,
    presence,
    permits,
    queue,
    counted,
    get pool() {
      const [pool] = queue.snapshot();
      if (pool === undefined) throw new Error('the pool has no capacity');
      return pool;
    },
    async [Symbol.asyncDispose]() {
      queue.close();
      await permits[Symbol.asyncDispose]();
      presence[Symbol.dispose]();
      await connection[Symbol.asyncDispose]();
    },
  };
}

export interface LoadOptions {
  readonly tenant: string;
  readonly weight?: number;
  readonly depth: number;
  readonly inputTokens?: number;
  readonly outputTokens?: number;
  /** How long a request holds its permit. */
  readonly holdMs: number | (() => number);
  readonly signal: AbortSignal;
  readonly onStart?: (queueMs: number) => void;
  readonly onEnd?: () => void;
}

export function ticketFor({
  tenant,
  weight = 1,
  inputTokens = 100,
  outputTokens = 100,
}: Omit<LoadOptions, 'depth' | 'holdMs' | 'signal'>): Ticket {
  const tenantId = parseTenantId(tenant);
  if (tenantId === undefined) throw new Error(`${tenant} is no tenant id`);
  return {
    poolId: 'pool',
    tenantId,
    workClass: 'interactive',
    user: 'user',
    weight,
    inputTokens,
    predictedOutputTokens: outputTokens,
    bytes: 100,
  };
}

/** Keeps `depth` requests waiting or running until the signal; resolves when all have ended. */
export async function flood(replica: Pick<SharingReplica, 'queue'>, options: LoadOptions): Promise<void> {
  const { depth, holdMs, signal, onStart, onEnd, inputTokens = 100, outputTokens = 100 } = options;
  const one = async () => {
    while (!signal.aborted) {
      const permit = await replica.queue.acquire(ticketFor(options), signal).catch(() => undefined);
      if (permit === undefined) return;
      onStart?.(permit.queueMs);
      await wait(typeof holdMs === 'number' ? holdMs : holdMs());
      onEnd?.();
      permit.finish({ inputTokens, outputTokens });
    }
  };
  await Promise.all(Array.from({ length: depth }, one));
}
