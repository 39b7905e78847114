/** Where tenants live: the shared database and those of single tenants, and the moves between them. */
import type { Database } from '../adapters/postgres/database.ts';
import { EmbeddedSilos } from '../adapters/postgres/embedded-silos.ts';
import { GivenSilos } from '../adapters/postgres/given-silos.ts';
import { MoveRecords } from '../adapters/postgres/move-records.ts';
import { OpenSilos } from '../adapters/postgres/open-silos.ts';
import { ServerSilos } from '../adapters/postgres/server-silos.ts';
import { SiloRegister } from '../adapters/postgres/silo-register.ts';
import type { SiloSource } from '../adapters/postgres/silo-source.ts';
import { SiloSources } from '../adapters/postgres/silo-sources.ts';
import { type GivenUrl, type GivenUrls, SiloUrls } from '../adapters/postgres/silo-urls.ts';
import { TenantHomes } from '../adapters/postgres/tenant-homes.ts';
import { PostgresTenantMover } from '../adapters/postgres/tenant-mover.ts';
import type { Config } from '../config/schema.ts';
import type { KeyRing } from '../encryption/key-ring.ts';
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
  /** Where the next database of the tenant is, if not where we make it. */
  give(tenantId: TenantId, given: GivenUrl | undefined): Promise<void>;
  readonly source: SiloSource;
  readonly silos: OpenSilos;
  readonly register: SiloRegister;
}

export interface SiloParts {
  readonly config: Config;
  readonly shared: Database;
  readonly keyRing: KeyRing;
  readonly directory: TenantRegistry;
  readonly inspect: (database: Database) => Promise<void>;
  /** Encrypts the URLs that are kept. */
  readonly urlKey: Buffer;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Connections to a tenant's own database: it serves one tenant. */
const siloPoolSize = 4;

/** Finishes or takes back the moves that a dead process left, and makes the databases of tenants that were created siloed and have none yet. */
export async function openSilos(parts: SiloParts): Promise<Silos> {
  const { config, shared, keyRing, clock, logger } = parts;
  await using stack = new AsyncDisposableStack();
  const { siloDatabasesOpenMax: openMax, siloIdleMs: idleMs, databaseQueryTimeoutMs, tenantMoveWaitMaxMs: moveWaitMaxMs } = config.bounds;
  const urls = new SiloUrls({ database: shared, configured: configuredUrls(config), key: parts.urlKey });
  const source = siloSource(parts, urls);
  const silos = stack.use(new OpenSilos(source, { bounds: { openMax, idleMs, roomWaitMaxMs: databaseQueryTimeoutMs }, clock, logger }));
  const register = new SiloRegister(shared, clock);
  const records = new MoveRecords(shared, clock);
  const isOnlyProcess = config.database.url === undefined;
  const mover = new PostgresTenantMover({ shared, source, silos, register, records, clock, logger, isOnlyProcess });
  const moves = stack.use(new TenantMoves(mover, logger));
  const operator = mintOperatorScope('job:moves');
  await moves.recover(operator);
  for (const tenantId of await register.homeless()) await settle(parts, moves, tenantId).catch(() => {});
  const homes = await TenantHomes.open({ shared, register, silos, keyRing, moveWaitMaxMs, logger });
  forwardLeftJobs(stack, homes, logger);
  if (config.database.url === undefined) prepareLater(stack, source, { afterMs: config.bounds.siloTemplateAfterMs, logger });
  const opened = stack.move();
  const give: Silos['give'] = (tenantId, given) => urls.keep(tenantId, given);
  return { homes, moves, source, silos, register, give, [Symbol.asyncDispose]: () => opened.disposeAsync() };
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

/** URLs that the configuration gives, by tenant. */
export function configuredUrls(config: Config): ReadonlyMap<string, GivenUrl> {
  return new Map(
    config.tenants.flatMap(({ id, databaseUrl: url, databaseOwnerUrl: ownerUrl }) =>
      url === undefined ? [] : [[id, { url, ownerUrl }] as const],
    ),
  );
}

function siloSource({ config, inspect, logger }: Pick<SiloParts, 'config' | 'inspect' | 'logger'>, urls: GivenUrls): SiloSource {
  const { url, ownerUrl } = config.database;
  const common = { queryTimeoutMs: config.bounds.databaseQueryTimeoutMs, poolSize: siloPoolSize, inspect };
  const made =
    url === undefined ? new EmbeddedSilos({ ...common, dataDir: config.dataDir, logger }) : new ServerSilos({ ...common, url, ownerUrl });
  return new SiloSources(made, new GivenSilos({ ...common, urls, logger }));
}

/** The first embedded silo of a schema would wait 2 s for its template; a start must not, and most processes are short or have no use for one. */
function prepareLater(
  stack: AsyncDisposableStack,
  source: SiloSource,
  { afterMs, logger }: { readonly afterMs: number; readonly logger: Logger },
): void {
  let preparing: Promise<void> | undefined;
  const timer = setTimeout(() => {
    preparing = source.prepare().catch(() => logger.warn({ component: 'silos' }, 'the template of tenant databases could not be made'));
  }, afterMs).unref();
  stack.defer(async () => {
    clearTimeout(timer);
    await preparing;
  });
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
