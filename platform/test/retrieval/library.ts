/** The documents part of the product over an embedded database, with the hashed embedder; every tenant sees it through its own cabinets. */
import { sql } from 'kysely';
import { embedText } from '../../src/adapters/hashed-embedder/embed-text.ts';
import type { TenantDatabase } from '../../src/adapters/postgres/database.ts';
import { PostgresFileCabinet } from '../../src/adapters/postgres/documents-files.ts';
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import { PostgresJobQueue } from '../../src/adapters/postgres/documents-jobs.ts';
import type { DocumentQuota } from '../../src/adapters/postgres/documents-quota.ts';
import { PostgresReembeddingShelf } from '../../src/adapters/postgres/documents-reembedding.ts';
import type { ApproximateSearch } from '../../src/adapters/postgres/documents-search-approximate.ts';
import { PostgresVectorStoreCabinet } from '../../src/adapters/postgres/documents-stores.ts';
import { PostgresResealer, type ResealerBounds, type ResealStep } from '../../src/adapters/postgres/resealer.ts';
import { type ResidentBounds, ResidentPartitions } from '../../src/adapters/postgres/resident-partitions.ts';
import type { KeyRingParts } from '../../src/encryption/key-ring.ts';
import { type IngestionBounds, IngestionWorker } from '../../src/jobs/ingestion-worker.ts';
import { JobEnvelopes } from '../../src/jobs/job-envelope.ts';
import { type Clock, systemClock } from '../../src/primitives/clock.ts';
import { systemIds } from '../../src/primitives/ids.ts';
import type { Embedder } from '../../src/rag/embed-texts.ts';
import type { IngestionShelf } from '../../src/rag/ingest.ts';
import type { SealJob } from '../../src/rag/job-queue.ts';
import { DocumentReader } from '../../src/rag/parse/document-reader.ts';
import type { ReembeddingShelf } from '../../src/rag/reembed.ts';
import { type Logger, silentLogger } from '../../src/telemetry/logger.ts';
import type { Attributes } from '../../src/tenancy/attributes.ts';
import type { AttachedFile, ChunkingStrategy, FileCabinet, HybridQuery, RetrievedChunk } from '../../src/tenancy/capabilities.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import type { Principal } from '../../src/tenancy/principal.ts';
import { openTestDatabase, principalOf, type TestDatabase } from '../support/embedded-database.ts';
import { testKeyRing } from '../support/key-ring.ts';

export const dimensions = 384;
export const hashedEmbedder: Embedder = {
  embed: (texts) => Promise.resolve(texts.map((text) => embedText(text, dimensions))),
};
/** Stands for any model: the last part of its name is the size of its vectors. Those of two models have nothing to do with each other. */
export function embedBy(model: string, text: string): Float32Array {
  const vector = embedText(text, Number(model.split('-').at(-1)));
  return model === 'local-hash-384' ? vector : vector.toReversed();
}
export const chunking: ChunkingStrategy = { type: 'auto', maxChunkTokens: 800, overlapTokens: 400 };

export interface LibraryOptions {
  readonly dataDir?: string;
  readonly clock?: Clock;
  readonly quota?: Partial<DocumentQuota>;
  readonly language?: string;
  readonly embedder?: Embedder;
  readonly embedding?: { readonly model: string; readonly dimensions: number };
  readonly embedderFor?: (model: string) => Embedder;
  readonly bounds?: Partial<IngestionBounds>;
  readonly logger?: Logger;
  readonly chunksPerFileMax?: number;
  readonly keyRing?: Partial<KeyRingParts>;
  readonly resealing?: Partial<ResealerBounds>;
  readonly onReseal?: (step: ResealStep) => void;
  readonly jobsPerTenantMax?: number;
  /** Absent: nothing is kept in memory. */
  readonly residents?: Partial<ResidentBounds>;
  /** Where large stores may have an index of their own. */
  readonly approximateFor?: (principal: Principal) => ApproximateSearch;
  readonly shelfOf?: (database: TenantDatabase) => IngestionShelf;
  readonly reembeddingOf?: (shelf: ReembeddingShelf) => ReembeddingShelf;
}

const noBounds: ResidentBounds = {
  residentBytesMax: 0,
  residentBytesPerTenantMax: 64 * 1_024 * 1_024,
  residentFillsMax: 2,
  residentSearchesQueuedMax: 256,
};

export interface Shelves {
  readonly principal: Principal;
  readonly files: FileCabinet;
  readonly vectorStores: PostgresVectorStoreCabinet;
}

export class Library implements AsyncDisposable {
  readonly db: TestDatabase;
  readonly queue: PostgresJobQueue;
  readonly worker: IngestionWorker;
  readonly residents: ResidentPartitions;
  readonly envelopes = new JobEnvelopes(Buffer.alloc(32, 7));
  /** Tenant and column of every stored value that did not open. */
  readonly alarms: string[];
  readonly #options: LibraryOptions;
  readonly #reader = new DocumentReader({ parseTimeoutMs: 20_000, parseMemoryMb: 256 });

  private constructor(db: TestDatabase, options: LibraryOptions, alarms: string[]) {
    this.db = db;
    this.alarms = alarms;
    this.#options = options;
    const clock = options.clock ?? systemClock;
    this.residents = new ResidentPartitions({ bounds: { ...noBounds, ...options.residents }, clock, logger: silentLogger });
    this.queue = new PostgresJobQueue(
      db.database.forOperator(mintOperatorScope('test')),
      options.clock ?? systemClock,
      options.jobsPerTenantMax ?? 8,
    );
    this.worker = new IngestionWorker({
      queue: this.queue,
      envelopes: this.envelopes,
      reader: this.#reader,
      embedderFor: (model) =>
        options.embedderFor?.(model) ??
        options.embedder ?? { embed: (texts) => Promise.resolve(texts.map((text) => embedBy(model, text))) },
      shelfOf: (principal) => {
        const database = db.database.forTenant(principal);
        return options.shelfOf?.(database) ?? new PostgresIngestionShelf(database);
      },
      filesOf: (principal) => this.shelves(principal.tenantId).files,
      storesOf: (principal) => this.shelves(principal.tenantId).vectorStores,
      reembeddingOf: (principal) => this.reembedding(principal),
      resealerOf: (principal) =>
        new PostgresResealer(db.database.forTenant(principal), {
          principal,
          logger: silentLogger,
          ...(options.resealing && { bounds: options.resealing }),
          ...(options.onReseal && { onStep: options.onReseal }),
        }),
      ownsQueue: true,
      chunksPerFileMax: options.chunksPerFileMax ?? 20_000,
      logger: options.logger ?? silentLogger,
      ...(options.bounds !== undefined && { bounds: options.bounds }),
    });
  }

  static async open(options: LibraryOptions = {}): Promise<Library> {
    const alarms: string[] = [];
    const keyRing = testKeyRing({ ...options.keyRing, onAlarm: ({ tenantId, column }) => alarms.push(`${tenantId} ${column}`) });
    const db = await openTestDatabase({ keyRing, ...(options.dataDir !== undefined && { dataDir: options.dataDir }) });
    return new Library(db, options, alarms);
  }

  shelves(tenant: string, language = this.#options.language ?? 'english', residents = this.residents): Shelves {
    const principal = principalOf(tenant);
    const database = this.db.database.forTenant(principal);
    const clock = this.#options.clock ?? systemClock;
    const quota = {
      filesPerTenantMax: 10_000,
      fileBytesPerTenantMax: 1_024 ** 3,
      vectorStoresPerTenantMax: 100,
      ...this.#options.quota,
    };
    const sealJob: SealJob = (who, job) => this.envelopes.seal(who, job);
    return {
      principal,
      files: new PostgresFileCabinet({ database, ids: systemIds, clock, quota, principal, sealJob }),
      vectorStores: new PostgresVectorStoreCabinet({
        database,
        residents: residents.forTenant(principal, database),
        principal,
        ids: systemIds,
        clock,
        quota,
        sealJob,
        onEnqueued: () => this.worker.wake(),
        embedding: this.#options.embedding ?? { model: 'local-hash-384', dimensions },
        language,
        approximate: this.#options.approximateFor?.(principal),
      }),
    };
  }

  reembedding(principal: Principal): ReembeddingShelf {
    const database = this.db.database.forTenant(principal);
    const sealJob: SealJob = (who, job) => this.envelopes.seal(who, job);
    const shelf = new PostgresReembeddingShelf({ database, principal, sealJob, clock: this.#options.clock ?? systemClock });
    return this.#options.reembeddingOf?.(shelf) ?? shelf;
  }

  /** A store of these texts, one file each, indexed. */
  async storeOf(tenant: string, texts: readonly string[], attributes: (index: number) => Attributes = () => ({})): Promise<string> {
    const { files, vectorStores } = this.shelves(tenant);
    const store = await vectorStores.create({ name: 'test', metadata: {} });
    const attached: AttachedFile[] = [];
    for (const [index, text] of texts.entries()) {
      const file = await files.create({ filename: `file-${index}.txt`, purpose: 'assistants', body: Buffer.from(text) });
      attached.push({ fileId: file.id, attributes: attributes(index), chunking });
    }
    if (attached.length > 0) await vectorStores.createBatch(store.id, attached);
    await this.worker.drain();
    return store.id;
  }

  /** As the owner of the tables, past every wall: what is really there. */
  async truth<Row extends object>(text: string, values: readonly unknown[] = []): Promise<readonly Row[]> {
    return this.db.database.withClient(async (client) => (await client.query<Row>(text, [...values])).rows);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.worker[Symbol.asyncDispose]();
    await this.#reader[Symbol.asyncDispose]();
    await this.residents[Symbol.asyncDispose]();
    await this.db[Symbol.asyncDispose]();
  }
}

export function question(text: string, changes: Partial<HybridQuery> = {}): HybridQuery {
  return {
    text,
    embedding: embedText(text, dimensions),
    embeddingModel: 'local-hash-384',
    limit: 10,
    weights: { dense: 0.3, lexical: 1 },
    ...changes,
  };
}

/** What an answer says, bit for bit. */
export function fingerprint(chunks: readonly RetrievedChunk[] | undefined): string {
  return JSON.stringify(chunks?.map(({ chunkId, score, text }) => [chunkId, score, text.length]));
}

/** How many rows of one store every table holds. */
export async function rowsOf(library: Library, tenant: string): Promise<Readonly<Record<string, number>>> {
  const tables = ['chunk', 'posting', 'embedding_384', 'vector_store_file', 'file', 'file_part', 'file_batch'];
  const counts: Record<string, number> = {};
  for (const table of tables) {
    const [row] = await library.truth<{ count: string }>(`SELECT count(*) FROM app.${table} WHERE tenant_id = $1`, [tenant]);
    counts[table] = Number(row?.count);
  }
  return counts;
}

export { sql };
