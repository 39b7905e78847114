/**
 * Makes one tenant's rows in one database equal to those in another, by comparing digests and copying what differs, in short transactions as the
 * tenant: row-level security in both databases keeps everybody else's rows out of it. Repeating it while the tenant writes brings the two ever closer;
 * with the tenant's writers held it ends in equality.
 */
import { sql } from 'kysely';
import type { Sql, TenantDatabase } from './database.ts';
import type { TenantTable } from './tenant-tables.ts';

export interface CopyEnds {
  readonly from: TenantDatabase;
  readonly to: TenantDatabase;
  readonly tables: readonly TenantTable[];
}

/** What a table holds for the tenant. */
export interface TableCount {
  readonly table: string;
  readonly rows: number;
}

interface Group {
  readonly key: readonly string[];
  readonly rows: number;
  readonly digest: string;
  /** Of a file: its last ordinal. */
  readonly last: number;
}

/** Rows copied in one transaction: of files by their ordinals (a vector, a text and some hundred words each), of others, which may be parts of a file's body. */
export const ordinalsAtOnce = 64;
export const rowsAtOnce = 16;
const namesAtOnce = 500;

/** One pass. Returns how many rows, or files of rows, differed; 0 means that everything was equal when it was looked at. */
export async function copyDifferences({ from, to, tables }: CopyEnds, signal: AbortSignal): Promise<number> {
  const differing: { readonly table: TenantTable; readonly wanted: readonly Group[] }[] = [];
  let differences = 0;
  // Children are looked at and removed first, so that a removal never takes rows along.
  for (const table of tables.toReversed()) {
    signal.throwIfAborted();
    const [source, target] = [await groupsOf(from, table), await groupsOf(to, table)];
    const wanted = [...source].filter(([name, group]) => target.get(name)?.digest !== group.digest).map(([, group]) => group);
    const extra = [...target].filter(([name]) => !source.has(name)).map(([, group]) => group);
    const replaced = isUpdated(table) ? [] : wanted.filter((group) => target.has(nameOf(group.key)));
    await remove(to, table, [...extra, ...replaced]);
    differences += wanted.length + (table.canDelete ? extra.length : 0);
    differing.unshift({ table, wanted });
  }
  for (const { table, wanted } of differing) {
    signal.throwIfAborted();
    await (table.isPerFile ? copyFiles : copyRows)({ from, to, table }, wanted);
  }
  return differences;
}

/** Rows of each table, for the report of a move. */
export async function countRows(database: TenantDatabase, tables: readonly TenantTable[]): Promise<readonly TableCount[]> {
  const counts: TableCount[] = [];
  for (const table of tables) {
    const groups = await groupsOf(database, table);
    counts.push({ table: table.name, rows: [...groups.values()].reduce((sum, group) => sum + group.rows, 0) });
  }
  return counts;
}

/** Removes the tenant's rows, children first. Tables that a tenant cannot delete from keep theirs: counters, which a later copy overwrites. */
export async function removeAll(database: TenantDatabase, tables: readonly TenantTable[]): Promise<void> {
  for (const table of tables.toReversed()) await remove(database, table, [...(await groupsOf(database, table)).values()]);
}

async function groupsOf(database: TenantDatabase, table: TenantTable): Promise<Map<string, Group>> {
  const key = sql.raw(
    keyOf(table)
      .map((name) => `t.${quoted(name)}::text`)
      .join(', '),
  );
  // Of what is copied alone: a store may lie in another shard there.
  const row = sql.raw(`ROW(${table.columns.map(({ name }) => `t.${quoted(name)}`).join(', ')})::text`);
  const last = sql.raw(table.isPerFile ? 'max(t.ordinal)' : '0');
  const grouped = sql.raw(
    keyOf(table)
      .map((name) => `t.${quoted(name)}`)
      .join(', '),
  );
  const { rows } = await database.read((db) =>
    sql<{ readonly key: string[]; readonly rows: number; readonly digest: string; readonly last: number }>`
      SELECT ARRAY[${key}]::text[] AS key, count(*)::int AS rows, ${last}::int AS last,
             md5(string_agg(md5(${row}), '' ORDER BY md5(${row}))) AS digest
        FROM ${tableOf(table)} t ${keyOf(table).length === 0 ? sql`` : sql`GROUP BY ${grouped}`}
      HAVING count(*) > 0`.execute(db),
  );
  return new Map(rows.map((row) => [nameOf(row.key), row]));
}

interface TableCopy {
  readonly from: TenantDatabase;
  readonly to: TenantDatabase;
  readonly table: TenantTable;
}

/** A file whose rows differ at all is copied whole: it was removed from the target before. */
async function copyFiles({ from, to, table }: TableCopy, files: readonly Group[]): Promise<void> {
  for (const { key, last } of files) {
    for (let ordinal = 0; ordinal <= last; ordinal += ordinalsAtOnce) {
      const rows = await from.read((db) =>
        selectRows(
          db,
          table,
          sql`t.store_no = ${key[0]}::int AND t.file_no = ${key[1]}::int AND t.ordinal >= ${ordinal} AND t.ordinal < ${ordinal + ordinalsAtOnce}`,
        ),
      );
      await insertRows(to, table, rows);
    }
  }
}

async function copyRows({ from, to, table }: TableCopy, wanted: readonly Group[]): Promise<void> {
  for (let index = 0; index < wanted.length; index += rowsAtOnce) {
    const groups = wanted.slice(index, index + rowsAtOnce);
    await insertRows(to, table, await from.read((db) => selectRows(db, table, namedBy(table, groups))));
  }
}

async function remove(database: TenantDatabase, table: TenantTable, groups: readonly Group[]): Promise<void> {
  if (!table.canDelete) return;
  for (let index = 0; index < groups.length; index += namesAtOnce) {
    const some = groups.slice(index, index + namesAtOnce);
    await database.write((db) => sql`DELETE FROM ${tableOf(table)} t WHERE ${namedBy(table, some)}`.execute(db));
  }
}

/** Column `c<index>` -> its text. */
export type Row = Readonly<Record<string, string | null>>;

async function selectRows(db: Sql, table: TenantTable, condition: ReturnType<typeof sql>): Promise<readonly Row[]> {
  const columns = sql.raw(table.columns.map(({ name }, index) => `t.${quoted(name)}::text AS c${index}`).join(', '));
  return (await sql<Row>`SELECT ${columns} FROM ${tableOf(table)} t WHERE ${condition}`.execute(db)).rows;
}

/** As the tenant, in one transaction. */
export async function insertRows(database: TenantDatabase, table: TenantTable, rows: readonly Row[]): Promise<void> {
  if (rows.length === 0) return;
  const place = table.isSharded ? [['shard_id', shardOf(table)] as const] : [];
  const fields = [...table.columns.map(({ name, type }, index) => [quoted(name), `c${index}::${type}`] as const), ...place];
  const names = sql.raw(fields.map(([name]) => name).join(', '));
  const values = sql.raw(fields.map(([, value]) => value).join(', '));
  const arrays = sql.join(table.columns.map((_, index) => sql`${rows.map((row) => row[`c${index}`])}::text[]`));
  const aliases = sql.raw(table.columns.map((_, index) => `c${index}`).join(', '));
  await database.write((db) =>
    sql`INSERT INTO ${tableOf(table)} (${names}) SELECT ${values} FROM unnest(${arrays}) AS row (${aliases}) ${onConflict(table)}`.execute(
      db,
    ),
  );
}

/** Where the row's store has its place in the database it goes to. */
function shardOf(table: TenantTable): string {
  const storeNo = table.columns.findIndex(({ name }) => name === 'store_no');
  return `(SELECT coalesce(s.moving_to_shard, s.shard_id) FROM app.vector_store s WHERE s.store_no = c${storeNo}::int)`;
}

function isUpdated(table: TenantTable): boolean {
  return table.canUpdate && !table.isPerFile;
}

/** A row that changed is changed, not replaced: removing it would remove what refers to it. */
function onConflict(table: TenantTable) {
  if (!isUpdated(table)) return sql``;
  const changes = table.columns.map(({ name }) => `${quoted(name)} = excluded.${quoted(name)}`).join(', ');
  return sql.raw(`ON CONFLICT (${['tenant_id', ...table.key].map(quoted).join(', ')}) DO UPDATE SET ${changes}`);
}

/** True for the rows of these groups; by the primary key's own types, so that its index serves. */
function namedBy(table: TenantTable, groups: readonly Group[]) {
  const names = keyOf(table);
  if (names.length === 0) return sql`true`;
  const types = names.map((name) => table.columns.find((column) => column.name === name)?.type ?? 'text');
  const key = sql.raw(names.map((name) => `t.${quoted(name)}`).join(', '));
  const values = sql.raw(types.map((type, index) => `k${index}::${type}`).join(', '));
  const arrays = sql.join(names.map((_, index) => sql`${groups.map((group) => group.key[index])}::text[]`));
  const aliases = sql.raw(names.map((_, index) => `k${index}`).join(', '));
  return sql`(${key}) IN (SELECT ${values} FROM unnest(${arrays}) AS wanted (${aliases}))`;
}

function keyOf(table: TenantTable): readonly string[] {
  return table.isPerFile ? ['store_no', 'file_no'] : table.key;
}

function nameOf(key: readonly string[]): string {
  return JSON.stringify(key);
}

function tableOf(table: TenantTable) {
  return sql.raw(`app.${quoted(table.name)}`);
}

/** Names come from the catalogue. */
function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
