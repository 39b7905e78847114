/**
 * Sixth step: question -> passages. Before it, a question was embedded; after it, `assemble.ts` writes the passages into a prompt.
 *
 * Invariant: every chunk that leaves here belongs to the scope's tenant. The database has already filtered; the owner that each
 * row carries is compared once more, because this is the last place before a foreign text could enter a prompt.
 */
import { AssertionError } from '../primitives/assert.ts';
import type { Logger } from '../telemetry/logger.ts';
import { silentLogger } from '../telemetry/logger.ts';
import type { HybridQuery, RetrievedChunk } from '../tenancy/capabilities.ts';
import { TenantScope } from '../tenancy/tenant-scope.ts';

/** What each arm of hybrid search counts for; the hashed stand-in embedder is held at `standInDenseWeightMax`. */
export type RetrievalWeights = HybridQuery['weights'];

/**
 * What the hashed stand-in embedder weighs by default, and at most. Words alone rank better on every set that was measured
 * (docs/reference/retrieval-quality.md): at 0.1 it helps or costs less than 0.01 nDCG@10, at 0.3 up to 0.04.
 */
export const standInDenseWeight = 0.1;
export const standInDenseWeightMax = 0.3;

/** Searches one store. Undefined: the tenant has no such store. A foreign chunk raises an alarm record and an AssertionError. */
export async function retrieveOwned(
  scope: TenantScope,
  storeId: string,
  query: HybridQuery,
  alarms: Logger = silentLogger,
): Promise<readonly RetrievedChunk[] | undefined> {
  const chunks = await scope.vectorStores.search(storeId, query);
  if (chunks !== undefined) assertOwned(scope, chunks, alarms);
  return chunks;
}

/** Throws unless every chunk belongs to the scope's tenant. Logs ids only. */
export function assertOwned(scope: TenantScope, chunks: readonly RetrievedChunk[], alarms: Logger = silentLogger): void {
  if (!TenantScope.is(scope)) throw new AssertionError('passages belong to a scope');
  const foreign = chunks.find((chunk) => chunk.ownerId !== scope.tenantId);
  if (foreign === undefined) return;
  alarms.error({ component: 'retrieval', tenantId: scope.tenantId, code: 'foreign_chunk' }, 'a chunk of another tenant was stopped');
  throw new AssertionError('a retrieved chunk belongs to another tenant');
}

/**
 * One ranking out of several (several stores or several questions), best first, at most `limit`. A chunk found more than once is kept
 * once and gains: its scores are joined as independent evidence, `1 - (1 - a)(1 - b)`, so a score stays in (0, 1] and a chunk found
 * once keeps its own.
 */
export function mergeRanked(rankings: readonly (readonly RetrievedChunk[])[], limit: number): readonly RetrievedChunk[] {
  const [only] = rankings;
  if (rankings.length === 1 && only !== undefined) return only.slice(0, limit);
  const merged = new Map<string, RetrievedChunk>();
  for (const chunk of rankings.flat()) {
    const key = `${chunk.vectorStoreId}/${chunk.chunkId}`;
    const known = merged.get(key);
    merged.set(key, known === undefined ? chunk : { ...chunk, score: 1 - (1 - known.score) * (1 - chunk.score) });
  }
  return [...merged.entries()]
    .toSorted(([leftKey, left], [rightKey, right]) => right.score - left.score || (leftKey < rightKey ? -1 : 1))
    .slice(0, limit)
    .map(([, chunk]) => chunk);
}
