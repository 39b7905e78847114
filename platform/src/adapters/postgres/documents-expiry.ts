/**
 * The end of a vector store's time: `expires_after_days` after it was last active. Expired is what the clock says, at once and for good, because
 * nothing moves an expired store's clock; its contents go with the job of that time.
 */
import { type RawBuilder, sql } from 'kysely';
import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import type { Sql } from './database.ts';
import { deleteStoreContents, lockStore } from './documents-contents.ts';

const dayMs = 86_400_000;

export interface StoreLife {
  readonly lastActiveAtMs: number;
  readonly expiresAfterDays?: number | undefined;
}

export function isExpired({ lastActiveAtMs, expiresAfterDays }: StoreLife, nowMs: number): boolean {
  return expiresAfterDays !== undefined && lastActiveAtMs + expiresAfterDays * dayMs <= nowMs;
}

export function storeExpired(storeId: string): BulkheadError {
  return new BulkheadError('vector_store_expired', `The vector store ${quoteInput(storeId)} has expired.`);
}

/** Throws `vector_store_expired`. */
export async function refuseExpired(db: Sql, storeId: string, nowMs: number): Promise<void> {
  const { rows } = await sql`SELECT 1 FROM app.vector_store WHERE id = ${storeId} AND ${expiresAtMs} <= ${nowMs}`.execute(db);
  if (rows.length > 0) throw storeExpired(storeId);
}

/** Empties a store whose time is up. Milliseconds until then when it is not; undefined when there is nothing to wait for. */
export async function expireStore(db: Sql, storeId: string, nowMs: number): Promise<number | undefined> {
  const { rows } = await sql<{ readonly expires_at_ms: string | null }>`
    SELECT ${expiresAtMs} AS expires_at_ms FROM app.vector_store WHERE id = ${storeId} FOR UPDATE`.execute(db);
  const atMs = rows[0]?.expires_at_ms;
  if (atMs === undefined || atMs === null) return undefined;
  if (Number(atMs) > nowMs) return Number(atMs) - nowMs;
  const place = await lockStore(db, sql`id = ${storeId}`);
  if (place === undefined) return undefined;
  await sql`SELECT 1 FROM app.vector_store_file WHERE store_no = ${place.store_no} ORDER BY file_no FOR UPDATE`.execute(db);
  await deleteStoreContents(db, place);
  await sql`DELETE FROM app.file_batch WHERE store_no = ${place.store_no}`.execute(db);
  await sql`DELETE FROM app.vector_store_file WHERE store_no = ${place.store_no}`.execute(db);
  await sql`UPDATE app.vector_store SET usage_bytes = 0, chunk_count = 0, term_count = 0 WHERE store_no = ${place.store_no}`.execute(db);
  return undefined;
}

/** NULL for a store that lives for ever. */
const expiresAtMs: RawBuilder<unknown> = sql`(last_active_at_ms + expires_after_days::bigint * ${sql.lit(dayMs)})`;
