import { sql } from 'kysely';
import { assert } from '../../primitives/assert.ts';
import type { StoreSpace } from '../../rag/reembed.ts';
import type { Sql } from './database.ts';
import { type EmbeddingSpace, embeddingTable, inShards, placeColumns, type StorePlace, spacesOf } from './documents-contents.ts';

interface ActivatedStore extends StorePlace {
  readonly chunk_count: string;
}

/**
 * Lets searches read the space that was filled. While the store's row is locked no file can appear in it or leave it, so the count holds: a space
 * takes vectors of visible chunks alone, each once, so as many vectors as visible chunks are one for each.
 */
export async function activateSpace(db: Sql, { storeId, spaceNo }: StoreSpace): Promise<boolean> {
  const { rows } = await sql<ActivatedStore>`
    SELECT ${placeColumns}, s.chunk_count FROM app.vector_store s WHERE s.id = ${storeId} AND s.building_space_no = ${spaceNo} FOR UPDATE`.execute(
    db,
  );
  const [store] = rows;
  if (store === undefined) return false;
  const [active, building] = spacesOf(store);
  if (active === undefined || building === undefined) return false;
  const chunks = Number(store.chunk_count);
  const filled = await countVisible(db, store, building);
  if (filled < chunks) return false;
  assert(filled === chunks && (await countVisible(db, store, active)) === chunks, 'both spaces hold a vector for every visible chunk');
  await sql`
    UPDATE app.vector_store
       SET space_no = building_space_no, embedding_model = building_model, embedding_dimensions = building_dimensions, building_space_no = NULL,
           building_model = NULL, building_dimensions = NULL, building_fault = NULL, revision = revision + 1
     WHERE store_no = ${store.store_no}`.execute(db);
  await recountBytes(db, store, (building.dimensions - active.dimensions) * Float32Array.BYTES_PER_ELEMENT);
  return true;
}

async function countVisible(db: Sql, store: StorePlace, { spaceNo, dimensions }: EmbeddingSpace): Promise<number> {
  const { rows } = await sql<{ readonly count: string }>`
    SELECT count(*) FROM ${embeddingTable(dimensions)} e
     WHERE ${inShards(store, sql`e.shard_id`)} AND e.store_no = ${store.store_no}::int AND e.space_no = ${spaceNo}::int
       AND (e.file_no IN (SELECT file_no FROM app.vector_store_file WHERE store_no = ${store.store_no}::int AND status = 'completed')) IS TRUE`.execute(
    db,
  );
  return Number(rows[0]?.count);
}

/** A file's bytes count its vectors. */
async function recountBytes(db: Sql, store: StorePlace, moreBytesPerChunk: number): Promise<void> {
  if (moreBytesPerChunk === 0) return;
  const recounted = sql`usage_bytes = usage_bytes + chunk_count * ${moreBytesPerChunk}::bigint`;
  await sql`UPDATE app.vector_store SET ${recounted} WHERE store_no = ${store.store_no}`.execute(db);
  await sql`UPDATE app.vector_store_file SET ${recounted} WHERE store_no = ${store.store_no} AND status = 'completed'`.execute(db);
}
