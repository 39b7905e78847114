/**
 * Chunks, postings and vectors of files in stores. Every statement that removes them runs in the transaction that ends the file's
 * stay, so that what a search sees and what the statistics count change together.
 */
import { type RawBuilder, sql } from 'kysely';
import { embeddingDimensions } from '../../config/retrieval-values.ts';
import { assert } from '../../primitives/assert.ts';
import type { Sql } from './database.ts';

/** Where a store's rows are. */
export interface StorePlace {
  readonly store_no: number;
  readonly shard_id: number;
  /** Where the rows are moving to: each is in one of the two shards, and new ones go there. Null almost always. */
  readonly moving_to_shard: number | null;
  /** The space that searches read, and the model and size of its vectors. */
  readonly space_no: number;
  readonly embedding_model: string;
  readonly embedding_dimensions: number;
  /** The space that is being filled meanwhile; null when the store is not being embedded anew. */
  readonly building_space_no: number | null;
  readonly building_dimensions: number | null;
}

/** Of `app.vector_store s`. */
export const placeColumns = sql`s.store_no, s.shard_id, s.moving_to_shard, s.space_no, s.embedding_model, s.embedding_dimensions, s.building_space_no, s.building_dimensions`;

/** Whose value is the shard of a row of this store. With one shard it is an equation, so that the planner sees one partition. */
export function inShards({ shard_id: shard, moving_to_shard: movingTo }: StoreShards, column = sql`shard_id`): RawBuilder<unknown> {
  return movingTo === null ? sql`${column} = ${shard}::int` : sql`${column} = ANY (${[shard, movingTo]}::int[])`;
}

export function shardForNewRows({ shard_id: shard, moving_to_shard: movingTo }: StoreShards): number {
  return movingTo ?? shard;
}

export type StoreShards = Pick<StorePlace, 'shard_id' | 'moving_to_shard'>;

export interface EmbeddingSpace {
  readonly spaceNo: number;
  readonly dimensions: number;
}

/** The spaces of a store that are in use. What is left of others goes in bounded batches, or with the file. */
export function spacesOf(place: StorePlace): readonly EmbeddingSpace[] {
  const active = { spaceNo: place.space_no, dimensions: place.embedding_dimensions };
  const { building_space_no: spaceNo, building_dimensions: dimensions } = place;
  return spaceNo === null || dimensions === null ? [active] : [active, { spaceNo, dimensions }];
}

export function embeddingTable(dimensions: number): RawBuilder<unknown> {
  assert(embeddingDimensions.includes(dimensions), 'there is a table for this dimension');
  return sql.table(`app.embedding_${dimensions}`);
}

/** The column type: a vector of 3,072 float32 does not fit a page. */
export function vectorType(dimensions: number): RawBuilder<unknown> {
  return dimensions > 2_000 ? sql`public.halfvec` : sql`public.vector`;
}

/** Removes everything indexed of these files, shown or hidden. The statistics are the caller's. */
export async function deleteContents(db: Sql, place: StorePlace, fileNos: readonly number[]): Promise<void> {
  if (fileNos.length === 0) return;
  const here = sql`${inShards(place)} AND store_no = ${place.store_no}::int AND file_no = ANY (${fileNos}::int[])`;
  for (const { dimensions, spaceNo } of spacesOf(place)) {
    await sql`DELETE FROM ${embeddingTable(dimensions)} WHERE space_no = ${spaceNo}::int AND ${here}`.execute(db);
  }
  await sql`DELETE FROM app.posting WHERE ${here}`.execute(db);
  await sql`DELETE FROM app.chunk WHERE ${here}`.execute(db);
}

/** Removes everything indexed in a store. */
export async function deleteStoreContents(db: Sql, place: StorePlace): Promise<void> {
  const here = sql`${inShards(place)} AND store_no = ${place.store_no}::int`;
  for (const { dimensions, spaceNo } of spacesOf(place)) {
    await sql`DELETE FROM ${embeddingTable(dimensions)} WHERE space_no = ${spaceNo}::int AND ${here}`.execute(db);
  }
  await sql`DELETE FROM app.posting WHERE ${here}`.execute(db);
  await sql`DELETE FROM app.chunk WHERE ${here}`.execute(db);
}

/** Locks a store for a change of what a search can see, and raises its revision. Undefined: no such store. */
export async function lockStore(db: Sql, which: RawBuilder<unknown>): Promise<StorePlace | undefined> {
  const { rows } = await sql<StorePlace>`
    UPDATE app.vector_store s SET revision = revision + 1 WHERE ${which} RETURNING ${placeColumns}`.execute(db);
  return rows[0];
}

/**
 * Where a store's rows are now. Whoever writes or removes rows of a file asks after taking the file's lock, in a statement of its own: rows may have
 * moved while the lock was waited for (shard-rows.ts).
 */
export async function placeNow(db: Sql, storeNo: number): Promise<StorePlace> {
  const { rows } = await sql<StorePlace>`SELECT ${placeColumns} FROM app.vector_store s WHERE s.store_no = ${storeNo}`.execute(db);
  const [place] = rows;
  assert(place !== undefined, 'a store is there as long as one of its files is locked');
  return place;
}

/** Takes a file out of one store, whose row is locked. False: it is not in it. */
export async function detachLocked(db: Sql, place: StorePlace, fileId: string): Promise<boolean> {
  const { rows } = await sql<AttachmentCounts>`
    SELECT file_no, usage_bytes, chunk_count, term_count FROM app.vector_store_file
     WHERE store_no = ${place.store_no} AND file_id = ${fileId} FOR UPDATE`.execute(db);
  const [file] = rows;
  if (file === undefined) return false;
  await deleteContents(db, place, [file.file_no]);
  await sql`DELETE FROM app.vector_store_file WHERE store_no = ${place.store_no} AND file_no = ${file.file_no}`.execute(db);
  await sql`
    UPDATE app.vector_store
       SET usage_bytes = usage_bytes - ${file.usage_bytes}::bigint, chunk_count = chunk_count - ${file.chunk_count}::bigint,
           term_count = term_count - ${file.term_count}::bigint
     WHERE store_no = ${place.store_no}`.execute(db);
  return true;
}

/** Takes a file, whose row is locked, out of every store. Stores are locked in the order of their numbers. */
export async function removeFromStores(db: Sql, fileId: string): Promise<void> {
  const { rows } = await sql<{ readonly store_no: number }>`
    SELECT store_no FROM app.vector_store_file WHERE file_id = ${fileId} ORDER BY store_no`.execute(db);
  for (const { store_no } of rows) {
    const place = await lockStore(db, sql`store_no = ${store_no}`);
    if (place !== undefined) await detachLocked(db, place, fileId);
  }
}

interface AttachmentCounts {
  readonly file_no: number;
  readonly usage_bytes: string;
  readonly chunk_count: string;
  readonly term_count: string;
}
