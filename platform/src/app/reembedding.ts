/** The models that stores are embedded by: what replaces them, and by which of them a question is searched. */
import type { Database } from '../adapters/postgres/database.ts';
import { EmbeddingRegister } from '../adapters/postgres/embedding-register.ts';
import type { Config } from '../config/schema.ts';
import { Reembedding } from '../jobs/reembedding.ts';
import type { InferenceParts } from '../request-path/serve-inference.ts';
import { createRetrievalPath, type RetrievalPath } from '../request-path/serve-retrieval.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintOperatorScope } from '../tenancy/mint-operator-scope.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';
import type { Documents } from './documents.ts';
import { canEmbed, embeddingOf, retrievalWeightsOf } from './models.ts';

export interface ReembeddingWiring {
  readonly config: Config;
  readonly database: Database;
  readonly registry: TenantRegistry;
  readonly documents: Documents;
  readonly logger: Logger;
}

/** Throws `schema_mismatch`. */
export function openReembedding({ config, database, registry, documents, logger }: ReembeddingWiring): Promise<Reembedding> {
  return Reembedding.open({
    operator: mintOperatorScope('job:reembedding'),
    registry,
    register: new EmbeddingRegister(database),
    shelfOf: (principal) => documents.reembeddingOf(principal),
    target: embeddingOf(config),
    canEmbed: (setting) => canEmbed(config, setting),
    onBegun: () => documents.wake(),
    logger,
    intervalMs: config.bounds.reembeddingSurveyMs,
  });
}

export interface RetrievalWiring {
  readonly config: Config;
  readonly path: InferenceParts;
  readonly reembedding: Reembedding;
  readonly logger: Logger;
}

export function openRetrieval({ config, path, reembedding, logger }: RetrievalWiring): RetrievalPath {
  return createRetrievalPath({
    ...path,
    embeddingModel: config.embedding.model,
    hasOtherModels: () => reembedding.hasOtherModels,
    weightsOf: (model) => retrievalWeightsOf(config, model),
    rewriteModel: config.retrieval.rewriteModel,
    rewriteTimeoutMs: config.bounds.rewriteTimeoutMs,
    logger,
  });
}
