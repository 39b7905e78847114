/**
 * Numbered SQL files, each applied once, in one transaction, as the owner. A file that changed after it was applied, a gap, or a
 * database newer than this code is refused: nothing is guessed about a schema.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import type pg from 'pg';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Database } from './database.ts';

export interface MigrationResult {
  /** Names applied just now, in order. */
  readonly applied: readonly string[];
  /** The newest migration in force. */
  readonly version: string;
}

interface Migration {
  readonly name: string;
  readonly text: string;
  readonly checksum: string;
}

/** Arbitrary, constant: two replicas must not migrate at once. */
const advisoryLock = 7_070_001;
const folder = new URL('./migrations/', import.meta.url);

/** Throws `schema_mismatch`. */
export async function migrate(database: Database): Promise<MigrationResult> {
  const migrations = readMigrations();
  return database.withClient(async (client) => {
    await becomeAbleToOwn(client);
    await client.query(
      'CREATE TABLE IF NOT EXISTS public.bulkhead_migration (name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())',
    );
    await client.query('SELECT pg_advisory_lock($1)', [advisoryLock]);
    try {
      const pending = pendingOf(migrations, await appliedIn(client));
      for (const migration of pending) await apply(client, migration);
      return { applied: pending.map((migration) => migration.name), version: migrations.at(-1)?.name ?? 'none' };
    } finally {
      await client.query('SELECT pg_advisory_unlock($1)', [advisoryLock]);
    }
  });
}

/** The migrations act as `bulkhead_owner`. Who creates a role may administer it and, since PostgreSQL 16, not become it without saying so. */
async function becomeAbleToOwn(client: pg.PoolClient): Promise<void> {
  const { rows } = await client.query<{ readonly able: boolean; readonly there: boolean }>(`
    SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'bulkhead_owner') AS there,
      EXISTS (SELECT FROM pg_roles WHERE rolname = 'bulkhead_owner' AND pg_has_role(oid, 'SET')) AS able`);
  if (rows[0]?.able === true) return;
  if (rows[0]?.there !== true) {
    await client.query('CREATE ROLE bulkhead_owner NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT');
  }
  try {
    await client.query('GRANT bulkhead_owner TO CURRENT_USER WITH INHERIT FALSE, SET TRUE');
  } catch (cause) {
    // Roles belong to the whole cluster.
    const roles = 'bulkhead_owner, bulkhead_runtime, bulkhead_control, bulkhead_ledger';
    const message = `The roles of another Bulkhead are in this cluster. As a superuser: GRANT ${roles} TO <the owner's login> WITH ADMIN TRUE, INHERIT FALSE, SET TRUE;`;
    throw new BulkheadError('unsafe_login', message, { cause });
  }
}

/** Names of the migrations this code brings that the database does not have. */
export async function pendingMigrations(database: Database): Promise<readonly string[]> {
  return database.withClient(async (client) => {
    const there = await client.query<{ readonly found: boolean }>("SELECT to_regclass('public.bulkhead_migration') IS NOT NULL AS found");
    const applied = there.rows[0]?.found ? await appliedIn(client) : new Map<string, string>();
    return pendingOf(readMigrations(), applied).map((migration) => migration.name);
  });
}

/** The same for two programs that bring the same migrations. */
export function schemaDigest(): string {
  const digest = createHash('sha256');
  for (const { name, checksum } of readMigrations()) digest.update(`${name} ${checksum}\n`);
  return digest.digest('hex').slice(0, 16);
}

function readMigrations(): readonly Migration[] {
  const names = readdirSync(folder).filter((name) => /^\d{4}_[a-z_]+\.sql$/.test(name));
  return names.toSorted().map((name) => {
    const text = readFileSync(new URL(name, folder), 'utf8');
    return { name: name.slice(0, -4), text, checksum: createHash('sha256').update(text).digest('hex') };
  });
}

async function appliedIn(client: pg.PoolClient): Promise<ReadonlyMap<string, string>> {
  const { rows } = await client.query<{ readonly name: string; readonly checksum: string }>(
    'SELECT name, checksum FROM public.bulkhead_migration ORDER BY name',
  );
  return new Map(rows.map((row) => [row.name, row.checksum]));
}

function pendingOf(migrations: readonly Migration[], applied: ReadonlyMap<string, string>): readonly Migration[] {
  const known = new Map(migrations.map((migration) => [migration.name, migration.checksum]));
  for (const [name, checksum] of applied) {
    if (!known.has(name))
      throw new BulkheadError(
        'schema_mismatch',
        `The database has migration ${name}, which this version does not know: it is newer than the program.`,
      );
    if (known.get(name) !== checksum) throw new BulkheadError('schema_mismatch', `Migration ${name} changed after it was applied.`);
  }
  const firstPending = migrations.findIndex((migration) => !applied.has(migration.name));
  const pending = firstPending < 0 ? [] : migrations.slice(firstPending);
  const outOfOrder = pending.find((migration) => applied.has(migration.name));
  if (outOfOrder !== undefined)
    throw new BulkheadError('schema_mismatch', `Migration ${outOfOrder.name} was applied before an earlier one.`);
  return pending;
}

async function apply(client: pg.PoolClient, migration: Migration): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query(migration.text);
    await client.query('RESET ROLE');
    await client.query('INSERT INTO public.bulkhead_migration (name, checksum) VALUES ($1, $2)', [migration.name, migration.checksum]);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
}
