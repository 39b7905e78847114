import { sql } from 'kysely';
import { embeddingDimensions, lexicalLanguages } from '../../config/retrieval-values.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { IdSource } from '../../primitives/ids.ts';
import type { SealJob } from '../../rag/job-queue.ts';
import type { Attributes } from '../../tenancy/attributes.ts';
import type {
  AttachedFile,
  FileBatchRecord,
  HybridQuery,
  IngestionStatus,
  NewVectorStore,
  Page,
  PageRequest,
  RetrievedChunk,
  VectorStoreCabinet,
  VectorStoreChanges,
  VectorStoreFileRecord,
  VectorStoreRecord,
} from '../../tenancy/capabilities.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { Sql, TenantDatabase } from './database.ts';
import {
  attachFiles,
  cancelBatch,
  countsOf,
  listAttachments,
  readAttachment,
  readBatch,
  type StatusCountRow,
  statusCounts,
} from './documents-attachments.ts';
import { deleteContents, deleteStoreContents, detachLocked, inShards, lockStore } from './documents-contents.ts';
import { expireStore, isExpired, storeExpired } from './documents-expiry.ts';
import { insertJobs } from './documents-jobs.ts';
import { readPage } from './documents-page.ts';
import { type DocumentQuota, returnQuota, takeQuota, takeStoreNumber } from './documents-quota.ts';
import { searchStore } from './documents-search.ts';
import type { ApproximateSearch } from './documents-search-approximate.ts';
import { openChunks } from './documents-search-rows.ts';
import { addEmbeddingModel } from './embedding-register.ts';
import type { TenantResidents } from './resident-partitions.ts';
import { sealed } from './sealed-columns.ts';

export interface VectorStoreCabinetParts {
  readonly database: TenantDatabase;
  /** The tenant's stores in memory. */
  readonly residents?: TenantResidents | undefined;
  readonly principal: Principal;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly quota: DocumentQuota;
  readonly sealJob: SealJob;
  /** Called after a transaction that enqueued work. */
  readonly onEnqueued: () => void;
  /** What a new store is made with. */
  readonly embedding: { readonly model: string; readonly dimensions: number };
  /** Text search configuration of a new store. */
  readonly language: string;
  /** Where large stores may have an index of their own: a real server. */
  readonly approximate?: ApproximateSearch | undefined;
}

/** A search counts as activity, but is written down at most this often. */
const activityGrainMs = 3_600_000;

export class PostgresVectorStoreCabinet implements VectorStoreCabinet {
  readonly #parts: VectorStoreCabinetParts;

  constructor(parts: VectorStoreCabinetParts) {
    assert(lexicalLanguages.has(parts.language), 'PostgreSQL has the text search configuration');
    assert(embeddingDimensions.includes(parts.embedding.dimensions), 'there is a table for the dimension of the embedding model');
    this.#parts = parts;
  }

  async create(store: NewVectorStore): Promise<VectorStoreRecord> {
    const { database, ids, clock, quota, embedding, language } = this.#parts;
    const id = ids.next('vs_');
    const nowMs = clock.nowMs();
    return database.write(async (db) => {
      await takeQuota(db, { vectorStores: 1 }, quota);
      const storeNo = await takeStoreNumber(db);
      await sql`
        INSERT INTO app.vector_store (id, store_no, name, description, metadata, created_at_ms, last_active_at_ms, expires_after_days,
                                      embedding_model, embedding_dimensions, language)
        VALUES (${id}, ${storeNo}, ${store.name}, ${store.description ?? null}, ${JSON.stringify(store.metadata)}, ${nowMs}, ${nowMs},
                ${store.expiresAfterDays ?? null}, ${embedding.model}, ${embedding.dimensions}, ${language})`.execute(db);
      await addEmbeddingModel(db, embedding);
      await this.#scheduleExpiry(db, id, store.expiresAfterDays);
      return (await readStore(db, id, nowMs)) as VectorStoreRecord;
    });
  }

  /** One job for each number of days that was ever set: it finds out itself whether the time has come, and waits again when it has not. */
  async #scheduleExpiry(db: Sql, storeId: string, days: number | null | undefined): Promise<void> {
    if (days === undefined || days === null) return;
    const { principal, sealJob, clock } = this.#parts;
    const nowMs = clock.nowMs();
    const job = { id: `job_${storeId}_${days}`, kind: 'expire_store', payload: { storeId } } as const;
    await insertJobs(db, [{ ...job, envelope: sealJob(principal, job) }], { nowMs, readyAtMs: nowMs + days * 86_400_000 });
  }

  async get(storeId: string): Promise<VectorStoreRecord | undefined> {
    const nowMs = this.#parts.clock.nowMs();
    return this.#parts.database.read((db) => readStore(db, storeId, nowMs));
  }

  async update(storeId: string, changes: VectorStoreChanges): Promise<VectorStoreRecord | undefined> {
    const nowMs = this.#parts.clock.nowMs();
    const sets = [
      ...(changes.name === undefined ? [] : [sql`name = ${changes.name}`]),
      ...(changes.metadata === undefined ? [] : [sql`metadata = ${JSON.stringify(changes.metadata)}`]),
      ...(changes.expiresAfterDays === undefined ? [] : [sql`expires_after_days = ${changes.expiresAfterDays}`]),
    ];
    return this.#parts.database.write(async (db) => {
      const before = await readStore(db, storeId, nowMs);
      if (before === undefined) return undefined;
      if (before.isExpired && changes.expiresAfterDays !== undefined) throw storeExpired(storeId);
      const activity = before.isExpired ? [] : [sql`last_active_at_ms = ${nowMs}`];
      const all = [...sets, ...activity];
      if (all.length > 0) await sql`UPDATE app.vector_store SET ${sql.join(all)} WHERE id = ${storeId}`.execute(db);
      await this.#scheduleExpiry(db, storeId, changes.expiresAfterDays);
      return readStore(db, storeId, nowMs);
    });
  }

  async list(page: PageRequest): Promise<Page<VectorStoreRecord>> {
    const nowMs = this.#parts.clock.nowMs();
    return this.#parts.database.read(async (db) => {
      const list = {
        from: storeRelation,
        columns: storeColumns,
        where: sql`true`,
        key: [sql`s.created_at_ms`, sql`s.id`],
        id: sql`s.id`,
      };
      const { items, hasMore } = await readPage<StoreRow>(db, list, page);
      return { items: items.map((row) => storeRecord(row, nowMs)), hasMore };
    });
  }

  async delete(storeId: string): Promise<boolean> {
    return this.#parts.database.write(async (db) => {
      const place = await lockStore(db, sql`id = ${storeId}`);
      if (place === undefined) return false;
      await sql`SELECT 1 FROM app.vector_store_file WHERE store_no = ${place.store_no} ORDER BY file_no FOR UPDATE`.execute(db);
      await deleteStoreContents(db, place);
      await sql`DELETE FROM app.vector_store WHERE store_no = ${place.store_no}`.execute(db);
      await returnQuota(db, { vectorStores: 1 });
      return true;
    });
  }

  async expire(storeId: string): Promise<number | undefined> {
    const nowMs = this.#parts.clock.nowMs();
    return this.#parts.database.write((db) => expireStore(db, storeId, nowMs));
  }

  async attachFile(storeId: string, file: AttachedFile): Promise<VectorStoreFileRecord | undefined> {
    const record = await this.#parts.database.write(async (db) => {
      const attached = await attachFiles(db, { ...this.#parts, storeId, files: [file] });
      return attached ? readAttachment(db, storeId, file.fileId) : undefined;
    });
    if (record !== undefined) this.#parts.onEnqueued();
    return record;
  }

  async getFile(storeId: string, fileId: string): Promise<VectorStoreFileRecord | undefined> {
    return this.#parts.database.read((db) => readAttachment(db, storeId, fileId));
  }

  async listFiles(
    storeId: string,
    page: PageRequest,
    filter: { readonly status?: IngestionStatus | undefined; readonly batchId?: string | undefined },
  ): Promise<Page<VectorStoreFileRecord> | undefined> {
    return this.#parts.database.read((db) => listAttachments(db, { storeId, page, filter }));
  }

  async updateFileAttributes(storeId: string, fileId: string, attributes: Attributes): Promise<VectorStoreFileRecord | undefined> {
    return this.#parts.database.write(async (db) => {
      const place = await lockStore(db, sql`id = ${storeId}`);
      if (place === undefined) return undefined;
      await sql`
        UPDATE app.vector_store_file SET attributes = ${JSON.stringify(attributes)}
         WHERE store_no = ${place.store_no} AND file_id = ${fileId}`.execute(db);
      return readAttachment(db, storeId, fileId);
    });
  }

  async detachFile(storeId: string, fileId: string): Promise<boolean> {
    return this.#parts.database.write(async (db) => {
      const place = await lockStore(db, sql`id = ${storeId}`);
      return place !== undefined && (await detachLocked(db, place, fileId));
    });
  }

  async fileContent(storeId: string, fileId: string): Promise<readonly string[] | undefined> {
    const { database } = this.#parts;
    const contents = await database.read(async (db) => {
      const { rows } = await sql<{
        readonly store_no: number;
        readonly shard_id: number;
        readonly moving_to_shard: number | null;
        readonly file_no: number;
        readonly status: string;
      }>`
        SELECT s.store_no, s.shard_id, s.moving_to_shard, f.file_no, f.status
          FROM app.vector_store s JOIN app.vector_store_file f ON f.tenant_id = s.tenant_id AND f.store_no = s.store_no
         WHERE s.id = ${storeId} AND f.file_id = ${fileId}`.execute(db);
      const [file] = rows;
      if (file === undefined) return undefined;
      if (file.status !== 'completed') return [];
      const chunks = await sql<{ readonly ordinal: number; readonly content: Buffer }>`
        SELECT ordinal, content FROM app.chunk
         WHERE ${inShards(file)} AND store_no = ${file.store_no}::int AND file_no = ${file.file_no}::int
         ORDER BY ordinal`.execute(db);
      return chunks.rows.map(({ ordinal, content }) => ({ row: [file.store_no, file.file_no, ordinal], record: content }));
    });
    if (contents === undefined) return undefined;
    return (await database.cipher.openAll(sealed.chunkContent, contents)).map((content) => content.toString('utf8'));
  }

  async createBatch(storeId: string, files: readonly AttachedFile[]): Promise<FileBatchRecord | undefined> {
    const batchId = this.#parts.ids.next('vsfb_');
    const batch = await this.#parts.database.write(async (db) => {
      const attached = await attachFiles(db, { ...this.#parts, storeId, files, batchId });
      return attached ? readBatch(db, storeId, batchId) : undefined;
    });
    if (batch !== undefined) this.#parts.onEnqueued();
    return batch;
  }

  async getBatch(storeId: string, batchId: string): Promise<FileBatchRecord | undefined> {
    return this.#parts.database.read((db) => readBatch(db, storeId, batchId));
  }

  async cancelBatch(storeId: string, batchId: string): Promise<FileBatchRecord | undefined> {
    return this.#parts.database.write(async (db) => {
      const place = await lockStore(db, sql`id = ${storeId}`);
      if (place === undefined) return undefined;
      const cancelled = await cancelBatch(db, place, batchId);
      await deleteContents(db, place, cancelled);
      return readBatch(db, storeId, batchId);
    });
  }

  async embeddingModels(storeIds: readonly string[]): Promise<ReadonlyMap<string, string>> {
    const { rows } = await this.#parts.database.read((db) =>
      sql<{ readonly id: string; readonly embedding_model: string }>`
        SELECT id, embedding_model FROM app.vector_store WHERE id = ANY (${storeIds}::text[])`.execute(db),
    );
    return new Map(rows.map((row) => [row.id, row.embedding_model]));
  }

  async search(storeId: string, query: HybridQuery): Promise<readonly RetrievedChunk[] | undefined> {
    const { database, residents, approximate, clock } = this.#parts;
    const found = await searchStore({ database, residents, approximate }, storeId, query);
    if (found === undefined) return undefined;
    const nowMs = clock.nowMs();
    if (isExpired(found, nowMs)) throw storeExpired(storeId);
    if (nowMs - found.lastActiveAtMs >= activityGrainMs) {
      await database.write((db) => sql`UPDATE app.vector_store SET last_active_at_ms = ${nowMs} WHERE id = ${storeId}`.execute(db));
    }
    return openChunks(database.cipher, found.chunks);
  }
}

interface StoreRow extends StatusCountRow {
  readonly id: string;
  readonly name: string;
  readonly description: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly created_at_ms: string;
  readonly last_active_at_ms: string;
  readonly expires_after_days: number | null;
  readonly usage_bytes: string;
  readonly embedding_model: string;
  readonly embedding_dimensions: number;
}

const storeRelation = sql`app.vector_store s CROSS JOIN LATERAL (
  SELECT ${statusCounts} FROM app.vector_store_file f WHERE f.tenant_id = s.tenant_id AND f.store_no = s.store_no) counts`;
const storeColumns = sql`s.id, s.name, s.description, s.metadata, s.created_at_ms, s.last_active_at_ms, s.expires_after_days, s.usage_bytes,
  s.embedding_model, s.embedding_dimensions, counts.*`;

async function readStore(db: Sql, storeId: string, nowMs: number): Promise<VectorStoreRecord | undefined> {
  const { rows } = await sql<StoreRow>`SELECT ${storeColumns} FROM ${storeRelation} WHERE s.id = ${storeId}`.execute(db);
  return rows[0] && storeRecord(rows[0], nowMs);
}

function storeRecord(row: StoreRow, nowMs: number): VectorStoreRecord {
  const lastActiveAtMs = Number(row.last_active_at_ms);
  const expiresAfterDays = row.expires_after_days ?? undefined;
  return {
    id: row.id,
    name: row.name,
    ...(row.description !== null && { description: row.description }),
    metadata: row.metadata,
    createdAtMs: Number(row.created_at_ms),
    lastActiveAtMs,
    ...(expiresAfterDays !== undefined && { expiresAfterDays }),
    isExpired: isExpired({ lastActiveAtMs, expiresAfterDays }, nowMs),
    usageBytes: Number(row.usage_bytes),
    fileCounts: countsOf(row),
    embeddingModel: row.embedding_model,
    embeddingDimensions: row.embedding_dimensions,
  };
}
