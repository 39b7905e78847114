/** Files in vector stores, and batches of them: `app.vector_store_file`, `app.file_batch`, and the jobs that index. */
import { type RawBuilder, sql } from 'kysely';
import type { Clock } from '../../primitives/clock.ts';
import type { IdSource } from '../../primitives/ids.ts';
import type { SealJob } from '../../rag/job-queue.ts';
import type { Attributes } from '../../tenancy/attributes.ts';
import type {
  AttachedFile,
  ChunkingStrategy,
  FileBatchRecord,
  IngestionStatus,
  Page,
  PageRequest,
  VectorStoreFileRecord,
} from '../../tenancy/capabilities.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { Sql } from './database.ts';
import { lockStore, type StorePlace } from './documents-contents.ts';
import { refuseExpired } from './documents-expiry.ts';
import { insertJobs } from './documents-jobs.ts';
import { readPage } from './documents-page.ts';

export interface Attaching {
  readonly principal: Principal;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly sealJob: SealJob;
  readonly storeId: string;
  readonly files: readonly AttachedFile[];
  /** Present for a batch, which is created with its files. */
  readonly batchId?: string;
}

/** Attaches files that are not in the store yet and enqueues a job for each. False, and nothing done: no such store, or not all files. */
export async function attachFiles(db: Sql, attaching: Attaching): Promise<boolean> {
  const nowMs = attaching.clock.nowMs();
  const files = [...new Map(attaching.files.map((file) => [file.fileId, file])).values()];
  const fileIds = files.map((file) => file.fileId);
  const known = await sql`
    SELECT 1 FROM app.file WHERE id = ANY (${fileIds}) AND (expires_at_ms IS NULL OR expires_at_ms > ${nowMs}) ORDER BY id FOR KEY SHARE`.execute(
    db,
  );
  if (known.rows.length < files.length) return false;
  const place = await lockStore(db, sql`id = ${attaching.storeId}`);
  if (place === undefined) return false;
  await refuseExpired(db, attaching.storeId, nowMs);
  const present = await sql<{ readonly file_id: string }>`
    SELECT file_id FROM app.vector_store_file WHERE store_no = ${place.store_no} AND file_id = ANY (${fileIds})`.execute(db);
  const attached = new Set(present.rows.map((row) => row.file_id));
  const fresh = files.filter((file) => !attached.has(file.fileId));
  await insertAttachments(db, place, { nowMs, files: fresh });
  await enqueueJobs(db, attaching, { nowMs, files: fresh });
  if (attaching.batchId !== undefined) await insertBatch(db, place, { id: attaching.batchId, fileIds, nowMs });
  return true;
}

export async function readAttachment(db: Sql, storeId: string, fileId: string): Promise<VectorStoreFileRecord | undefined> {
  const { rows } = await sql<AttachmentRow>`
    SELECT ${attachmentColumns} FROM ${attachmentRelation} WHERE s.id = ${storeId} AND f.file_id = ${fileId}`.execute(db);
  return rows[0] && attachmentRecord(rows[0]);
}

export interface AttachmentList {
  readonly storeId: string;
  readonly page: PageRequest;
  readonly filter: { readonly status?: IngestionStatus | undefined; readonly batchId?: string | undefined };
}

/** Undefined: no such store. */
export async function listAttachments(
  db: Sql,
  { storeId, page, filter }: AttachmentList,
): Promise<Page<VectorStoreFileRecord> | undefined> {
  const store = await sql`SELECT 1 FROM app.vector_store WHERE id = ${storeId}`.execute(db);
  if (store.rows.length === 0) return undefined;
  const conditions = [
    sql`s.id = ${storeId}`,
    ...(filter.status === undefined ? [] : [sql`f.status = ${filter.status}`]),
    ...(filter.batchId === undefined ? [] : [inBatch(filter.batchId)]),
  ];
  const list = {
    from: attachmentRelation,
    columns: attachmentColumns,
    where: sql.join(conditions, sql` AND `),
    key: [sql`f.file_no`],
    id: sql`f.file_id`,
  };
  const { items, hasMore } = await readPage<AttachmentRow>(db, list, page);
  return { items: items.map(attachmentRecord), hasMore };
}

export async function readBatch(db: Sql, storeId: string, batchId: string): Promise<FileBatchRecord | undefined> {
  const { rows } = await sql<BatchRow>`
    SELECT b.created_at_ms, b.cancelled AS is_cancelled, ${statusCounts}
      FROM app.file_batch b
      JOIN app.vector_store s ON s.tenant_id = b.tenant_id AND s.store_no = b.store_no
      LEFT JOIN app.file_batch_file bf ON bf.tenant_id = b.tenant_id AND bf.batch_id = b.id
      LEFT JOIN app.vector_store_file f ON f.tenant_id = bf.tenant_id AND f.store_no = bf.store_no AND f.file_no = bf.file_no
     WHERE s.id = ${storeId} AND b.id = ${batchId}
     GROUP BY b.created_at_ms, b.cancelled`.execute(db);
  const [row] = rows;
  if (row === undefined) return undefined;
  const fileCounts = countsOf(row);
  return { id: batchId, vectorStoreId: storeId, status: batchStatus(row, fileCounts), fileCounts, createdAtMs: Number(row.created_at_ms) };
}

/** Cancels what is not indexed yet; the numbers of those files, whose hidden chunks the caller removes. The store is locked. */
export async function cancelBatch(db: Sql, place: StorePlace, batchId: string): Promise<readonly number[]> {
  await sql`UPDATE app.file_batch SET cancelled = true WHERE id = ${batchId} AND store_no = ${place.store_no}`.execute(db);
  const { rows } = await sql<{ readonly file_no: number }>`
    UPDATE app.vector_store_file f SET status = 'cancelled', draft = NULL
     WHERE f.store_no = ${place.store_no} AND f.status = 'in_progress' AND ${inBatch(batchId)}
    RETURNING f.file_no`.execute(db);
  return rows.map((row) => row.file_no);
}

export interface StatusCountRow {
  readonly in_progress: string;
  readonly completed: string;
  readonly failed: string;
  readonly cancelled: string;
  readonly total: string;
}

export function countsOf(row: StatusCountRow): Readonly<Record<IngestionStatus | 'total', number>> {
  return {
    in_progress: Number(row.in_progress),
    completed: Number(row.completed),
    failed: Number(row.failed),
    cancelled: Number(row.cancelled),
    total: Number(row.total),
  };
}

/** Over rows of `app.vector_store_file f`. */
export const statusCounts = sql`count(f.file_no) AS total, count(*) FILTER (WHERE f.status = 'in_progress') AS in_progress,
  count(*) FILTER (WHERE f.status = 'completed') AS completed, count(*) FILTER (WHERE f.status = 'failed') AS failed,
  count(*) FILTER (WHERE f.status = 'cancelled') AS cancelled`;

interface Fresh {
  readonly nowMs: number;
  readonly files: readonly AttachedFile[];
}

async function insertAttachments(db: Sql, place: StorePlace, { nowMs, files }: Fresh): Promise<void> {
  if (files.length === 0) return;
  const numbered = await sql<{ readonly first: number }>`
    UPDATE app.vector_store SET next_file_no = next_file_no + ${files.length}, last_active_at_ms = ${nowMs}
     WHERE store_no = ${place.store_no} RETURNING next_file_no - ${files.length} AS first`.execute(db);
  const first = numbered.rows[0]?.first ?? 1;
  const rows = files.map(({ fileId, attributes, chunking }, index) => ({
    file_no: first + index,
    file_id: fileId,
    attributes,
    chunking_type: chunking.type,
    max_chunk_tokens: chunking.maxChunkTokens,
    overlap_tokens: chunking.overlapTokens,
  }));
  await sql`
    INSERT INTO app.vector_store_file (store_no, file_no, file_id, attributes, chunking_type, max_chunk_tokens, overlap_tokens, created_at_ms)
    SELECT ${place.store_no}::int, file_no, file_id, attributes, chunking_type, max_chunk_tokens, overlap_tokens, ${nowMs}::bigint
      FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
        AS fresh (file_no int, file_id text, attributes jsonb, chunking_type text, max_chunk_tokens int, overlap_tokens int)`.execute(db);
}

async function enqueueJobs(db: Sql, attaching: Attaching, { nowMs, files }: Fresh): Promise<void> {
  const jobs = files.map(({ fileId }) => {
    const job = { id: attaching.ids.next('job_'), kind: 'ingest_file', payload: { storeId: attaching.storeId, fileId } } as const;
    return { ...job, envelope: attaching.sealJob(attaching.principal, job) };
  });
  await insertJobs(db, jobs, { nowMs, readyAtMs: nowMs });
}

async function insertBatch(
  db: Sql,
  place: StorePlace,
  batch: { readonly id: string; readonly fileIds: readonly string[]; readonly nowMs: number },
): Promise<void> {
  await sql`INSERT INTO app.file_batch (id, store_no, created_at_ms) VALUES (${batch.id}, ${place.store_no}, ${batch.nowMs})`.execute(db);
  await sql`
    INSERT INTO app.file_batch_file (batch_id, store_no, file_no)
    SELECT ${batch.id}, store_no, file_no FROM app.vector_store_file
     WHERE store_no = ${place.store_no} AND file_id = ANY (${batch.fileIds})`.execute(db);
}

function inBatch(batchId: string): RawBuilder<unknown> {
  return sql`EXISTS (SELECT FROM app.file_batch_file bf WHERE bf.batch_id = ${batchId} AND bf.store_no = f.store_no AND bf.file_no = f.file_no)`;
}

interface AttachmentRow {
  readonly store_id: string;
  readonly file_id: string;
  readonly filename: string;
  readonly status: IngestionStatus;
  readonly error_code: 'server_error' | 'unsupported_file' | 'invalid_file' | null;
  readonly error_message: string | null;
  readonly attributes: Attributes;
  readonly chunking_type: ChunkingStrategy['type'];
  readonly max_chunk_tokens: number;
  readonly overlap_tokens: number;
  readonly created_at_ms: string;
  readonly usage_bytes: string;
}

interface BatchRow extends StatusCountRow {
  readonly created_at_ms: string;
  readonly is_cancelled: boolean;
}

const attachmentRelation = sql`app.vector_store s
  JOIN app.vector_store_file f ON f.tenant_id = s.tenant_id AND f.store_no = s.store_no
  JOIN app.file body ON body.tenant_id = f.tenant_id AND body.id = f.file_id`;
const attachmentColumns = sql`s.id AS store_id, f.file_id, body.filename, f.status, f.error_code, f.error_message, f.attributes, f.chunking_type,
  f.max_chunk_tokens, f.overlap_tokens, f.created_at_ms, f.usage_bytes`;

function attachmentRecord(row: AttachmentRow): VectorStoreFileRecord {
  const { error_code: code, error_message: message } = row;
  return {
    id: row.file_id,
    vectorStoreId: row.store_id,
    filename: row.filename,
    status: row.status,
    ...(code !== null && { lastError: { code, message: message ?? '' } }),
    usageBytes: Number(row.usage_bytes),
    attributes: row.attributes,
    chunking: { type: row.chunking_type, maxChunkTokens: row.max_chunk_tokens, overlapTokens: row.overlap_tokens },
    createdAtMs: Number(row.created_at_ms),
  };
}

function batchStatus(row: BatchRow, counts: Readonly<Record<IngestionStatus | 'total', number>>): IngestionStatus {
  if (counts.in_progress > 0) return 'in_progress';
  if (row.is_cancelled) return 'cancelled';
  return counts.total > 0 && counts.failed === counts.total ? 'failed' : 'completed';
}
