import { createHash } from 'node:crypto';
import { sql } from 'kysely';
import type { Sealer, TenantCipher } from '../../encryption/tenant-cipher.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { IdSource } from '../../primitives/ids.ts';
import type { SealJob } from '../../rag/job-queue.ts';
import type { FileBody, FileCabinet, FileContent, NewFile, Page, PageRequest, StoredFile } from '../../tenancy/capabilities.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { Sql, TenantDatabase } from './database.ts';
import { removeFromStores } from './documents-contents.ts';
import { insertJobs } from './documents-jobs.ts';
import { readPage } from './documents-page.ts';
import { type DocumentQuota, returnQuota, takeQuota } from './documents-quota.ts';
import { sealed } from './sealed-columns.ts';

export interface FileCabinetParts {
  readonly database: TenantDatabase;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly quota: DocumentQuota;
  readonly principal: Principal;
  readonly sealJob: SealJob;
}

/** Bytes of one stored part of a body, and of one transaction. */
const partBytes = 1_024 * 1_024;
/** A file that is not whole after this long is never going to be. */
const abandonedAfterMs = 3_600_000;

/**
 * Bodies are rows. One that fits a part is stored in one transaction; a larger one part by part under a row that has expired already, and the last
 * transaction gives it its time: the embedded engine runs one transaction at a time, and 50 MB in one of them would be everybody's wait.
 */
export class PostgresFileCabinet implements FileCabinet {
  readonly #parts: FileCabinetParts;

  constructor(parts: FileCabinetParts) {
    this.#parts = parts;
  }

  async create(file: NewFile): Promise<StoredFile> {
    const body = file.body instanceof Uint8Array ? inMemory(file.body) : file.body;
    const stored: StoredFile = {
      id: this.#parts.ids.next('file-'),
      filename: file.filename,
      purpose: file.purpose,
      bytes: body.bytes,
      sha256: body.sha256,
      createdAtMs: this.#parts.clock.nowMs(),
      ...(file.expiresAtMs !== undefined && { expiresAtMs: file.expiresAtMs }),
    };
    if (body.bytes <= partBytes) await this.#storeAtOnce(stored, body);
    else await this.#storeInParts(stored, body);
    return stored;
  }

  async #storeAtOnce(stored: StoredFile, body: FileBody): Promise<void> {
    const parts = await Array.fromAsync(body.parts(partBytes));
    const { database } = this.#parts;
    const sealer = await database.cipher.sealer(parts.length);
    await database.write(async (db) => {
      await this.#insertFile(db, stored, stored.expiresAtMs ?? null);
      for (const [partNo, part] of parts.entries()) await insertPart(db, sealer, { fileId: stored.id, partNo, part });
      await this.#scheduleExpiry(db, stored, stored.expiresAtMs);
    });
  }

  async #storeInParts(stored: StoredFile, body: FileBody): Promise<void> {
    const { database } = this.#parts;
    await database.write(async (db) => {
      await this.#insertFile(db, stored, 0);
      await this.#scheduleExpiry(db, stored, stored.createdAtMs + abandonedAfterMs);
    });
    try {
      let partNo = 0;
      for await (const part of body.parts(partBytes)) {
        const row = { fileId: stored.id, partNo: partNo++, part };
        const sealer = await database.cipher.sealer(1);
        await database.write((db) => insertPart(db, sealer, row));
      }
      await database.write((db) => this.#show(db, stored));
    } catch (error) {
      // Where this fails too, the job that was scheduled deletes it.
      await this.delete(stored.id).catch(() => {});
      throw error;
    }
  }

  async #insertFile(db: Sql, stored: StoredFile, expiresAtMs: number | null): Promise<void> {
    await takeQuota(db, { files: 1, fileBytes: stored.bytes }, this.#parts.quota);
    await sql`
      INSERT INTO app.file (id, filename, purpose, bytes, sha256, created_at_ms, expires_at_ms)
      VALUES (${stored.id}, ${stored.filename}, ${stored.purpose}, ${stored.bytes}, ${stored.sha256}, ${stored.createdAtMs}, ${expiresAtMs})`.execute(
      db,
    );
  }

  async #show(db: Sql, stored: StoredFile): Promise<void> {
    const { rows } = await sql`
      UPDATE app.file SET expires_at_ms = ${stored.expiresAtMs ?? null} WHERE id = ${stored.id} RETURNING 1`.execute(db);
    if (rows.length === 0) throw goneMeanwhile();
    await this.#scheduleExpiry(db, stored, stored.expiresAtMs);
  }

  async #scheduleExpiry(db: Sql, { id: fileId, createdAtMs: nowMs }: StoredFile, readyAtMs: number | undefined): Promise<void> {
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

  async read(fileId: string): Promise<FileContent | undefined> {
    const file = await this.get(fileId);
    return file && { bytes: file.bytes, parts: this.#partsOf(file) };
  }

  async *#partsOf(file: StoredFile): AsyncGenerator<Uint8Array> {
    let read = 0;
    const { database } = this.#parts;
    for (let partNo = 0; read < file.bytes; partNo++) {
      const record = await database.read((db) => readPart(db, file.id, partNo));
      const part = record && (await database.cipher.open(sealed.filePartBody, [file.id, partNo], record));
      if (part === undefined) throw goneMeanwhile();
      read += part.length;
      yield part;
    }
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

  async expire(fileId: string): Promise<number | undefined> {
    const nowMs = this.#parts.clock.nowMs();
    const expiresAtMs = await this.#parts.database.read(async (db) => {
      const { rows } = await sql<{
        readonly expires_at_ms: string | null;
      }>`SELECT expires_at_ms FROM app.file WHERE id = ${fileId}`.execute(db);
      return rows[0]?.expires_at_ms ?? undefined;
    });
    if (expiresAtMs === undefined) return undefined;
    if (Number(expiresAtMs) > nowMs) return Number(expiresAtMs) - nowMs;
    await this.delete(fileId);
    return undefined;
  }
}

/** The whole body of a file; the caller has seen that it is there, and has the cipher ready. */
export async function readBody(db: Sql, cipher: TenantCipher, fileId: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for (let partNo = 0; ; partNo++) {
    const record = await readPart(db, fileId, partNo);
    if (record === undefined) return Buffer.concat(parts);
    parts.push(await cipher.open(sealed.filePartBody, [fileId, partNo], record));
  }
}

/** Sealed. */
async function readPart(db: Sql, fileId: string, partNo: number): Promise<Uint8Array | undefined> {
  const { rows } = await sql<{ readonly body: Buffer }>`
    SELECT body FROM app.file_part WHERE file_id = ${fileId} AND part_no = ${partNo}`.execute(db);
  return rows[0]?.body;
}

interface PartRow {
  readonly fileId: string;
  readonly partNo: number;
  readonly part: Uint8Array;
}

async function insertPart(db: Sql, sealer: Sealer, { fileId, partNo, part }: PartRow): Promise<void> {
  const body = sealer.seal(sealed.filePartBody, [fileId, partNo], part);
  const { rows } = await sql`
    INSERT INTO app.file_part (file_id, part_no, body) SELECT id, ${partNo}::int, ${body}::bytea FROM app.file WHERE id = ${fileId} RETURNING 1`.execute(
    db,
  );
  if (rows.length === 0) throw goneMeanwhile();
}

function inMemory(bytes: Uint8Array): FileBody {
  return {
    bytes: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
    async *parts(size) {
      for (let start = 0; start < bytes.length; start += size) yield bytes.subarray(start, start + size);
    },
  };
}

function goneMeanwhile(): BulkheadError {
  return new BulkheadError('not_found', 'the file was deleted meanwhile');
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

/** An expired file, and one that is not whole yet, is absent to its tenant; its bytes and its place in stores go with the job of that time. */
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
