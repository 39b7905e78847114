/**
 * What the planner knows of columns is pieces of rows: most common values, bounds of histograms. ANALYZE replaces it, but not for a table without rows,
 * whose old statistics stay for good, and not for a partitioned table when only its partitions are analysed.
 */
import type pg from 'pg';
import type { OwnerDatabase } from './owner-database.ts';

/** Runs one statement with the owner's rights, waiting for its lock in turns. */
type Run = (statement: string) => Promise<void>;

interface Tree {
  readonly name: string;
  /** `ALTER TABLE` to the types the columns have: the one statement of PostgreSQL 16 and 17 that drops statistics for an owner who is no superuser. It writes no row. Null: no column needs it. */
  readonly retype: string | null;
  /** One of its relations that were written anew has no page any more. */
  readonly isEmptied: boolean;
  /** A partitioned table with statistics of its own. */
  readonly isAnalysed: boolean;
}

/**
 * Replaces or drops the statistics that quote rows which are gone, after `relations` (names) were written anew and analysed. Two kinds of column
 * keep theirs: `tenant_id`, which a policy holds (the id is on record anyway), and the numbers that tables are partitioned by.
 */
export async function dropStaleStatistics(owner: OwnerDatabase, relations: readonly string[], run: Run): Promise<void> {
  const trees = await owner.asOwner((client) => treesOf(client, relations));
  for (const { name, retype, isEmptied, isAnalysed } of trees) {
    if (isEmptied && retype !== null) await run(retype);
    if (isEmptied || isAnalysed) await run(`ANALYZE ${name}`);
  }
}

/** The statistics themselves cannot be asked for: an owner under row-level security sees none. */
async function treesOf(client: pg.PoolClient, relations: readonly string[]): Promise<readonly Tree[]> {
  const { rows } = await client.query<Tree>(
    `SELECT format('%I.%I', n.nspname, c.relname) AS name,
       (SELECT format('ALTER TABLE %I.%I ', n.nspname, c.relname)
            || string_agg(format('ALTER COLUMN %I TYPE %s', a.attname, format_type(a.atttypid, a.atttypmod))
                 || CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END, ', ' ORDER BY a.attnum)
          FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'tenant_id'
           AND NOT EXISTS (SELECT FROM pg_partitioned_table k WHERE k.partrelid = c.oid AND a.attnum = ANY (k.partattrs::int2[]))) AS retype,
       EXISTS (SELECT FROM unnest($1::text[]) AS written(name)
                WHERE COALESCE(pg_partition_root(written.name::regclass), written.name::regclass) = c.oid
                  AND pg_relation_size(written.name::regclass) = 0) AS "isEmptied",
       c.relkind = 'p' AND c.reltuples >= 0 AS "isAnalysed"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('app', 'control') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND (EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = 'tenant_id' AND NOT t.attisdropped) OR c.oid = 'control.tenant'::regclass)
     ORDER BY 1`,
    [relations],
  );
  return rows;
}
