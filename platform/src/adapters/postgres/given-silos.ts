/**
 * A database that an operator gave for one tenant, wherever it is: never made or dropped here. It is taken when it is empty, checked like the shared one
 * (login, schema, catalogue), and marked as this tenant's; a database with another mark, or with none, is not entered.
 */
import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { parseTenantId, type TenantId } from '../../primitives/ids.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { Database, type Sql } from './database.ts';
import { DatabaseStatementError } from './database-error.ts';
import { admitLogin, refuseUnfitLogin } from './login-check.ts';
import { migrate, pendingMigrations } from './migrations.ts';
import { openResidence } from './residence.ts';
import { type OpenSilo, SiloGone, type SiloSource } from './silo-source.ts';
import type { GivenUrl, GivenUrls } from './silo-urls.ts';

export interface GivenSiloOptions {
  readonly urls: GivenUrls;
  readonly queryTimeoutMs: number;
  readonly poolSize: number;
  /** Throws when the schema would let tenants see each other. */
  readonly inspect: (database: Database) => Promise<void>;
  readonly logger: Logger;
}

const prefix = 'given/';

export function isGiven(place: string): boolean {
  return place.startsWith(prefix);
}

/** What a place says: whose database, and by which registration. */
interface Claim {
  readonly tenantId: TenantId;
  readonly claim: string;
}

export class GivenSilos implements SiloSource {
  readonly #options: GivenSiloOptions;

  constructor(options: GivenSiloOptions) {
    this.#options = options;
  }

  async has(tenantId: TenantId): Promise<boolean> {
    return (await this.#options.urls.find(tenantId)) !== undefined;
  }

  async placeFor(tenantId: TenantId): Promise<string> {
    return `${prefix}${tenantId}/${randomUUID()}`;
  }

  /** The operator has made it. */
  async prepare(): Promise<void> {}

  async create(place: string): Promise<void> {
    const claim = claimOf(place);
    await this.migrate(place);
    await using silo = await this.#connect(claim);
    await this.#refuseUnfit(silo.database);
    await silo.database.forDirectory().write((db) => occupy(db, claim));
  }

  async open(place: string): Promise<OpenSilo> {
    const claim = claimOf(place);
    const silo = await this.#connect(claim);
    try {
      await this.#refuseUnfit(silo.database);
      if (await silo.database.forDirectory().read((db) => isOccupiedBy(db, claim))) return silo;
      this.#options.logger.error(
        { component: 'silos', tenantId: claim.tenantId },
        'the database given for a tenant is not the one that holds it',
      );
      throw new SiloGone('another database');
    } catch (error) {
      await silo[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What was the tenant's is removed; the database stays. Its owner's login, where it was given, leaves no page of it. */
  async destroy(place: string, empty: (database: Database) => Promise<void>): Promise<void> {
    const claim = claimOf(place);
    const given = await this.#urlOf(claim);
    await using silo = await this.#connect(claim).catch((error: unknown) => this.#leave(claim, error));
    if (silo === undefined) return;
    // A database without the schema, as it is after it was refused, holds nothing.
    if ((await pendingMigrations(silo.database)).length > 0) return;
    if (!(await silo.database.forDirectory().read((db) => isOccupiedBy(db, claim)))) return;
    await empty(silo.database);
    if (given.ownerUrl !== undefined) await truncateAll(given.ownerUrl, this.#options);
    await silo.database.forDirectory().write(async (db) => {
      await sql`DELETE FROM control.job WHERE tenant_id = ${claim.tenantId}`.execute(db);
      await sql`DELETE FROM control.occupant WHERE claim = ${claim.claim}`.execute(db);
    });
  }

  /** As its owner; leaves it alone when that login was not given. */
  async migrate(place: string): Promise<void> {
    const given = await this.#urlOf(claimOf(place));
    if (given.ownerUrl === undefined) return;
    await using owner = await connect(given.ownerUrl, this.#options);
    await migrate(owner.database);
    await admitLogin(owner.database, given.url);
  }

  async #refuseUnfit(database: Database): Promise<void> {
    const pending = await pendingMigrations(database);
    if (pending.length > 0) {
      const message = `The database given for a tenant lacks ${pending.join(', ')}. Run bulkhead migrate with its owner's URL (tenants[].databaseOwnerUrl, database_owner_url).`;
      throw new BulkheadError('schema_mismatch', message);
    }
    await refuseUnfitLogin(database);
    await this.#options.inspect(database);
  }

  async #connect(claim: Claim): Promise<OpenSilo> {
    return connect((await this.#urlOf(claim)).url, this.#options);
  }

  /** One that lets nobody in, or is gone, is the operator's to clean. One that cannot be reached is tried again later. */
  #leave({ tenantId }: Claim, error: unknown): undefined {
    if (!(error instanceof BulkheadError) || error.code !== 'not_ready') throw error;
    this.#options.logger.warn({ component: 'silos', tenantId }, 'the database given for a tenant lets nobody in; what is there stays');
  }

  async #urlOf({ tenantId }: Claim): Promise<GivenUrl> {
    const given = await this.#options.urls.find(tenantId);
    if (given !== undefined) return given;
    this.#options.logger.error({ component: 'silos', tenantId }, 'the URL of the database given for a tenant is not configured any more');
    throw new BulkheadError('database_unavailable', 'The database is not available right now; try again.', { retryAfterMs: 5_000 });
  }
}

function claimOf(place: string): Claim {
  const [, tenant = '', claim = ''] = place.split('/');
  const tenantId = parseTenantId(tenant);
  if (tenantId === undefined || claim === '') throw new Error('not the place of a given database');
  return { tenantId, claim };
}

/** The first connection is made here, so that a wrong URL is told from a fault of ours. */
async function connect(url: string, { poolSize, queryTimeoutMs }: GivenSiloOptions): Promise<OpenSilo> {
  const database = new Database({ connection: { url }, poolSize, queryTimeoutMs });
  try {
    await database.probe();
  } catch (error) {
    await database.close();
    if (!(error instanceof DatabaseStatementError)) throw error;
    throw new BulkheadError('not_ready', `The database that was given does not let the login in (SQLSTATE ${error.sqlState}).`);
  }
  return { database, [Symbol.asyncDispose]: () => database.close() };
}

/**
 * Marks an empty database as the tenant's. Forced row-level security hides rows from everybody here, but a table without pages has none, and a
 * shared database has tenants.
 */
async function occupy(db: Sql, claim: Claim): Promise<void> {
  if (!(await isOccupiedBy(db, claim))) {
    const { rows } = await sql<{ readonly isEmpty: boolean }>`
      SELECT NOT EXISTS (SELECT FROM control.tenant) AND NOT EXISTS (SELECT FROM control.occupant) AND coalesce(sum(pg_relation_size(c.oid)), 0) = 0 AS "isEmpty"
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'app' AND c.relkind = 'r'`.execute(db);
    if (rows[0]?.isEmpty !== true) {
      throw new BulkheadError('not_ready', 'The database that was given is in use, or was: give one in which nothing but the schema is.');
    }
    await sql`INSERT INTO control.occupant (tenant_id, claim) VALUES (${claim.tenantId}, ${claim.claim})`.execute(db);
  }
  await openResidence(db, claim.tenantId);
}

async function isOccupiedBy(db: Sql, { tenantId, claim }: Claim): Promise<boolean> {
  const { rows } = await sql`SELECT 1 FROM control.occupant WHERE tenant_id = ${tenantId} AND claim = ${claim}`.execute(db);
  return rows.length > 0;
}

async function truncateAll(ownerUrl: string, options: GivenSiloOptions): Promise<void> {
  await using owner = await connect(ownerUrl, options);
  await owner.database.withClient(async (client) => {
    const { rows } = await client.query<{ readonly tables: string | null }>(
      "SELECT string_agg(format('app.%I', c.relname), ', ') AS tables FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace " +
        "WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p') AND NOT c.relispartition",
    );
    await client.query(`BEGIN; SET LOCAL ROLE bulkhead_owner; TRUNCATE ${rows[0]?.tables ?? ''}; COMMIT`);
  });
}
