/** Vectors of spaces that a store no longer reads and does not fill: left by a switch of models, or by one that was given up. */
import { type RawBuilder, sql } from 'kysely';
import { embeddingDimensions } from '../../config/retrieval-values.ts';
import type { Sql } from './database.ts';
import { embeddingTable, inShards, placeColumns, type StorePlace } from './documents-contents.ts';

/** Rows of one transaction. */
const clearVectorsMax = 512;

export async function hasStaleVectors(db: Sql, store: StorePlace): Promise<boolean> {
  for (const dimensions of embeddingDimensions) {
    if ((await staleSpaceIn(db, store, dimensions)) !== undefined) return true;
  }
  return false;
}

export async function clearStaleVectors(db: Sql, storeId: string): Promise<void> {
  const { rows } = await sql<StorePlace>`SELECT ${placeColumns} FROM app.vector_store s WHERE s.id = ${storeId} FOR NO KEY UPDATE`.execute(
    db,
  );
  const [store] = rows;
  if (store === undefined) return;
  for (const dimensions of embeddingDimensions) {
    const spaceNo = await staleSpaceIn(db, store, dimensions);
    if (spaceNo === undefined) continue;
    const table = embeddingTable(dimensions);
    for (const shard of [store.shard_id, ...(store.moving_to_shard === null ? [] : [store.moving_to_shard])]) {
      const here = sql`e.shard_id = ${shard}::int AND e.store_no = ${store.store_no}::int AND e.space_no = ${spaceNo}::int`;
      // A place in the file means a row of one partition only.
      await sql`
        DELETE FROM ${table} WHERE shard_id = ${shard}::int AND ctid = ANY (ARRAY(
          SELECT e.ctid FROM ${table} e WHERE ${here} LIMIT ${clearVectorsMax}::int))`.execute(db);
    }
    return;
  }
}

/** Numbers are taken in order, so what is filled now has the highest: stale are those below the active one, and those between the two. */
async function staleSpaceIn(db: Sql, store: StorePlace, dimensions: number): Promise<number | undefined> {
  const { space_no: active, building_space_no: building } = store;
  const between = building === null ? sql`e.space_no > ${active}::int` : sql`e.space_no > ${active}::int AND e.space_no < ${building}::int`;
  for (const isStale of [sql`e.space_no < ${active}::int`, between]) {
    const { rows } = await sql<{ readonly space_no: number }>`
      SELECT e.space_no FROM ${embeddingTable(dimensions)} e WHERE ${inStore(store)} AND ${isStale} ORDER BY e.space_no LIMIT 1`.execute(
      db,
    );
    if (rows[0] !== undefined) return rows[0].space_no;
  }
  return undefined;
}

function inStore(store: StorePlace): RawBuilder<unknown> {
  return sql`${inShards(store, sql`e.shard_id`)} AND e.store_no = ${store.store_no}::int`;
}
