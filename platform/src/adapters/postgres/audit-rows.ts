/** Rows as one tenant's own transaction sees them, and walls that are leaned on: the audit's view from inside. Reads, but for two attempts that must be refused. */
import { createHash } from 'node:crypto';
import { sql } from 'kysely';
import type { RowKey, SealedColumn } from '../../encryption/sealed-record.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { JobDesk, RowInspector, TableTruth, Tripwire } from '../../tenancy/audit-records.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { Database, Sql, TenantDatabase } from './database.ts';
import { DatabaseStatementError } from './database-error.ts';
import { sealedColumns } from './sealed-columns.ts';
import type { TenantHomes } from './tenant-homes.ts';

/** Of each table; canary tenants have some dozen. */
const rowsMax = 5_000;
const sealedRowsMax = 500;
const insufficientPrivilege = '42501';

interface ReadableTable {
  readonly name: string;
  /** Expressions whose text is looked through. */
  readonly readable: readonly string[];
}

export class PostgresRowInspector implements RowInspector {
  readonly #shared: Database;
  readonly #homes: TenantHomes;

  constructor(shared: Database, homes: TenantHomes) {
    this.#shared = shared;
    this.#homes = homes;
  }

  async tables(): Promise<readonly string[]> {
    return (await this.#readableTables()).map(({ name }) => name);
  }

  async scan(tenant: Principal): Promise<readonly TableTruth[]> {
    const tables = await this.#readableTables();
    const database = this.#homes.forTenant(tenant);
    const truths = await database.read(async (db) => {
      const seen: TableTruth[] = [];
      for (const table of tables) seen.push(await scanTable(db, table));
      return seen;
    });
    const opened = new Map<string, string>();
    for (const column of sealedColumns) opened.set(column.table, `${opened.get(column.table) ?? ''} ${await openedText(database, column)}`);
    return truths.map((truth) => ({ ...truth, text: `${truth.text}${opened.get(truth.table) ?? ''}` }));
  }

  async tripwires(attacker: Principal, victimId: string): Promise<readonly Tripwire[]> {
    const tables = await this.tables();
    return [
      await this.#rowsWithoutTenant(),
      await this.#rowsOf(attacker, victimId, tables),
      await this.#refused(attacker, 'a row written under the victim’s id', (db) =>
        sql`INSERT INTO app.file_batch (tenant_id, id, store_no, created_at_ms) VALUES (${victimId}, 'audit', 0, 0)`.execute(db),
      ),
      await this.#refused(attacker, 'one’s own rows handed to the victim', (db) =>
        sql`UPDATE app.vector_store SET tenant_id = ${victimId} WHERE false`.execute(db),
      ),
    ];
  }

  async schemaHash(): Promise<string> {
    const { rows } = await this.#shared
      .forDirectory()
      .read((db) => sql<{ readonly shape: string | null }>`${sql.raw(shapeQuery)}`.execute(db));
    return `sha256:${createHash('sha256')
      .update(rows[0]?.shape ?? '')
      .digest('hex')}`;
  }

  async describe(): Promise<string> {
    const { rows } = await this.#shared
      .forDirectory()
      .read((db) => sql<{ readonly version: string }>`SELECT current_setting('server_version') AS version`.execute(db));
    return `PostgreSQL ${rows[0]?.version ?? 'of unknown version'}`;
  }

  async #readableTables(): Promise<readonly ReadableTable[]> {
    const { rows } = await this.#shared
      .forDirectory()
      .read((db) => sql<{ readonly name: string; readonly columns: readonly ColumnRow[] | null }>`${sql.raw(tablesQuery)}`.execute(db));
    return rows.map(({ name, columns }) => ({ name, readable: (columns ?? []).map(readableText) }));
  }

  async #rowsWithoutTenant(): Promise<Tripwire> {
    const read = this.#shared.transaction({ role: 'bulkhead_runtime', readOnly: true }, (db) =>
      sql`SELECT count(*) FROM app.file`.execute(db),
    );
    return leaned('rows without a tenant', read);
  }

  /** Asked for by name, in every table at once. */
  async #rowsOf(attacker: Principal, victimId: string, tables: readonly string[]): Promise<Tripwire> {
    const name = 'the victim’s rows, asked for by its id';
    const counts = tables.map(
      (table) => sql`(SELECT count(*) FROM (SELECT 1 FROM ${sql.id('app', table)} WHERE tenant_id = ${victimId} LIMIT 1) one)`,
    );
    const { rows } = await this.#shared
      .forTenant(attacker)
      .read((db) => sql<{ readonly found: string }>`SELECT (${sql.join(counts, sql` + `)})::text AS found`.execute(db));
    const found = Number(rows[0]?.found ?? Number.NaN);
    return { name, held: found === 0, got: found === 0 ? 'nothing' : `rows in ${found} tables` };
  }

  #refused(attacker: Principal, name: string, work: (db: Sql) => Promise<unknown>): Promise<Tripwire> {
    const attempt = this.#shared.forTenant(attacker).write(async (db) => {
      await work(db);
      // It was taken: nothing of it may stay.
      throw new TakenBack();
    });
    return leaned(name, attempt);
  }
}

class TakenBack extends Error {}

async function leaned(name: string, attempt: Promise<unknown>): Promise<Tripwire> {
  try {
    await attempt;
    return { name, held: false, got: 'taken' };
  } catch (error) {
    if (error instanceof TakenBack) return { name, held: false, got: 'taken' };
    const state = error instanceof DatabaseStatementError ? error.sqlState : undefined;
    if (state === undefined) throw error;
    return { name, held: state === insufficientPrivilege, got: `SQLSTATE ${state}` };
  }
}

async function scanTable(db: Sql, { name, readable }: ReadableTable): Promise<TableTruth> {
  const texts = readable.length === 0 ? sql`''` : sql.raw(`concat_ws(' ', ${readable.join(', ')})`);
  const { rows } = await sql<{ readonly rows: string; readonly foreign_rows: string; readonly text: string | null }>`
    SELECT count(*)::text AS rows, count(*) FILTER (WHERE tenant_id <> app.current_tenant())::text AS foreign_rows, string_agg(content, ' ') AS text
      FROM (SELECT tenant_id, ${texts} AS content FROM ${sql.id('app', name)} LIMIT ${rowsMax}) seen`.execute(db);
  const [row] = rows;
  return { table: name, rows: Number(row?.rows ?? 0), foreignRows: Number(row?.foreign_rows ?? 0), text: row?.text ?? '' };
}

interface SealedRow {
  readonly row: RowKey;
  readonly record: Buffer;
}

/** What the tenant's own key opens of its own rows. A value that does not open raises the alarm that any reader raises, and is left out here. */
async function openedText(database: TenantDatabase, column: SealedColumn): Promise<string> {
  const key = column.rowKey.map((name) => sql.id(name));
  const { rows } = await database.read((db) =>
    sql<SealedRow>`
      SELECT json_build_array(${sql.join(key)}) AS row, ${sql.id(column.column)} AS record FROM ${sql.id('app', column.table)}
       WHERE tenant_id = app.current_tenant() AND ${sql.id(column.column)} IS NOT NULL LIMIT ${sealedRowsMax}`.execute(db),
  );
  const texts: string[] = [];
  for (const { row, record } of rows) {
    const text = await database.cipher.open(column, row, record).catch((error: unknown) => {
      if (error instanceof BulkheadError && error.code === 'sealed_data_unreadable') return undefined;
      throw error;
    });
    if (text !== undefined) texts.push(text.toString('utf8'));
  }
  return texts.join(' ');
}

interface ColumnRow {
  readonly name: string;
  readonly type: string;
}

/** Names come from the catalogue, quoted there. */
function readableText({ name, type }: ColumnRow): string {
  return type === 'bytea' ? `encode(${name}, 'escape')` : `${name}::text`;
}

const tablesQuery = `
  SELECT c.relname AS name,
    (SELECT json_agg(json_build_object('name', quote_ident(a.attname), 'type', t.typname) ORDER BY a.attnum) FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'tenant_id' AND t.typname IN ('text', 'json', 'jsonb', 'bytea', 'varchar')) AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname`;

const shapeQuery = `
  SELECT string_agg(line, E'\\n' ORDER BY line) AS shape FROM (
    SELECT format('%s.%s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull) AS line
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT format('%s %s %s %s %s', c.relname, c.relrowsecurity, c.relforcerowsecurity, p.polname, pg_get_expr(p.polqual, p.polrelid))
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_policy p ON p.polrelid = c.oid
     WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p') AND NOT c.relispartition) shape`;

/** Jobs put into the queue by hand. */
export class PostgresJobDesk implements JobDesk {
  readonly #shared: Database;

  constructor(shared: Database) {
    this.#shared = shared;
  }

  async insert(tenant: Principal, { id, kind, payload, envelope }: Parameters<JobDesk['insert']>[1]): Promise<void> {
    await this.#shared.forTenant(tenant).write((db) =>
      sql`
        INSERT INTO control.job (id, kind, payload, envelope, created_at_ms, ready_at_ms)
        VALUES (${id}, ${kind}, ${JSON.stringify(payload)}::jsonb, ${envelope}, 0, 0)`.execute(db),
    );
  }

  async stateOf(jobId: string): Promise<'gone' | 'buried' | 'there'> {
    const { rows } = await this.#shared
      .forDirectory()
      .read((db) =>
        sql<{ readonly buried: boolean }>`SELECT buried_reason IS NOT NULL AS buried FROM control.job WHERE id = ${jobId}`.execute(db),
      );
    if (rows[0] === undefined) return 'gone';
    return rows[0].buried ? 'buried' : 'there';
  }

  async remove(jobId: string): Promise<void> {
    await this.#shared.forDirectory().write((db) => sql`DELETE FROM control.job WHERE id = ${jobId}`.execute(db));
  }
}
