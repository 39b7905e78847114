/** Where tenants live: the shared database and those of single tenants, and the moves between them. */
import type { Database } from '../adapters/postgres/database.ts';
import { EmbeddedSilos } from '../adapters/postgres/embedded-silos.ts';
import { MoveRecords } from '../adapters/postgres/move-records.ts';
import { OpenSilos } from '../adapters/postgres/open-silos.ts';
import { ServerSilos } from '../adapters/postgres/server-silos.ts';
import { SiloRegister } from '../adapters/postgres/silo-register.ts';
import type { SiloSource } from '../adapters/postgres/silo-source.ts';
import { TenantHomes } from '../adapters/postgres/tenant-homes.ts';
import { PostgresTenantMover } from '../adapters/postgres/tenant-mover.ts';
import type { Config } from '../config/schema.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { TenantMoves } from '../jobs/tenant-moves.ts';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintOperatorScope } from '../tenancy/mint-operator-scope.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';

export interface Silos extends AsyncDisposable {
  readonly homes: TenantHomes;
  readonly moves: TenantMoves;
}

export interface SiloParts {
  readonly config: Config;
  readonly shared: Database;
  readonly directory: TenantRegistry;
  readonly inspect: (database: Database) => Promise<void>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Connections to a tenant's own database: it serves one tenant. */
const siloPoolSize = 4;

/** Finishes or takes back the moves that a dead process left, and makes the databases of tenants that were created siloed and have none yet. */
export async function openSilos(parts: SiloParts): Promise<Silos> {
  const { config, shared, clock, logger } = parts;
  await using stack = new AsyncDisposableStack();
  const { siloDatabasesOpenMax: openMax, siloIdleMs: idleMs, databaseQueryTimeoutMs, tenantMoveWaitMaxMs: moveWaitMaxMs } = config.bounds;
  const source = siloSource(parts);
  const silos = stack.use(new OpenSilos(source, { bounds: { openMax, idleMs, roomWaitMaxMs: databaseQueryTimeoutMs }, clock, logger }));
  const register = new SiloRegister(shared, clock);
  const records = new MoveRecords(shared, clock);
  const isOnlyProcess = config.database.url === undefined;
  const mover = new PostgresTenantMover({ shared, source, silos, register, records, clock, logger, isOnlyProcess });
  const moves = stack.use(new TenantMoves(mover, logger));
  const operator = mintOperatorScope('job:moves');
  await moves.recover(operator);
  for (const tenantId of await register.homeless()) await settle(parts, moves, tenantId).catch(() => {});
  const homes = await TenantHomes.open({ shared, register, silos, moveWaitMaxMs, logger });
  forwardLeftJobs(stack, homes, logger);
  const opened = stack.move();
  return { homes, moves, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** Makes the database of a tenant that was created siloed. When that fails the tenant is suspended: it must not live among the others meanwhile. */
export async function settle(
  { directory, logger }: Pick<SiloParts, 'directory' | 'logger'>,
  moves: TenantMoves,
  tenantId: TenantId,
): Promise<void> {
  const operator = mintOperatorScope('job:moves');
  try {
    await moves.move(operator, tenantId, 'siloed');
  } catch (error) {
    await directory.update(operator, tenantId, { state: 'suspended' });
    const code = error instanceof BulkheadError ? error.code : undefined;
    logger.error({ component: 'silos', tenantId, code }, 'the database of a siloed tenant could not be made; the tenant is suspended');
    throw error;
  }
}

export function siloSource({ config, inspect, logger }: Omit<SiloParts, 'shared' | 'clock' | 'directory'>): SiloSource {
  const { url, ownerUrl } = config.database;
  const common = { queryTimeoutMs: config.bounds.databaseQueryTimeoutMs, poolSize: siloPoolSize, inspect };
  return url === undefined
    ? new EmbeddedSilos({ ...common, dataDir: config.dataDir, logger })
    : new ServerSilos({ ...common, url, ownerUrl });
}

function forwardLeftJobs(stack: AsyncDisposableStack, homes: TenantHomes, logger: Logger): void {
  const stop = new AbortController();
  const forwarding = homes.forwardLeftJobs(stop.signal).catch(() => {
    logger.warn({ component: 'silos' }, 'not every tenant database could be opened; its jobs wait until it is used');
  });
  stack.defer(async () => {
    stop.abort();
    await forwarding;
  });
}
