/**
 * The third path of a search: the nearest vectors of a large store by its own approximate index, whose recall was measured. Everything else, words, filters,
 * the order of candidates and the fusion, is what the other paths do. Whoever gets no arms from here takes the exact ones:
 *
 *  - the store has no index that is ready, or it moves, or its index was found wanting;
 *  - so few chunks pass the filter that looking at all of them is quicker, and right;
 *  - the index came back with fewer than there are.
 */
import { type RawBuilder, sql } from 'kysely';
import type { TenantId } from '../../primitives/ids.ts';
import type { Random } from '../../primitives/random.ts';
import { type Arms, type ChunkPlace, candidateDepth } from '../../rag/hybrid-ranking.ts';
import type { HybridQuery } from '../../tenancy/capabilities.ts';
import type { Sql } from './database.ts';
import { armsOf, candidateStatement, exactArms, isVisible, matchingFiles, type SearchedStore } from './documents-search-arms.ts';
import { recallDepth } from './index-recall.ts';
import { approximateShape, prepareApproximate } from './nearest-vectors.ts';
import type { RecallWatch } from './recall-watch.ts';
import { vectorText } from './vector-text.ts';

export interface ApproximateSearch {
  readonly tenantId: TenantId;
  /** Below so many visible chunks a search is exact. */
  readonly chunksMin: number;
  /** Rows of the index that one question may look at. */
  readonly scanTuplesMax: number;
  /** The share of questions that are also answered exactly, and compared. */
  readonly shadowShare: number;
  readonly random: Random;
  readonly watch: RecallWatch;
}

export interface IndexedStore extends SearchedStore {
  readonly index_space_no: number | null;
  readonly index_ef_search: number | null;
}

/** In the transaction that read the store. Undefined: ask exactly. */
export async function approximateArms(
  db: Sql,
  { store, query }: { readonly store: IndexedStore; readonly query: HybridQuery },
  search: ApproximateSearch,
): Promise<Arms | undefined> {
  const index = { tenantId: search.tenantId, storeNo: store.store_no, spaceNo: store.space_no };
  const isReady = store.index_ef_search !== null && store.index_space_no === store.space_no && store.moving_to_shard === null;
  if (!isReady || !search.watch.isTrusted(index)) return undefined;
  const visible = await visibleChunks(db, store, query);
  if (visible < search.chunksMin) return undefined;
  await prepareApproximate(db, { efSearch: store.index_ef_search, scanTuplesMax: search.scanTuplesMax });
  const { rows } = await candidateStatement(store, query, approximateArm(store, query)).execute(db);
  if (rows.filter(({ vector }) => vector !== null).length < Math.min(candidateDepth, visible)) return undefined;
  const arms = armsOf(rows, query);
  if (search.random.next() >= search.shadowShare) return arms;
  const exact = await exactArms(db, store, query);
  search.watch.note(index, shareOf(exact.dense, arms.dense));
  return exact;
}

/** Chunks that the question may be answered with: files say how many each has. */
async function visibleChunks(db: Sql, store: IndexedStore, query: HybridQuery): Promise<number> {
  if (query.filter === undefined) return Number(store.chunk_count);
  const { rows } = await sql<{ readonly chunks: string | null }>`
    SELECT sum(chunk_count) AS chunks FROM app.vector_store_file
     WHERE store_no = ${store.store_no}::int AND file_no IN (${matchingFiles(store, query)})`.execute(db);
  return Number(rows[0]?.chunks ?? 0);
}

export function approximateArm(store: IndexedStore, query: HybridQuery): RawBuilder<unknown> {
  const place = { storeNo: store.store_no, shard: store.shard_id, spaceNo: store.space_no, dimensions: store.embedding_dimensions };
  const asked = { place, question: vectorText(query.embedding), limit: candidateDepth, isVisible: isVisible(store, query, sql`e.file_no`) };
  return approximateShape(asked, sql`e.file_no, e.ordinal, e.embedding`);
}

/** Both sides are ordered by the same distance, so equal vectors at the edge are told apart by place alike. */
function shareOf(exact: readonly ChunkPlace[], found: readonly ChunkPlace[]): number {
  const wanted = exact.slice(0, recallDepth);
  if (wanted.length === 0) return 1;
  const places = new Set(found.slice(0, recallDepth).map(({ fileNo, ordinal }) => `${fileNo}:${ordinal}`));
  return wanted.filter(({ fileNo, ordinal }) => places.has(`${fileNo}:${ordinal}`)).length / wanted.length;
}
