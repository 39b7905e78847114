/** What a tenant owns in a database, read from its catalogue: a new table is copied without being named here. */
import { sql } from 'kysely';
import type { Database } from './database.ts';

export interface TenantTable {
  readonly name: string;
  /**
   * Those a tenant's transaction may name, with their types; the rest is filled by defaults. Without `shard_id`, which is a place in one database and
   * no part of what the tenant has.
   */
  readonly columns: readonly { readonly name: string; readonly type: string }[];
  /** Primary key without the tenant. */
  readonly key: readonly string[];
  /** Rows of one file of one store, compared and copied together: there may be millions, and one table has no key. */
  readonly isPerFile: boolean;
  /** Rows lie in the shard of their store: who inserts them looks it up. */
  readonly isSharded: boolean;
  /** Every column that it may insert. */
  readonly canUpdate: boolean;
  readonly canDelete: boolean;
}

/** The ledger stays with the operator: it is the bill. Where a tenant lives is said by each database for itself. */
const staying = ['usage_event', 'residence'];

/** Keys of a tenant at rest are worth nothing elsewhere: what they seal leaves opened, and is sealed anew where it comes in. */
export const keysStaying: ReadonlySet<string> = new Set(['data_key', 'plain_rows']);

interface TableRow {
  readonly name: string;
  readonly columns: TenantTable['columns'] | null;
  readonly is_sharded: boolean;
  readonly key: readonly string[];
  readonly has_key: boolean;
  readonly can_update: boolean;
  readonly can_delete: boolean;
  readonly parents: readonly string[] | null;
}

/** Parents before those that refer to them. Throws when a table could not be copied faithfully. */
export async function tenantTables(database: Database): Promise<readonly TenantTable[]> {
  const { rows } = await database
    .forDirectory()
    .read((db) => sql<TableRow>`${sql.raw(catalogueQuery)} AND c.relname <> ALL (${staying}::text[])`.execute(db));
  return parentsFirst(rows).map((row): TenantTable => {
    const names = row.columns?.map((column) => column.name) ?? [];
    const isPerFile = ['store_no', 'file_no', 'ordinal'].every((name) => names.includes(name));
    if (row.columns === null || !(isPerFile || (row.has_key && row.key.every((name) => names.includes(name))))) {
      throw new Error(`the table ${row.name} has nothing by which its rows could be told apart and copied`);
    }
    const { name, columns, key, is_sharded: isSharded, can_update: canUpdate, can_delete: canDelete } = row;
    return { name, columns, key, isPerFile, isSharded, canUpdate, canDelete };
  });
}

const catalogueQuery = `
  SELECT c.relname AS name,
    (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum) FROM pg_attribute a
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'shard_id' AND has_column_privilege('bulkhead_runtime', c.oid, a.attnum, 'INSERT')) AS columns,
    EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'shard_id' AND has_column_privilege('bulkhead_runtime', c.oid, a.attnum, 'INSERT')) AS is_sharded,
    (SELECT coalesce(json_agg(a.attname ORDER BY k.position), '[]') FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
      WHERE i.indrelid = c.oid AND i.indisprimary AND a.attname NOT IN ('tenant_id', 'shard_id')) AS key,
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key,
    NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND has_column_privilege('bulkhead_runtime', c.oid, a.attnum, 'INSERT') AND NOT has_column_privilege('bulkhead_runtime', c.oid, a.attnum, 'UPDATE')) AS can_update, has_table_privilege('bulkhead_runtime', c.oid, 'DELETE') AS can_delete,
    (SELECT json_agg(DISTINCT parent.relname) FROM pg_constraint f JOIN pg_class parent ON parent.oid = f.confrelid
      WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confrelid <> c.oid) AS parents
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p') AND NOT c.relispartition`;

export interface OrderedTable {
  readonly name: string;
  readonly parents: readonly string[] | null;
  readonly is_sharded?: boolean;
}

/** Throws when tables refer to each other in a circle. */
export function parentsFirst<Row extends OrderedTable>(rows: readonly Row[]): readonly Row[] {
  const ordered: Row[] = [];
  const names = new Set(rows.map((row) => row.name));
  let left = rows;
  while (left.length > 0) {
    const placed = new Set(ordered.map((row) => row.name));
    const ready = left.filter((row) => parentsOf(row).every((parent) => placed.has(parent) || !names.has(parent)));
    if (ready.length === 0) throw new Error('tables of tenant data refer to each other in a circle');
    ordered.push(...ready);
    left = left.filter((row) => !ready.includes(row));
  }
  return ordered;
}

/** The store of a row says in which shard it goes, also where no key refers to it. */
function parentsOf({ parents, is_sharded: isSharded }: OrderedTable): readonly string[] {
  return [...(parents ?? []), ...(isSharded === true ? ['vector_store'] : [])];
}
