/**
 * Moves the rows of one store from its shard to another, while the store is searched and written: a few files at a time, in short transactions as the
 * tenant, under the files' locks. A row is removed and inserted by one statement, so every snapshot has it in exactly one of the two shards.
 *
 * Why nothing is left behind: whoever writes or removes rows of a file holds the file's lock (or all of a store's), and reads where the store's rows go
 * after taking it. `moving_to_shard` is committed before the first file is locked here, so rows written later go to the new shard.
 */
import { sql } from 'kysely';
import type { Sql, TenantDatabase } from './database.ts';
import type { TenantTable } from './tenant-tables.ts';

export interface StoreMove {
  readonly storeNo: number;
  readonly fromShard: number;
  readonly toShard: number;
}

export interface RowMover {
  readonly database: TenantDatabase;
  /** The tables of `tenantTables` that lie in shards. */
  readonly tables: readonly TenantTable[];
  readonly signal: AbortSignal;
  /** After each transaction; tests end the process here. */
  readonly onBatch?: () => void | Promise<void>;
}

/** Files locked together, and what one transaction moves of each table. Postings, the one table without a key, are narrow. */
const filesAtOnce = 32;
const rowsAtOnce = 250;
const postingsAtOnce = 4_000;

interface Batch {
  readonly move: StoreMove;
  readonly fileNos: readonly number[];
  /** False: files that somebody else holds are left out, so that waiting for two can never close a circle. */
  readonly waits: boolean;
}

/** False when the store is not on this move any more: it was deleted, or another process ended the move. May be repeated after a crash. */
export async function moveRows(mover: RowMover, move: StoreMove): Promise<boolean> {
  for (let after = 0; ; ) {
    const files = await filesAfter(mover.database, move.storeNo, after);
    const last = files.at(-1);
    if (last === undefined) return true;
    const { isOurs, leftOut } = await moveFiles(mover, { move, fileNos: files, waits: false });
    if (!isOurs) return false;
    for (const fileNo of leftOut) {
      if (!(await moveFiles(mover, { move, fileNos: [fileNo], waits: true })).isOurs) return false;
    }
    after = last;
  }
}

async function filesAfter(database: TenantDatabase, storeNo: number, after: number): Promise<readonly number[]> {
  const { rows } = await database.read((db) =>
    sql<{ readonly file_no: number }>`
      SELECT file_no FROM app.vector_store_file WHERE store_no = ${storeNo} AND file_no > ${after} ORDER BY file_no LIMIT ${filesAtOnce}`.execute(
      db,
    ),
  );
  return rows.map((row) => row.file_no);
}

interface Moved {
  readonly isOurs: boolean;
  readonly leftOut: readonly number[];
}

async function moveFiles(mover: RowMover, batch: Batch): Promise<Moved> {
  const leftOut = new Set<number>();
  for (;;) {
    mover.signal.throwIfAborted();
    const step = await mover.database.write((db) => moveSome(db, mover.tables, batch));
    for (const fileNo of step.leftOut) leftOut.add(fileNo);
    await mover.onBatch?.();
    if (!step.isOurs || !step.hasMore) return { isOurs: step.isOurs, leftOut: [...leftOut] };
  }
}

async function moveSome(
  db: Sql,
  tables: readonly TenantTable[],
  { move, fileNos, waits }: Batch,
): Promise<Moved & { readonly hasMore: boolean }> {
  const { rows } = await sql<{ readonly file_no: number }>`
    SELECT file_no FROM app.vector_store_file WHERE store_no = ${move.storeNo} AND file_no = ANY (${fileNos}::int[])
     ORDER BY file_no FOR UPDATE ${waits ? sql`` : sql`SKIP LOCKED`}`.execute(db);
  const locked = rows.map((row) => row.file_no);
  // A statement of its own: it must see what was committed while the lock was waited for. Without sequential scans the rows are found by their keys.
  const place = await sql<{ readonly space_count: number }>`
    SELECT next_space_no AS space_count, set_config('enable_seqscan', 'off', true) FROM app.vector_store
     WHERE store_no = ${move.storeNo} AND shard_id = ${move.fromShard} AND moving_to_shard = ${move.toShard}`.execute(db);
  const [store] = place.rows;
  if (store === undefined) return { isOurs: false, leftOut: [], hasMore: false };
  let hasMore = false;
  for (const table of tables) {
    const rowsMax = table.key.length === 0 ? postingsAtOnce : rowsAtOnce;
    const moved = await moveRowsOf(db, table, { move, fileNos: locked, spaceCount: store.space_count, rowsMax });
    hasMore ||= moved === rowsMax;
  }
  return { isOurs: true, leftOut: waits ? [] : fileNos.filter((fileNo) => !locked.includes(fileNo)), hasMore };
}

interface Portion {
  readonly move: StoreMove;
  readonly fileNos: readonly number[];
  readonly spaceCount: number;
  readonly rowsMax: number;
}

/** At most `rowsMax`; how many. The shard is always named, so a row's physical place is one in that shard. */
async function moveRowsOf(db: Sql, table: TenantTable, { move, fileNos, spaceCount, rowsMax }: Portion): Promise<number> {
  const name = sql.table(`app.${table.name}`);
  const columns = sql.join(table.columns.map((column) => sql.ref(column.name)));
  const hasSpaces = table.columns.some((column) => column.name === 'space_no');
  // Named so that the key's order serves: store, space, file.
  const spaces = hasSpaces ? sql`AND r.space_no = ANY (ARRAY(SELECT generate_series(0, ${spaceCount}::int)))` : sql``;
  const { numAffectedRows = 0n } = await sql`
    WITH taken AS (
      DELETE FROM ${name} t WHERE t.shard_id = ${move.fromShard}::int AND t.ctid = ANY (ARRAY(
        SELECT r.ctid FROM ${name} r
         WHERE r.shard_id = ${move.fromShard}::int AND r.store_no = ${move.storeNo}::int AND r.file_no = ANY (${fileNos}::int[]) ${spaces}
         LIMIT ${rowsMax}))
      RETURNING ${columns})
    INSERT INTO ${name} (shard_id, ${columns}) SELECT ${move.toShard}::int, ${columns} FROM taken`.execute(db);
  return Number(numAffectedRows);
}
