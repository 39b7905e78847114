/** Tenant data and the worker behind it: cabinets bound to a principal, and ingestion that runs as the tenant who asked for it. */
import type { Database } from '../adapters/postgres/database.ts';
import { PostgresFileCabinet } from '../adapters/postgres/documents-files.ts';
import { PostgresIngestionShelf } from '../adapters/postgres/documents-ingestion.ts';
import { PostgresJobQueue } from '../adapters/postgres/documents-jobs.ts';
import { PostgresReembeddingShelf } from '../adapters/postgres/documents-reembedding.ts';
import { PostgresVectorStoreCabinet } from '../adapters/postgres/documents-stores.ts';
import { openIdempotencyCabinet } from '../adapters/postgres/idempotency.ts';
import { PostgresResealer } from '../adapters/postgres/resealer.ts';
import { ResidentPartitions } from '../adapters/postgres/resident-partitions.ts';
import { openResponseCabinet } from '../adapters/postgres/responses.ts';
import type { TenantHomes } from '../adapters/postgres/tenant-homes.ts';
import { openUsageReader } from '../adapters/postgres/usage-ledger.ts';
import type { Config } from '../config/schema.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { IngestionWorker } from '../jobs/ingestion-worker.ts';
import { JobEnvelopes } from '../jobs/job-envelope.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import { systemRandom } from '../primitives/random.ts';
import type { Embedder } from '../rag/embed-texts.ts';
import type { IngestionShelf } from '../rag/ingest.ts';
import type { SealJob } from '../rag/job-queue.ts';
import { DocumentReader } from '../rag/parse/document-reader.ts';
import type { EmbeddingSetting, ReembeddingShelf } from '../rag/reembed.ts';
import type { InferenceParts } from '../request-path/serve-inference.ts';
import { ingestionCallTokensMax, serveIngestionEmbedding } from '../request-path/serve-ingestion.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { PlacementKeeper } from '../tenancy/placement.ts';
import type { Principal } from '../tenancy/principal.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';
import { openTenantScope, type TenantDataSource, type TenantScope } from '../tenancy/tenant-scope.ts';
import { tiersOf } from './identity.ts';
import { openPlacements, type Placements } from './placement.ts';
import type { Secrets } from './secrets.ts';

export interface DocumentParts {
  readonly config: Config;
  readonly database: Database;
  readonly homes: TenantHomes;
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly logger: Logger;
  readonly secrets: Secrets;
  readonly path: InferenceParts & { readonly ids: IdSource };
  readonly directory: TenantDirectory;
  readonly embedding: EmbeddingSetting;
}

export interface Documents {
  /** Stores in memory. Whoever suspends, moves or erases a tenant may drop its own, to free them at once. */
  readonly residents: ResidentPartitions;
  readonly data: TenantDataSource;
  readonly shelfOf: (principal: Principal) => IngestionShelf;
  readonly reembeddingOf: (principal: Principal) => ReembeddingShelf;
  readonly envelopes: JobEnvelopes;
  /** A job was enqueued by other means than `data`. */
  wake(): void;
  /** Undefined where no store can be placed. */
  readonly placements: PlacementKeeper | undefined;
  /** Starts ingesting and placing; dispose of what it returns to stop. */
  start(): AsyncDisposable;
}

export function openDocuments(parts: DocumentParts): Documents {
  const { config, database, homes, clock, logger, secrets } = parts;
  const envelopes = new JobEnvelopes(secrets.jobEnvelope);
  const reader = new DocumentReader(config.bounds);
  const residents = new ResidentPartitions({ bounds: config.bounds, clock, logger });
  parts.path.metrics.watchResidents(() => residents.figures());
  const placements = openPlacements({ config, shared: database, clock, random: systemRandom, logger });
  const data = dataSource(parts, { envelopes, residents, placements }, () => worker.wake());
  const shelfOf = (principal: Principal) => new PostgresIngestionShelf(homes.forTenant(principal));
  const sealJob: SealJob = (sealer, job) => envelopes.seal(sealer, job);
  const reembeddingOf = (principal: Principal) =>
    new PostgresReembeddingShelf({ database: homes.forTenant(principal), principal, sealJob, clock });
  const worker = new IngestionWorker({
    queue: new PostgresJobQueue(database.forDirectory(), clock, config.bounds.ingestionJobsPerTenantMax),
    envelopes,
    shelfOf,
    filesOf: (principal) => data.bind(principal).files,
    storesOf: (principal) => data.bind(principal).vectorStores,
    reembeddingOf,
    resealerOf: (principal) => new PostgresResealer(homes.forTenant(principal), { principal, logger }),
    ownsQueue: config.database.url === undefined,
    reader,
    embedderFor: (model, principal) => embedderOf(parts, data, { model, principal }),
    chunksPerFileMax: config.bounds.chunksPerFileMax,
    logger,
    bounds: { concurrency: config.bounds.ingestionConcurrency },
  });
  return {
    data,
    residents,
    shelfOf,
    placements: placements.keeper,
    envelopes,
    reembeddingOf,
    wake: () => worker.wake(),
    start() {
      worker.start();
      const placing = placements.start();
      return {
        async [Symbol.asyncDispose]() {
          await placing[Symbol.asyncDispose]();
          await worker[Symbol.asyncDispose]();
          await reader[Symbol.asyncDispose]();
          await residents[Symbol.asyncDispose]();
        },
      };
    },
  };
}

function dataSource(
  { config, database, homes, clock, ids, embedding }: DocumentParts,
  {
    envelopes,
    residents,
    placements,
  }: { readonly envelopes: JobEnvelopes; readonly residents: ResidentPartitions; readonly placements: Placements },
  onEnqueued: () => void,
): TenantDataSource {
  const quota = config.bounds;
  const sealJob: SealJob = (sealer, job) => envelopes.seal(sealer, job);
  return {
    bind(principal) {
      const tenantDatabase = homes.forTenant(principal);
      return {
        files: new PostgresFileCabinet({ database: tenantDatabase, ids, clock, quota, principal, sealJob }),
        vectorStores: new PostgresVectorStoreCabinet({
          database: tenantDatabase,
          residents: residents.forTenant(principal, tenantDatabase),
          principal,
          ids,
          clock,
          quota,
          sealJob,
          onEnqueued,
          embedding,
          language: config.retrieval.language,
          approximate: placements.approximateFor(principal),
        }),
        responses: openResponseCabinet(tenantDatabase),
        // The ledger is the bill and stays in the shared database, wherever the tenant lives.
        usage: openUsageReader(database.forTenant(principal)),
        idempotency: openIdempotencyCabinet(tenantDatabase, clock),
      };
    },
  };
}

/** Embeds as the tenant of the job, in the tenant's turn and on the tenant's bill. */
async function embedderOf(
  parts: DocumentParts,
  data: TenantDataSource,
  job: { readonly model: string; readonly principal: Principal },
): Promise<Embedder> {
  const scope = await scopeOf(parts, data, job.principal);
  return {
    embed: (texts, signal) => serveIngestionEmbedding(parts.path, { scope, model: job.model, texts, signal }),
    callTokensMax: ingestionCallTokensMax(scope),
  };
}

async function scopeOf({ config, directory }: DocumentParts, data: TenantDataSource, principal: Principal): Promise<TenantScope> {
  const tenant = await directory.find(principal.tenantId);
  const tier = tenant === undefined ? undefined : tiersOf(config).get(principal.tier ?? tenant.tier);
  if (tenant === undefined || tier === undefined) throw new BulkheadError('not_found', 'the tenant of this job is gone');
  if (tenant.state !== 'active') throw new BulkheadError('tenant_suspended', 'The tenant of this job is suspended.');
  return openTenantScope(principal, tenant, tier, data);
}
