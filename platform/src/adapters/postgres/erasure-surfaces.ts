/** Every table with a tenant in it, read from the catalogue: a new one is counted and erased without being named. */
import { sql } from 'kysely';
import type { TenantId } from '../../primitives/ids.ts';
import type { Sql } from './database.ts';
import type { OwnerDatabase } from './owner-database.ts';
import { parentsFirst } from './tenant-tables.ts';

export interface ErasedTable {
  /** `app.file`. */
  readonly name: string;
  readonly isPerFile: boolean;
  readonly hasShards: boolean;
  /** Why its rows stay; undefined: they go. */
  readonly kept: string | undefined;
}

/** What stays, and why. The receipt lists it with its counts. */
const kept: ReadonlyMap<string, string> = new Map([
  ['control.usage_daily', 'the bill: sums by day, model, key id and endpoint, without content or users'],
  ['control.tenant_erasure', 'the record of this erasure and its receipt'],
  ['app.residence', 'one row without content: nobody may enter under this id again'],
]);

interface TableRow {
  readonly name: string;
  readonly parents: readonly string[] | null;
  readonly columns: readonly string[];
}

/** Parents before those that refer to them. */
export async function erasedTables(owner: OwnerDatabase): Promise<readonly ErasedTable[]> {
  const { rows } = await owner.asOwner((client) => client.query<TableRow>(catalogueQuery));
  return parentsFirst(rows).map(({ name, columns }) => ({
    name,
    isPerFile: ['store_no', 'file_no', 'ordinal'].every((column) => columns.includes(column)),
    hasShards: name.startsWith('app.') && columns.includes('shard_id'),
    kept: kept.get(name),
  }));
}

const catalogueQuery = `
  SELECT format('%s.%s', n.nspname, c.relname) AS name,
    (SELECT json_agg(DISTINCT format('%s.%s', pn.nspname, p.relname)) FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
      WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.confrelid <> c.oid) AS parents,
    (SELECT json_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname IN ('app', 'control') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = 'tenant_id' AND NOT t.attisdropped)
  ORDER BY 1`;

export async function countRowsOf(db: Sql, table: string, tenantId: TenantId): Promise<number> {
  const { rows } = await sql<{ readonly count: string }>`SELECT count(*) FROM ${sql.table(table)} WHERE tenant_id = ${tenantId}`.execute(
    db,
  );
  const count = Number(rows[0]?.count);
  if (!Number.isSafeInteger(count)) throw new Error(`the rows of ${table} cannot be counted`);
  return count;
}

/** Pooled shard of the tenant and every shard that holds a row of it. */
export async function shardsOf(owner: OwnerDatabase, tables: readonly ErasedTable[], tenantId: TenantId): Promise<readonly number[]> {
  const shards = new Set<number>();
  await owner.read(tenantId, async (db) => {
    const home = await sql<{ readonly shard: number }>`SELECT app.home_shard() AS shard`.execute(db);
    for (const { shard } of home.rows) shards.add(shard);
    for (const { name } of tables.filter(({ hasShards }) => hasShards)) {
      const found = await sql<{ readonly shard: number }>`
        SELECT DISTINCT shard_id AS shard FROM ${sql.table(name)} WHERE tenant_id = ${tenantId}`.execute(db);
      for (const { shard } of found.rows) shards.add(shard);
    }
  });
  return [...shards].toSorted((left, right) => left - right);
}

/** Rows of one transaction: words, vectors and chunks are many and small, others may be parts of files. */
const smallRowsAtOnce = 2_000;
const rowsAtOnce = 100;

/** Removes the tenant's rows in short transactions; `onBatch` is called before each. */
export async function deleteRowsOf(
  owner: OwnerDatabase,
  table: ErasedTable,
  erasing: { readonly tenantId: TenantId; readonly onBatch: () => Promise<void> },
): Promise<void> {
  const { tenantId, onBatch } = erasing;
  const limit = table.isPerFile ? smallRowsAtOnce : rowsAtOnce;
  for (;;) {
    await onBatch();
    // Places in two partitions may be alike: then rows of the same tenant go that were to go anyway.
    const { numAffectedRows } = await owner.write(tenantId, (db) =>
      sql`
        DELETE FROM ${sql.table(table.name)} WHERE tenant_id = ${tenantId}
           AND ctid = ANY (ARRAY(SELECT ctid FROM ${sql.table(table.name)} WHERE tenant_id = ${tenantId} LIMIT ${limit}))`.execute(db),
    );
    if (Number(numAffectedRows ?? 0) === 0) return;
  }
}

/** The tenant's own partitions with every page in them, once no row is there. */
export async function dropDedicatedShard(owner: OwnerDatabase, tenantId: TenantId): Promise<void> {
  await owner.write(tenantId, async (db) => {
    const { rows } = await sql<{ readonly known: boolean }>`
      SELECT to_regprocedure('control.drop_dedicated_shard(text)') IS NOT NULL AS known`.execute(db);
    if (rows[0]?.known === true) await sql`SELECT control.drop_dedicated_shard(${tenantId})`.execute(db);
  });
}
