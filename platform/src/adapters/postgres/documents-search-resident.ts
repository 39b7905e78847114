/**
 * The path through memory: rank against the partition of revision R, then one read that gives the rows if the store still is at R. A store that has moved on
 * is caught up with and ranked again, a few times at most; whatever cannot be had from memory is left to SQL.
 */
import { type Arms, fuse, fusionWeights, questionTermsMax, type RankedPlace } from '../../rag/hybrid-ranking.ts';
import { lexicalText } from '../../rag/lexical-text.ts';
import { ThreadUnavailable } from '../../rag/resident/partition-thread.ts';
import type { HybridQuery } from '../../tenancy/capabilities.ts';
import type { TenantDatabase } from './database.ts';
import { readRankedAt, type SealedChunk, type StoreHead } from './documents-search-rows.ts';
import type { ResidentStore, TenantResidents } from './resident-partitions.ts';

/** Writes between ranking and reading that a search follows before it goes through SQL. */
const attemptsMax = 3;

export type ResidentSearch =
  | { readonly kind: 'found'; readonly head: StoreHead; readonly chunks: readonly SealedChunk[] }
  /** There is no such store. */
  | { readonly kind: 'absent' }
  /** Memory has no answer. */
  | { readonly kind: 'passed' };

/** Rejects with the signal's reason, and with what the database refuses. */
export async function searchResident(
  { database, residents }: { readonly database: TenantDatabase; readonly residents: TenantResidents },
  storeId: string,
  query: HybridQuery,
): Promise<ResidentSearch> {
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const store = residents.use(storeId);
    if (store === undefined) break;
    const arms = await armsOf(database, store, query);
    if (arms === 'unavailable') break;
    const read = arms === 'stale' ? 'stale' : await readAt(database, { storeId, store }, fuse(arms, query));
    if (read === undefined) {
      residents.forget(storeId);
      return { kind: 'absent' };
    }
    if (read !== 'stale') {
      residents.count('hits');
      return { kind: 'found', ...read };
    }
    if (!(await residents.refresh(storeId))) break;
  }
  residents.count('misses');
  return { kind: 'passed' };
}

async function readAt(
  database: TenantDatabase,
  { storeId, store }: { readonly storeId: string; readonly store: ResidentStore },
  ranked: readonly RankedPlace[],
) {
  const { place, revision, files } = store.contents;
  const shards = [place.shard_id, ...(place.moving_to_shard === null ? [] : [place.moving_to_shard])];
  const read = await readRankedAt(database, { storeId, storeNo: place.store_no, revision, shards, files }, ranked);
  if (read === undefined) return undefined;
  return read.chunks === undefined ? 'stale' : { head: read.head, chunks: read.chunks };
}

/** `stale`: the partition is another by now, or the question is for another. `unavailable`: its thread is lost or busy. */
async function armsOf(database: TenantDatabase, store: ResidentStore, query: HybridQuery): Promise<Arms | 'stale' | 'unavailable'> {
  const { embedding, embeddingModel, filter, signal } = query;
  const { place } = store.contents;
  if (embeddingModel !== place.embedding_model || embedding.length !== place.embedding_dimensions) return 'stale';
  try {
    const [dense, lexical] = await Promise.all([store.nearest(embedding, filter, signal), matchingOf(database, store, query)]);
    return dense === undefined || lexical === undefined ? 'stale' : { dense, lexical };
  } catch (error) {
    if (error instanceof ThreadUnavailable) return 'unavailable';
    throw error;
  }
}

/** The question's words are the database's: the same parser as for the documents. */
async function matchingOf(database: TenantDatabase, store: ResidentStore, { text, weights, filter, signal }: HybridQuery) {
  const asked = lexicalText(text);
  if (fusionWeights(weights).lexical === 0 || asked.trim() === '') return [];
  const rows = await database.call<{ readonly lexeme: string }>('bulkhead_question_words', [
    store.contents.language,
    asked,
    questionTermsMax,
  ]);
  const words = rows.map((row) => row.lexeme);
  return store.matching(words, filter, signal);
}
