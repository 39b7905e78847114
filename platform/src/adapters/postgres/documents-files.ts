import { createHash } from 'node:crypto';
import { sql } from 'kysely';
import type { Clock } from '../../primitives/clock.ts';
import type { IdSource } from '../../primitives/ids.ts';
import type { SealJob } from '../../rag/job-queue.ts';
import type { FileCabinet, NewFile, Page, PageRequest, StoredFile } from '../../tenancy/capabilities.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { Sql, TenantDatabase } from './database.ts';
import { removeFromStores } from './documents-contents.ts';
import { insertJobs } from './documents-jobs.ts';
import { readPage } from './documents-page.ts';
import { type DocumentQuota, returnQuota, takeQuota } from './documents-quota.ts';

export interface FileCabinetParts {
  readonly database: TenantDatabase;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly quota: DocumentQuota;
  readonly principal: Principal;
  readonly sealJob: SealJob;
}

/** Bytes of one stored part of a body. */
const partBytes = 1_024 * 1_024;

export class PostgresFileCabinet implements FileCabinet {
  readonly #parts: FileCabinetParts;

  constructor(parts: FileCabinetParts) {
    this.#parts = parts;
  }

  async create(file: NewFile): Promise<StoredFile> {
    const { database, ids, clock, quota } = this.#parts;
    const stored: StoredFile = {
      id: ids.next('file-'),
      filename: file.filename,
      purpose: file.purpose,
      bytes: file.body.length,
      sha256: createHash('sha256').update(file.body).digest('hex'),
      createdAtMs: clock.nowMs(),
      ...(file.expiresAtMs !== undefined && { expiresAtMs: file.expiresAtMs }),
    };
    await database.write(async (db) => {
      await takeQuota(db, { files: 1, fileBytes: stored.bytes }, quota);
      await sql`
        INSERT INTO app.file (id, filename, purpose, bytes, sha256, created_at_ms, expires_at_ms)
        VALUES (${stored.id}, ${stored.filename}, ${stored.purpose}, ${stored.bytes}, ${stored.sha256}, ${stored.createdAtMs}, ${stored.expiresAtMs ?? null})`.execute(
        db,
      );
      await insertParts(db, stored.id, file.body);
      await this.#scheduleExpiry(db, stored);
    });
    return stored;
  }

  async #scheduleExpiry(db: Sql, { id: fileId, createdAtMs: nowMs, expiresAtMs: readyAtMs }: StoredFile): Promise<void> {
    if (readyAtMs === undefined) return;
    const { ids, principal, sealJob } = this.#parts;
    const job = { id: ids.next('job_'), kind: 'expire_file', payload: { fileId } } as const;
    await insertJobs(db, [{ ...job, envelope: sealJob(principal, job) }], { nowMs, readyAtMs });
  }

  async get(fileId: string): Promise<StoredFile | undefined> {
    const nowMs = this.#parts.clock.nowMs();
    return this.#parts.database.read(async (db) => {
      const { rows } = await sql<FileRow>`SELECT ${fileColumns} FROM app.file f WHERE f.id = ${fileId} AND ${isLive(nowMs)}`.execute(db);
      return rows[0] && storedFile(rows[0]);
    });
  }

  async read(fileId: string): Promise<Uint8Array | undefined> {
    const nowMs = this.#parts.clock.nowMs();
    return this.#parts.database.read(async (db) => {
      const { rows } = await sql`SELECT 1 FROM app.file f WHERE f.id = ${fileId} AND ${isLive(nowMs)}`.execute(db);
      return rows.length === 0 ? undefined : readBody(db, fileId);
    });
  }

  async list(page: PageRequest, purpose?: string): Promise<Page<StoredFile>> {
    const nowMs = this.#parts.clock.nowMs();
    return this.#parts.database.read(async (db) => {
      const ofPurpose = purpose === undefined ? sql`true` : sql`f.purpose = ${purpose}`;
      const list = {
        from: sql`app.file f`,
        columns: fileColumns,
        where: sql`${ofPurpose} AND ${isLive(nowMs)}`,
        key: [sql`f.created_at_ms`, sql`f.id`],
        id: sql`f.id`,
      };
      const { items, hasMore } = await readPage<FileRow>(db, list, page);
      return { items: items.map(storedFile), hasMore };
    });
  }

  async delete(fileId: string): Promise<boolean> {
    return this.#parts.database.write(async (db) => {
      // The lock keeps the file from being attached anywhere while it is removed from where it is.
      const { rows } = await sql<{ readonly bytes: string }>`SELECT bytes FROM app.file WHERE id = ${fileId} FOR UPDATE`.execute(db);
      const [file] = rows;
      if (file === undefined) return false;
      await removeFromStores(db, fileId);
      await sql`DELETE FROM app.file WHERE id = ${fileId}`.execute(db);
      await returnQuota(db, { files: 1, fileBytes: Number(file.bytes) });
      return true;
    });
  }
}

/** The whole body of a file; the caller has seen that it is there. */
export async function readBody(db: Sql, fileId: string): Promise<Uint8Array> {
  const parts: Buffer[] = [];
  for (let partNo = 0; ; partNo++) {
    const { rows } = await sql<{ readonly body: Buffer }>`
      SELECT body FROM app.file_part WHERE file_id = ${fileId} AND part_no = ${partNo}`.execute(db);
    const [part] = rows;
    if (part === undefined) return Buffer.concat(parts);
    parts.push(part.body);
  }
}

interface FileRow {
  readonly id: string;
  readonly filename: string;
  readonly purpose: string;
  readonly bytes: string;
  readonly sha256: string;
  readonly created_at_ms: string;
  readonly expires_at_ms: string | null;
}

const fileColumns = sql`f.id, f.filename, f.purpose, f.bytes, f.sha256, f.created_at_ms, f.expires_at_ms`;

/** An expired file is absent to its tenant at once; its bytes and its place in stores go with the job of that time. */
function isLive(nowMs: number) {
  return sql`(f.expires_at_ms IS NULL OR f.expires_at_ms > ${nowMs})`;
}

function storedFile(row: FileRow): StoredFile {
  return {
    id: row.id,
    filename: row.filename,
    purpose: row.purpose,
    bytes: Number(row.bytes),
    sha256: row.sha256,
    createdAtMs: Number(row.created_at_ms),
    ...(row.expires_at_ms !== null && { expiresAtMs: Number(row.expires_at_ms) }),
  };
}

async function insertParts(db: Sql, fileId: string, body: Uint8Array): Promise<void> {
  for (let start = 0; start < body.length; start += partBytes) {
    const part = Buffer.from(body.buffer, body.byteOffset + start, Math.min(partBytes, body.length - start));
    await sql`INSERT INTO app.file_part (file_id, part_no, body) VALUES (${fileId}, ${start / partBytes}, ${part})`.execute(db);
  }
}
