/**
 * A database for each siloed tenant on the same server, copied from a template that has the schema. The owner's login makes and drops them; the
 * runtime's login, which can do neither, uses them.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { Database } from './database.ts';
import { DatabaseStatementError } from './database-error.ts';
import { admitLogin } from './login-check.ts';
import { migrate, pendingMigrations } from './migrations.ts';
import { type OpenSilo, SiloGone, type SiloSource } from './silo-source.ts';

export interface ServerSiloOptions {
  readonly url: string;
  /** A login that owns the schema and may create databases; undefined: tenants that are siloed already are served, none can be made. */
  readonly ownerUrl: string | undefined;
  readonly queryTimeoutMs: number;
  readonly poolSize: number;
  /** Throws when the schema would let tenants see each other. */
  readonly inspect: (database: Database) => Promise<void>;
}

const template = 'bulkhead_silo_template';
/** Arbitrary, constant. */
const templateLock = 7_070_004;

export class ServerSilos implements SiloSource {
  readonly #options: ServerSiloOptions;
  #hasTemplate = false;

  constructor(options: ServerSiloOptions) {
    this.#options = options;
  }

  /** Tenant ids are longer than names of databases may be, and two must never share one. */
  async placeFor(tenantId: string): Promise<string> {
    return `bulkhead_silo_${createHash('sha256').update(tenantId).digest('hex').slice(0, 32)}`;
  }

  async prepare(): Promise<void> {
    await this.#withTemplate(async () => {});
  }

  async create(place: string): Promise<void> {
    await this.#withTemplate(async (client) => {
      await client.query(`DROP DATABASE IF EXISTS ${quoted(place)} WITH (FORCE)`);
      await client.query(`CREATE DATABASE ${quoted(place)} TEMPLATE ${template}`);
    });
  }

  async open(place: string): Promise<OpenSilo> {
    const database = this.#databaseAt(this.#options.url, place);
    try {
      const pending = await pendingMigrations(database);
      if (pending.length > 0)
        throw new BulkheadError('schema_mismatch', `A tenant's database lacks ${pending.join(', ')}. Run: bulkhead migrate`);
      await this.#options.inspect(database);
    } catch (error) {
      await database.close();
      throw error instanceof DatabaseStatementError && error.sqlState === noSuchDatabase
        ? new SiloGone('the database is not there')
        : error;
    }
    return { database, [Symbol.asyncDispose]: () => database.close() };
  }

  async destroy(place: string): Promise<void> {
    await using owner = this.#ownerOf(undefined);
    await owner.database.withClient((client) => client.query(`DROP DATABASE IF EXISTS ${quoted(place)} WITH (FORCE)`));
  }

  /** Brings a tenant's database to the current schema, as the owner. */
  async migrate(place: string): Promise<void> {
    await using owner = this.#ownerOf(place);
    await migrate(owner.database);
    await admitLogin(owner.database, this.#options.url);
  }

  /** A template that somebody is connected to cannot be copied, so makers take turns. */
  async #withTemplate(work: (client: pg.PoolClient) => Promise<void>): Promise<void> {
    await using owner = this.#ownerOf(undefined);
    await owner.database.withClient(async (client) => {
      await client.query('SELECT pg_advisory_lock($1)', [templateLock]);
      try {
        if (!this.#hasTemplate) await this.#makeTemplate(client);
        this.#hasTemplate = true;
        await work(client);
      } finally {
        await client.query('SELECT pg_advisory_unlock($1)', [templateLock]);
      }
    });
  }

  async #makeTemplate(client: pg.PoolClient): Promise<void> {
    const { rows } = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [template]);
    try {
      if (rows.length === 0) await client.query(`CREATE DATABASE ${template}`);
      await this.migrate(template);
    } catch (error) {
      if (!(error instanceof DatabaseStatementError) || error.sqlState !== insufficientPrivilege) throw error;
      const message = `The owner may not make the database ${template}. As a superuser, with the owner's login for it: CREATE DATABASE ${template} OWNER <owner>; and in it CREATE EXTENSION vector;`;
      throw new BulkheadError('not_ready', message);
    }
  }

  #ownerOf(place: string | undefined): OpenSilo {
    const { ownerUrl } = this.#options;
    if (ownerUrl === undefined) {
      throw new BulkheadError('not_ready', 'Siloed tenants need database.ownerUrl: a login that owns the schema and may create databases.');
    }
    const database = this.#databaseAt(ownerUrl, place);
    return { database, [Symbol.asyncDispose]: () => database.close() };
  }

  #databaseAt(url: string, place: string | undefined): Database {
    const target = new URL(url);
    if (place !== undefined) target.pathname = `/${place}`;
    return new Database({
      connection: { url: target.href },
      poolSize: this.#options.poolSize,
      queryTimeoutMs: this.#options.queryTimeoutMs,
    });
  }
}

const noSuchDatabase = '3D000';
const insufficientPrivilege = '42501';

/** Our own names: letters, digits, underscores. */
function quoted(place: string): string {
  if (!/^[a-z0-9_]{1,63}$/.test(place)) throw new Error('not the name of a silo');
  return `"${place}"`;
}
