/** The Valkey that replicas share, and which of them this process is. Undefined without `valkey.url`: then nothing is shared and nothing runs for it. */
import { ValkeyPermitExchange } from '../adapters/valkey/permit-exchange.ts';
import { ReplicaPresence } from '../adapters/valkey/replica-presence.ts';
import { ValkeyConnection } from '../adapters/valkey/valkey-connection.ts';
import type { Config } from '../config/schema.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import { permitsMaxOf } from '../scheduler/flow.ts';
import { SharedPermits } from '../scheduler/shared-permits.ts';
import type { Logger } from '../telemetry/logger.ts';

export interface Replicas {
  readonly connection: ValkeyConnection;
  readonly presence: ReplicaPresence;
  readonly replicaId: string;
}

export interface ReplicaParts {
  readonly config: Config;
  readonly ids: IdSource;
  readonly logger: Logger;
}

/** What is opened is closed with the stack. */
export function openReplicas(stack: AsyncDisposableStack, { config, ids, logger }: ReplicaParts): Replicas | undefined {
  const { url } = config.valkey;
  if (url === undefined) return undefined;
  const connection = stack.use(ValkeyConnection.open({ url, commandTimeoutMs: config.bounds.valkeyCommandTimeoutMs, logger }));
  const replicaId = ids.next('replica_');
  const presence = stack.use(new ReplicaPresence(connection, { id: replicaId }));
  return { connection, presence, replicaId };
}

export function openPermits(
  stack: AsyncDisposableStack,
  replicas: Replicas | undefined,
  { clock, logger }: { readonly clock: Clock; readonly logger: Logger },
): SharedPermits | undefined {
  if (replicas === undefined) return undefined;
  const { connection, presence, replicaId } = replicas;
  const permits = new SharedPermits({
    exchange: new ValkeyPermitExchange({ connection, replicaId }),
    clock,
    place: () => presence.place,
    batchMaxOf: (capacity) => permitsMaxOf('batch', capacity),
    logger,
  });
  return stack.use(permits.start());
}
