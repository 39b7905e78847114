/** Opens the database that the configuration names, migrated and checked: the process refuses to start on a catalogue with a hole in it. */

import { DataDirectoryLock } from '../adapters/postgres/data-directory-lock.ts';
import { Database } from '../adapters/postgres/database.ts';
import { EmbeddedEngine } from '../adapters/postgres/embedded-engine.ts';
import { GivenSilos, isGiven } from '../adapters/postgres/given-silos.ts';
import { admitLogin, refuseUnfitLogin } from '../adapters/postgres/login-check.ts';
import { type MigrationResult, migrate, pendingMigrations } from '../adapters/postgres/migrations.ts';
import { ServerSilos } from '../adapters/postgres/server-silos.ts';
import { type OwnedSilo, silosSeenByOwner } from '../adapters/postgres/silo-register.ts';
import { type GivenUrls, openUrl } from '../adapters/postgres/silo-urls.ts';
import { describeFindings, lintCatalogue } from '../audit/catalogue-lint.ts';
import type { Config } from '../config/schema.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Logger } from '../telemetry/logger.ts';
import { openSecrets } from './secrets.ts';
import { configuredUrls } from './silos.ts';

export interface OpenedDatabase extends AsyncDisposable {
  readonly database: Database;
  readonly schema: MigrationResult;
}

/** Throws `data_directory_locked`, `schema_mismatch`, `unsafe_login`, `unsafe_catalogue` or `database_unavailable`. */
export async function openDatabase(config: Config, logger: Logger): Promise<OpenedDatabase> {
  await using stack = new AsyncDisposableStack();
  const database =
    config.database.url === undefined ? await openEmbedded(config, logger, stack) : openServer(config, config.database.url, stack);
  const schema = await bringUpToDate(config, database);
  if (config.database.url !== undefined) await refuseUnfitLogin(database);
  await refuseUnsafe(database);
  const opened = stack.move();
  return { database, schema, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

/** `bulkhead migrate`: as the owner on a server; the embedded database needs nobody else. */
export async function migrateDatabase(config: Config, logger: Logger): Promise<MigrationResult> {
  const { ownerUrl } = config.database;
  if (ownerUrl === undefined) {
    await using opened = await openDatabase(config, logger);
    if (config.database.url === undefined) await migrateSilos(config, opened.database, logger);
    return opened.schema;
  }
  await using stack = new AsyncDisposableStack();
  const database = openServer(config, ownerUrl, stack);
  const result = await migrate(database);
  await refuseUnsafe(database);
  if (config.database.url !== undefined) await admitLogin(database, config.database.url);
  await migrateSilos(config, database, logger);
  return result;
}

/** Databases of single tenants, on the same server or given with their owner's URL. Embedded ones are brought up to date when they are opened. */
async function migrateSilos(config: Config, shared: Database, logger: Logger): Promise<void> {
  const { url, ownerUrl } = config.database;
  const owned = await silosSeenByOwner(shared);
  const common = { queryTimeoutMs: config.bounds.databaseQueryTimeoutMs, poolSize: 1, inspect: refuseUnsafe };
  const made = url === undefined ? undefined : new ServerSilos({ ...common, url, ownerUrl });
  const given = new GivenSilos({ ...common, urls: urlsSeenByOwner(config, owned), logger });
  // An owner that may not make databases has no use for it, and creating a silo will say what is missing.
  await made?.prepare().catch((error: unknown) => refuseUnlessNotReady(error));
  for (const { place } of owned) await (isGiven(place) ? given : made)?.migrate(place);
}

function refuseUnlessNotReady(error: unknown): void {
  if (!(error instanceof BulkheadError) || error.code !== 'not_ready') throw error;
}

function urlsSeenByOwner(config: Config, owned: readonly OwnedSilo[]): GivenUrls {
  const configured = configuredUrls(config);
  const key = openSecrets(config.dataDir, config.auth.secret).siloUrls;
  const sealed = new Map(owned.map((silo) => [silo.tenantId, silo.sealed]));
  return {
    async find(tenantId) {
      const kept = sealed.get(tenantId) ?? undefined;
      return configured.get(tenantId) ?? (kept && openUrl(key, tenantId, kept));
    },
  };
}

async function openEmbedded(config: Config, logger: Logger, stack: AsyncDisposableStack): Promise<Database> {
  const { dataDir, bounds } = config;
  stack.use(DataDirectoryLock.acquire(dataDir));
  const engine = stack.use(await EmbeddedEngine.open({ dataDir, queryTimeoutMs: bounds.databaseQueryTimeoutMs, logger }));
  const database = new Database({
    connection: { socketDir: engine.socketDir },
    poolSize: config.database.poolSize,
    queryTimeoutMs: bounds.databaseQueryTimeoutMs,
    whenOpen: () => engine.whenOpen(),
  });
  stack.defer(() => database.close());
  return database;
}

function openServer(config: Config, url: string, stack: AsyncDisposableStack): Database {
  stack.use(DataDirectoryLock.acquire(config.dataDir));
  const database = new Database({
    connection: { url },
    poolSize: config.database.poolSize,
    queryTimeoutMs: config.bounds.databaseQueryTimeoutMs,
  });
  stack.defer(() => database.close());
  return database;
}

/** The embedded database is ours to migrate; a server's schema belongs to its owner. */
async function bringUpToDate(config: Config, database: Database): Promise<MigrationResult> {
  if (config.database.url === undefined) return migrate(database);
  const pending = await pendingMigrations(database);
  if (pending.length > 0) {
    throw new BulkheadError(
      'schema_mismatch',
      `The database lacks ${pending.join(', ')}. Run: bulkhead migrate (with database.ownerUrl, the login that owns the schema).`,
    );
  }
  return { applied: [], version: 'current' };
}

/** Throws `unsafe_catalogue`. */
export async function refuseUnsafe(database: Database): Promise<void> {
  const findings = await database.withClient((client) => lintCatalogue(async (statement) => (await client.query(statement)).rows));
  if (findings.length === 0) return;
  throw new BulkheadError('unsafe_catalogue', `The database would let tenants see each other:\n${describeFindings(findings)}`);
}
