/**
 * Search inside a tenant's stores: embed the question (through admission and metering like any other spending), search each store
 * through the scope's capability, check every chunk's owner again, merge.
 */
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { UsageEvent } from '../metering/usage-event.ts';
import { mergeRanked, type RetrievalWeights, retrieveOwned } from '../rag/retrieve.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { AttributeFilter } from '../tenancy/attributes.ts';
import type { RetrievedChunk } from '../tenancy/capabilities.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import { type InferenceParts, serveEmbedding } from './serve-inference.ts';

export interface RetrievalQuery {
  readonly scope: TenantScope;
  readonly requestId: string;
  readonly signal: AbortSignal;
  readonly endpoint: UsageEvent['endpoint'];
  /** 1 to 16 stores; one that is absent (or another tenant's) is `not_found`. */
  readonly storeIds: readonly string[];
  readonly queries: readonly string[];
  /** 1 to 50. */
  readonly limit: number;
  /** 0 to 1; results below it are dropped. */
  readonly scoreThreshold: number;
  readonly filter: AttributeFilter | undefined;
}

export interface RetrievalPath {
  search(query: RetrievalQuery): Promise<{ readonly chunks: readonly RetrievedChunk[] }>;
}

export interface RetrievalParts extends InferenceParts {
  readonly embeddingModel: string;
  readonly weights: RetrievalWeights;
  /** Where a chunk of another tenant would be reported. */
  readonly logger: Logger;
}

export function createRetrievalPath(parts: RetrievalParts): RetrievalPath {
  return { search: (query) => search(parts, query) };
}

async function search(parts: RetrievalParts, query: RetrievalQuery) {
  const { scope, queries, storeIds } = query;
  const embeddings = await embedQueries(parts, query);
  const rankings: (readonly RetrievedChunk[])[] = [];
  for (const storeId of storeIds) {
    for (const [index, text] of queries.entries()) {
      const embedding = embeddings[index] as Float32Array;
      const found = await retrieveOwned(scope, storeId, {
        text,
        embedding,
        filter: query.filter,
        limit: query.limit,
        weights: parts.weights,
        signal: query.signal,
      });
      if (found === undefined) throw new BulkheadError('not_found', `No vector store found with id ${quoteInput(storeId)}.`);
      rankings.push(found);
    }
  }
  const chunks = mergeRanked(rankings, query.limit).filter((chunk) => chunk.score >= query.scoreThreshold);
  return { chunks };
}

async function embedQueries(parts: RetrievalParts, query: RetrievalQuery): Promise<readonly Float32Array[]> {
  const body = { model: parts.embeddingModel, input: query.queries, encoding_format: 'float' };
  const { scope, requestId, signal, endpoint } = query;
  const served = await serveEmbedding(parts, { scope, requestId, signal, endpoint, body });
  const items = served.parsed['data'] as readonly { readonly embedding: readonly number[] }[];
  return items.map((item) => Float32Array.from(item.embedding));
}
