/**
 * Exact hybrid search: which path ranks a store, and what every path has in common. Nearest vectors and BM25 are ranked apart and fused by weighted
 * reciprocal rank (`rag/hybrid-ranking.ts`), then the rows of the ranking are read. Whatever other tenants do, and whichever path answers, ids and scores stay
 * the same to the last bit (test/retrieval/non-interference.test.ts).
 */
import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { assertDimensions } from '../../rag/embed-texts.ts';
import { fuse } from '../../rag/hybrid-ranking.ts';
import type { HybridQuery } from '../../tenancy/capabilities.ts';
import type { Sql, TenantDatabase } from './database.ts';
import { placeColumns, type StorePlace } from './documents-contents.ts';
import { type ApproximateSearch, approximateArms, type IndexedStore } from './documents-search-approximate.ts';
import { exactArms } from './documents-search-arms.ts';
import { searchResident } from './documents-search-resident.ts';
import { readRanked, type SealedChunk } from './documents-search-rows.ts';
import type { TenantResidents } from './resident-partitions.ts';

export interface StoreSearch {
  readonly chunks: readonly SealedChunk[];
  readonly lastActiveAtMs: number;
  readonly expiresAfterDays: number | undefined;
}

export interface SearchPaths {
  readonly database: TenantDatabase;
  /** Absent: nothing is kept in memory. */
  readonly residents?: TenantResidents | undefined;
  /** On a real server, where large stores may have an index of their own. */
  readonly approximate?: ApproximateSearch | undefined;
}

/** From memory when the store is there, else through SQL. Undefined: no such store. Throws as `assertComparable`. */
export async function searchStore(
  { database, residents, approximate }: SearchPaths,
  storeId: string,
  query: HybridQuery,
): Promise<StoreSearch | undefined> {
  if (residents !== undefined) {
    const resident = await searchResident({ database, residents }, storeId, query);
    if (resident.kind === 'absent') return undefined;
    if (resident.kind === 'found') return { ...resident.head, chunks: resident.chunks };
  }
  query.signal?.throwIfAborted();
  const found = await database.read((db) => searchThroughSql(db, storeId, { query, approximate }));
  if (found !== undefined) residents?.keep(storeId);
  return found;
}

/** In one snapshot. */
async function searchThroughSql(
  db: Sql,
  storeId: string,
  { query, approximate }: { readonly query: HybridQuery; readonly approximate: ApproximateSearch | undefined },
): Promise<StoreSearch | undefined> {
  const store = await openStore(db, storeId);
  if (store === undefined) return undefined;
  assertComparable(store, query);
  const near = approximate && (await approximateArms(db, { store, query }, approximate));
  const ranked = fuse(near ?? (await exactArms(db, store, query)), query);
  return {
    chunks: await readRanked(db, { storeId, store }, ranked),
    lastActiveAtMs: Number(store.last_active_at_ms),
    expiresAfterDays: store.expires_after_days ?? undefined,
  };
}

/** Vectors of two models say nothing about each other, even when they are equally long. Throws `embedding_model_changed`; `embedding_failed` when a model does not answer what it is configured to. */
export function assertComparable(store: StorePlace, { embedding, embeddingModel }: HybridQuery): void {
  if (store.embedding_model !== embeddingModel) {
    const details = { embedding_model: store.embedding_model };
    throw new BulkheadError('embedding_model_changed', 'The vector store has just been embedded by another model; try again.', { details });
  }
  assertDimensions(embedding, store.embedding_dimensions);
}

interface OpenedStore extends IndexedStore {
  readonly last_active_at_ms: string;
  readonly expires_after_days: number | null;
}

/**
 * Settings that end with the transaction: without sequential scans a search reads its own tenant's rows through the key, so its time
 * does not depend on how many rows others have in the shard; compiling a query costs more than running it.
 */
async function openStore(db: Sql, storeId: string): Promise<OpenedStore | undefined> {
  const { rows } = await sql<OpenedStore>`
    SELECT ${placeColumns}, s.index_space_no, s.index_ef_search, s.language, s.chunk_count, s.term_count, s.last_active_at_ms, s.expires_after_days,
           EXISTS (SELECT FROM app.vector_store_file f WHERE f.store_no = s.store_no AND f.draft IS NOT NULL) AS has_drafts,
           set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)
      FROM app.vector_store s WHERE s.id = ${storeId}`.execute(db);
  return rows[0];
}
