/**
 * Reads everything a tenant owns, table by table from the catalogue, a page at a time. On a server that is one transaction, which holds nobody up. The
 * embedded engine runs one transaction at a time, so there the tenant is suspended first and read in short ones; that nothing changed meanwhile is
 * checked at the end.
 */
import { sql } from 'kysely';
import type { TenantCipher } from '../../encryption/tenant-cipher.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { ArchiveSink, TenantExporter } from '../../tenancy/tenant-archive.ts';
import type { TenantDirectory } from '../../tenancy/tenant-directory.ts';
import type { Database, Sql, TenantDatabase } from './database.ts';
import { openRows, type TextRow } from './sealed-rows.ts';
import { ordinalsAtOnce, rowsAtOnce } from './tenant-copy.ts';
import type { TenantHomes } from './tenant-homes.ts';
import { keysStaying, type TenantTable, tenantTables } from './tenant-tables.ts';

export interface TenantExporterParts {
  readonly shared: Database;
  readonly homes: TenantHomes;
  readonly directory: TenantDirectory;
  readonly engine: 'embedded' | 'server';
}

/** Runs a query of the snapshot. */
type Query = <T>(work: (db: Sql) => Promise<T>) => Promise<T>;

interface Export {
  readonly query: Query;
  /** Opens what is sealed at rest. */
  readonly cipher: TenantCipher;
  readonly sink: ArchiveSink;
  readonly signal: AbortSignal;
}

const memberBytesAim = 4 * 1_024 * 1_024;

export class PostgresTenantExporter implements TenantExporter {
  readonly #parts: TenantExporterParts;

  constructor(parts: TenantExporterParts) {
    this.#parts = parts;
  }

  async export(operator: OperatorScope, tenant: Principal, { sink, signal }: { readonly sink: ArchiveSink; readonly signal: AbortSignal }) {
    assert(OperatorScope.is(operator), 'exporting a tenant needs an operator');
    const { shared, homes, engine } = this.#parts;
    const tables = (await tenantTables(shared)).filter(({ name }) => !keysStaying.has(name));
    const home = homes.forTenant(tenant);
    const rows: Record<string, number> = {};
    const { cipher } = home;
    // In a transaction it would begin another.
    await cipher.ready();
    const writeTables = async (query: Query) => {
      for (const table of tables) rows[table.name] = await writeTable({ query, cipher, sink, signal }, table);
    };
    if (engine === 'server') await home.read((db) => writeTables((work) => work(db)));
    else await this.#exportSuspended(tenant, home, writeTables, tables);
    // The ledger is in the shared database, wherever the tenant lives.
    const ledger = shared.forTenant(tenant);
    rows[usageTable.name] = await writeTable({ query: (work) => ledger.read(work), cipher, sink, signal }, usageTable);
    return rows;
  }

  async #exportSuspended(
    tenant: Principal,
    home: TenantDatabase,
    writeTables: (query: Query) => Promise<void>,
    tables: readonly TenantTable[],
  ): Promise<void> {
    await this.#requireSuspended(tenant);
    // Returns when no writer is inside any more.
    await home.write((db) => sql`SELECT pg_advisory_xact_lock(7070003, hashtext(${tenant.tenantId}))`.execute(db));
    const before = await home.read((db) => stateOf(db, tables));
    await writeTables((work) => home.read(work));
    await this.#requireSuspended(tenant);
    if ((await home.read((db) => stateOf(db, tables))) !== before) {
      throw new BulkheadError('not_ready', 'The tenant changed while it was exported; try again.');
    }
  }

  async #requireSuspended({ tenantId }: Principal): Promise<void> {
    if ((await this.#parts.directory.find(tenantId))?.state === 'suspended') return;
    throw new BulkheadError('not_ready', 'Suspend the tenant first: with the embedded database nothing may change while it is exported.');
  }
}

/** Read by tenants, added to by the ledger alone. */
const usageTable: TenantTable = {
  name: 'usage_event',
  columns: [
    ['id', 'text'],
    ['occurred_at_ms', 'bigint'],
    ['key_id', 'text'],
    ['user_id', 'text'],
    ['request_id', 'text'],
    ['endpoint', 'text'],
    ['model', 'text'],
    ['upstream_model', 'text'],
    ['provider', 'text'],
    ['service_tier', 'text'],
    ['outcome', 'text'],
    ['estimated', 'boolean'],
    ['input_tokens', 'bigint'],
    ['cached_input_tokens', 'bigint'],
    ['output_tokens', 'bigint'],
    ['usage', 'jsonb'],
    ['cost_nano_usd', 'numeric'],
    ['cost_lines', 'jsonb'],
    ['price_version', 'text'],
  ].map(([name = '', type = '']) => ({ name, type })),
  key: ['id'],
  isPerFile: false,
  isSharded: false,
  canUpdate: false,
  canDelete: false,
};

/** Rows of every table and the revisions of the stores: what any write of a request or a job would move. */
async function stateOf(db: Sql, tables: readonly TenantTable[]): Promise<string> {
  const counts: string[] = [];
  for (const { name } of tables) {
    const { rows } = await sql<{ readonly count: string }>`SELECT count(*) FROM ${sql.table(`app.${name}`)}`.execute(db);
    counts.push(`${name} ${rows[0]?.count}`);
  }
  const { rows } = await sql<{
    readonly revisions: string;
  }>`SELECT coalesce(sum(revision), 0)::text AS revisions FROM app.vector_store`.execute(db);
  return `${counts.join(' ')} ${rows[0]?.revisions}`;
}

async function writeTable({ query, cipher, sink, signal }: Export, table: TenantTable): Promise<number> {
  const head = JSON.stringify({ table: table.name, columns: table.columns.map(({ name }) => name) });
  let lines = [head];
  let bytes = 0;
  let count = 0;
  let part = 0;
  const flush = async () => {
    await sink.add(`tables/${table.name}/${String(++part).padStart(6, '0')}.jsonl`, Buffer.from(`${lines.join('\n')}\n`));
    lines = [head];
    bytes = 0;
  };
  const pages = table.isPerFile ? pagesOfFiles(query, table) : pagesByKey(query, table);
  for await (const rows of pages) {
    signal.throwIfAborted();
    for (const row of await openRows(cipher, table, rows)) {
      const line = JSON.stringify(row);
      lines.push(line);
      bytes += line.length;
      count++;
      if (bytes >= memberBytesAim) await flush();
    }
  }
  if (lines.length > 1) await flush();
  return count;
}

async function* pagesByKey(query: Query, table: TenantTable): AsyncGenerator<readonly TextRow[]> {
  const types = table.key.map((name) => table.columns.find((column) => column.name === name)?.type ?? 'text');
  const key = sql.raw(table.key.map((name) => `t.${quoted(name)}`).join(', '));
  const places = table.key.map((name) => table.columns.findIndex((column) => column.name === name));
  let after: TextRow | undefined;
  for (;;) {
    const last = after;
    const from =
      last === undefined
        ? sql`true`
        : sql`(${key}) > (${sql.join(places.map((place, index) => sql`${last[place]}::text::${sql.raw(types[index] ?? 'text')}`))})`;
    const order = table.key.length === 0 ? sql`` : sql`ORDER BY ${key}`;
    const rows = await query((db) => select(db, table, sql`${from} ${order} LIMIT ${rowsAtOnce}`));
    if (rows.length > 0) yield rows;
    if (rows.length < rowsAtOnce || table.key.length === 0) return;
    after = rows.at(-1);
  }
}

/** In the order of their files, so that what belongs together is read together; one of these tables has no key. */
async function* pagesOfFiles(query: Query, table: TenantTable): AsyncGenerator<readonly TextRow[]> {
  const { rows: files } = await query((db) =>
    sql<{ readonly store_no: number; readonly file_no: number; readonly last: number }>`
      SELECT store_no, file_no, max(ordinal)::int AS last FROM ${sql.table(`app.${table.name}`)} GROUP BY 1, 2 ORDER BY 1, 2`.execute(db),
  );
  for (const { store_no, file_no, last } of files) {
    for (let ordinal = 0; ordinal <= last; ordinal += ordinalsAtOnce) {
      yield await query((db) =>
        select(
          db,
          table,
          sql`t.store_no = ${store_no} AND t.file_no = ${file_no} AND t.ordinal >= ${ordinal} AND t.ordinal < ${ordinal + ordinalsAtOnce} ORDER BY t.ordinal`,
        ),
      );
    }
  }
}

async function select(db: Sql, table: TenantTable, condition: ReturnType<typeof sql>): Promise<readonly TextRow[]> {
  const columns = sql.raw(table.columns.map(({ name }, index) => `t.${quoted(name)}::text AS c${index}`).join(', '));
  const { rows } = await sql<Readonly<Record<string, string | null>>>`
    SELECT ${columns} FROM ${sql.table(`app.${table.name}`)} t WHERE ${condition}`.execute(db);
  return rows.map((row) => table.columns.map((_, index) => row[`c${index}`] ?? null));
}

/** Names come from the catalogue. */
function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
