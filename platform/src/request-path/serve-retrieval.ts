/**
 * Search inside a tenant's stores: embed the question by each store's own model (through admission and metering like any other spending),
 * search each store through the scope's capability, check every chunk's owner again, merge.
 */
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { UsageEvent } from '../metering/usage-event.ts';
import { mergeRanked, type RetrievalWeights, retrieveOwned } from '../rag/retrieve.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { AttributeFilter } from '../tenancy/attributes.ts';
import type { RetrievedChunk } from '../tenancy/capabilities.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import { QuestionEmbeddings } from './question-embeddings.ts';
import { type RewritingParts, rewriteQueries } from './rewrite-queries.ts';

export interface RetrievalQuery {
  readonly scope: TenantScope;
  readonly requestId: string;
  readonly sessionId?: string | undefined;
  readonly signal: AbortSignal;
  readonly endpoint: UsageEvent['endpoint'];
  /** 1 to 16 stores; one that is absent (or another tenant's) is `not_found`. */
  readonly storeIds: readonly string[];
  readonly queries: readonly string[];
  /** Whether the questions are rewritten for searching: `by-model` only where a model is configured for it. */
  readonly rewrite: 'always' | 'by-model' | 'never';
  /** 1 to 50. */
  readonly limit: number;
  /** 0 to 1; results below it are dropped. */
  readonly scoreThreshold: number;
  /** Undefined: as configured for the store's model. */
  readonly weights: RetrievalWeights | undefined;
  readonly filter: AttributeFilter | undefined;
}

export interface RetrievalPath {
  search(query: RetrievalQuery): Promise<RetrievalAnswer>;
}

export interface RetrievalAnswer {
  /** What was searched. */
  readonly queries: readonly string[];
  /** Best first; scores fall from 1 (docs/reference/search.md). */
  readonly chunks: readonly RetrievedChunk[];
}

export interface RetrievalParts extends RewritingParts {
  /** What new stores are embedded by. */
  readonly embeddingModel: string;
  /** Whether stores may be embedded by other models, so that it is worth asking before a question is embedded. */
  readonly hasOtherModels: () => boolean;
  readonly weightsOf: (embeddingModel: string) => RetrievalWeights;
  /** Where a chunk of another tenant would be reported. */
  readonly logger: Logger;
}

export function createRetrievalPath(parts: RetrievalParts): RetrievalPath {
  return { search: (query) => search(parts, query) };
}

async function search(parts: RetrievalParts, asked: RetrievalQuery): Promise<RetrievalAnswer> {
  const query = { ...asked, queries: await rewriteQueries(parts, asked) };
  const questions = new QuestionEmbeddings(parts, query);
  const models = await modelsOf(parts, query);
  const rankings: (readonly RetrievedChunk[])[] = [];
  for (const storeId of query.storeIds) {
    const model = models.get(storeId);
    const found = model === undefined ? undefined : await searchStore(parts, query, { questions, storeId, model });
    if (found === undefined) throw new BulkheadError('not_found', `No vector store found with id ${quoteInput(storeId)}.`);
    rankings.push(...found);
  }
  const chunks = mergeRanked(rankings, query.limit).filter((chunk) => chunk.score >= query.scoreThreshold);
  return { chunks, queries: query.queries };
}

/** The model of each store. While there is only one, nobody is asked; a search finds out whether that was right. */
async function modelsOf(parts: RetrievalParts, { scope, storeIds }: RetrievalQuery): Promise<ReadonlyMap<string, string>> {
  if (parts.hasOtherModels()) return scope.vectorStores.embeddingModels(storeIds);
  return new Map(storeIds.map((storeId) => [storeId, parts.embeddingModel]));
}

/** A store may change its model between two statements, once; twice would need two re-embeddings within one search. */
const modelChangesMax = 2;

interface StoreQuestion {
  readonly questions: QuestionEmbeddings;
  readonly storeId: string;
  readonly model: string;
}

/** One ranking for each question. Undefined: no such store. */
async function searchStore(parts: RetrievalParts, query: RetrievalQuery, asked: StoreQuestion) {
  let { model } = asked;
  for (let changes = 0; ; changes++) {
    try {
      return await rankingsOf(parts, query, { ...asked, model });
    } catch (error) {
      const other = otherModelOf(error);
      if (other === undefined || changes >= modelChangesMax) throw error;
      model = other;
    }
  }
}

async function rankingsOf(parts: RetrievalParts, query: RetrievalQuery, { questions, storeId, model }: StoreQuestion) {
  const embeddings = await questions.by(model);
  const rankings: (readonly RetrievedChunk[])[] = [];
  for (const [index, text] of query.queries.entries()) {
    const embedding = embeddings[index] as Float32Array;
    const { filter, limit, signal, weights = parts.weightsOf(model) } = query;
    const asked = { text, embedding, embeddingModel: model, filter, limit, weights, signal };
    const found = await retrieveOwned(query.scope, storeId, asked, parts.logger);
    if (found === undefined) return undefined;
    rankings.push(found);
  }
  return rankings;
}

function otherModelOf(error: unknown): string | undefined {
  if (!(error instanceof BulkheadError) || error.code !== 'embedding_model_changed') return undefined;
  const model = error.details?.['embedding_model'];
  return typeof model === 'string' ? model : undefined;
}
