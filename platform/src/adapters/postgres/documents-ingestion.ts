import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import type { Sealer } from '../../encryption/tenant-cipher.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import { appendChunksMax, type EmbeddedChunk, type IngestionDraft, type IngestionFailure, type IngestionShelf } from '../../rag/ingest.ts';
import type { FileReference } from '../../rag/job-queue.ts';
import { lexicalText } from '../../rag/lexical-text.ts';
import type { ChunkingStrategy } from '../../tenancy/capabilities.ts';
import type { Sql, TenantDatabase } from './database.ts';
import {
  deleteContents,
  embeddingTable,
  lockStore,
  placeColumns,
  placeNow,
  type StorePlace,
  shardForNewRows,
  vectorType,
} from './documents-contents.ts';
import { readBody } from './documents-files.ts';
import { sealed } from './sealed-columns.ts';
import { vectorText } from './vector-text.ts';

/**
 * Where the worker writes what it indexed. A draft is a token in the file's row: whoever wrote it last may append and publish, everyone
 * else is told no. Whatever ends `in_progress` clears the token and, unless it publishes, removes the hidden chunks in the same transaction.
 */
export class PostgresIngestionShelf implements IngestionShelf {
  readonly #database: TenantDatabase;

  constructor(database: TenantDatabase) {
    this.#database = database;
  }

  async begin(reference: FileReference): Promise<IngestionDraft | undefined> {
    const token = randomUUID();
    return this.#database.write(async (db) => {
      const file = await lockFile(db, reference);
      if (file?.status !== 'in_progress') return undefined;
      if (file.draft !== null && file.draft_digest === null) await deleteContents(db, file, [file.file_no]);
      await sql`
        UPDATE app.vector_store_file SET draft = ${token} WHERE store_no = ${file.store_no} AND file_no = ${file.file_no}`.execute(db);
      return new PostgresDraft(this.#database, { file, token, fileId: reference.fileId });
    });
  }

  async fail(reference: FileReference, error: IngestionFailure): Promise<void> {
    await this.#database.write(async (db) => {
      const file = await lockFile(db, reference);
      if (file?.status !== 'in_progress') return;
      await deleteContents(db, file, [file.file_no]);
      await sql`
        UPDATE app.vector_store_file SET status = 'failed', draft = NULL, error_code = ${error.code}, error_message = ${error.message}
         WHERE store_no = ${file.store_no} AND file_no = ${file.file_no}`.execute(db);
    });
  }
}

interface LockedFile extends StorePlace {
  readonly file_no: number;
  readonly status: string;
  readonly draft: string | null;
  /** Of an attempt that was parked: what its hidden chunks are the first of. */
  readonly draft_digest: string | null;
  readonly filename: string;
  readonly language: string;
  readonly chunking_type: ChunkingStrategy['type'];
  readonly max_chunk_tokens: number;
  readonly overlap_tokens: number;
}

async function lockFile(db: Sql, { storeId, fileId }: FileReference): Promise<LockedFile | undefined> {
  const { rows } = await sql<LockedFile>`
    SELECT ${placeColumns}, s.language, f.file_no, f.status, f.draft, f.draft_digest, body.filename,
           f.chunking_type, f.max_chunk_tokens, f.overlap_tokens
      FROM app.vector_store s
      JOIN app.vector_store_file f ON f.tenant_id = s.tenant_id AND f.store_no = s.store_no
      JOIN app.file body ON body.tenant_id = f.tenant_id AND body.id = f.file_id
     WHERE s.id = ${storeId} AND f.file_id = ${fileId} FOR UPDATE OF f`.execute(db);
  const [file] = rows;
  return file && { ...file, ...(await placeNow(db, file.store_no)) };
}

/**
 * What one transaction writes: the embedded database does nothing else meanwhile. Words cost the most, about 2 ms for 1,000 characters; with 8 long
 * chunks at a time a neighbour's search took 112 ms at the 99th percentile, so bounded 29 ms, alone 15 ms.
 */
const chunksPerTransactionMax = 8;
const charactersPerTransaction = 6_000;

/** Runs of chunks that are written together, each at least one chunk. */
function* transactionsOf(chunks: readonly EmbeddedChunk[]): Generator<readonly EmbeddedChunk[]> {
  let run: EmbeddedChunk[] = [];
  let characters = 0;
  for (const chunk of chunks) {
    const isFull = run.length === chunksPerTransactionMax || characters + chunk.text.length > charactersPerTransaction;
    if (run.length > 0 && isFull) {
      yield run;
      run = [];
      characters = 0;
    }
    run.push(chunk);
    characters += chunk.text.length;
  }
  if (run.length > 0) yield run;
}

class PostgresDraft implements IngestionDraft {
  readonly #database: TenantDatabase;
  readonly #file: LockedFile;
  readonly #token: string;
  readonly #fileId: string;
  #chunkCount = 0;
  #termCount = 0;
  #usageBytes = 0;

  constructor(database: TenantDatabase, draft: { readonly file: LockedFile; readonly token: string; readonly fileId: string }) {
    this.#database = database;
    this.#file = draft.file;
    this.#token = draft.token;
    this.#fileId = draft.fileId;
  }

  get filename(): string {
    return this.#file.filename;
  }

  get embeddingModel(): string {
    return this.#file.embedding_model;
  }

  get embeddingDimensions(): number {
    return this.#file.embedding_dimensions;
  }

  get chunking(): ChunkingStrategy {
    const { chunking_type: type, max_chunk_tokens: maxChunkTokens, overlap_tokens: overlapTokens } = this.#file;
    return { type, maxChunkTokens, overlapTokens };
  }

  async readBody(): Promise<Uint8Array> {
    const { cipher } = this.#database;
    await cipher.ready();
    return this.#database.read((db) => readBody(db, cipher, this.#fileId));
  }

  async resume(digest: string, texts: readonly string[]): Promise<number> {
    const { store_no: storeNo, file_no: fileNo, draft_digest: parked } = this.#file;
    if (parked === null) return 0;
    const kept = await this.#database.write(async (db) => {
      if (!(await this.#isHeld(db))) return { chunks: 0, terms: 0 };
      const isSame = parked === this.#parkedDigest(digest);
      if (!isSame) await deleteContents(db, this.#file, [fileNo]);
      await sql`UPDATE app.vector_store_file SET draft_digest = NULL WHERE store_no = ${storeNo} AND file_no = ${fileNo}`.execute(db);
      const { rows } = await sql<{ readonly chunks: string; readonly terms: string }>`
        SELECT count(*) AS chunks, coalesce(sum(term_count), 0) AS terms FROM app.chunk WHERE store_no = ${storeNo} AND file_no = ${fileNo}`.execute(
        db,
      );
      return { chunks: Number(rows[0]?.chunks), terms: Number(rows[0]?.terms) };
    });
    this.#chunkCount = kept.chunks;
    this.#termCount = kept.terms;
    const textBytes = texts.slice(0, kept.chunks).reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    this.#usageBytes = textBytes + kept.chunks * this.embeddingDimensions * Float32Array.BYTES_PER_ELEMENT;
    return kept.chunks;
  }

  async park(digest: string): Promise<void> {
    const { store_no: storeNo, file_no: fileNo } = this.#file;
    await this.#database.write((db) =>
      sql`
        UPDATE app.vector_store_file SET draft_digest = ${this.#parkedDigest(digest)}
         WHERE store_no = ${storeNo} AND file_no = ${fileNo} AND status = 'in_progress' AND draft = ${this.#token}`.execute(db),
    );
  }

  async append(chunks: readonly EmbeddedChunk[]): Promise<boolean> {
    assert(chunks.length <= appendChunksMax, 'chunks are appended in bounded batches');
    for (const run of transactionsOf(chunks)) {
      if (!(await this.#appendNow(run))) return false;
    }
    return true;
  }

  async publish(): Promise<boolean> {
    const { store_no: storeNo, file_no: fileNo } = this.#file;
    return this.#database.write(async (db) => {
      const added = { usageBytes: this.#usageBytes, chunks: this.#chunkCount, terms: this.#termCount };
      // The store's row is locked before the file's, as everywhere.
      const place = await lockStore(db, sql`s.store_no = ${storeNo}`);
      if (place === undefined) return false;
      assertSpaceIsRead(place, this.#file);
      const { rows } = await sql`
        UPDATE app.vector_store_file
           SET status = 'completed', draft = NULL, usage_bytes = ${added.usageBytes}, chunk_count = ${added.chunks}, term_count = ${added.terms}
         WHERE store_no = ${storeNo} AND file_no = ${fileNo} AND status = 'in_progress' AND draft = ${this.#token}
        RETURNING 1`.execute(db);
      if (rows.length === 0) return false;
      await sql`
        UPDATE app.vector_store
           SET usage_bytes = usage_bytes + ${added.usageBytes}, chunk_count = chunk_count + ${added.chunks}, term_count = term_count + ${added.terms}
         WHERE store_no = ${storeNo}`.execute(db);
      return true;
    });
  }

  /** Chunks of another space are not the first of these. */
  #parkedDigest(digest: string): string {
    return `${this.#file.space_no}:${digest}`;
  }

  /** Locks the file's row for the rest of the transaction. */
  async #isHeld(db: Sql): Promise<boolean> {
    const { rows } = await sql`
      SELECT 1 FROM app.vector_store_file
       WHERE store_no = ${this.#file.store_no} AND file_no = ${this.#file.file_no} AND status = 'in_progress' AND draft = ${this.#token} FOR UPDATE`.execute(
      db,
    );
    return rows.length > 0;
  }

  async #appendNow(chunks: readonly EmbeddedChunk[]): Promise<boolean> {
    const { store_no: storeNo } = this.#file;
    const sealer = await this.#database.cipher.sealer(chunks.length);
    const termCount = await this.#database.write(async (db) => {
      // Shared with other appends, held against a switch of the store's model; the store's row before the file's, as everywhere.
      const { rows } = await sql<StorePlace>`
        SELECT ${placeColumns} FROM app.vector_store s WHERE s.store_no = ${storeNo} FOR SHARE`.execute(db);
      if (rows[0] === undefined) return undefined;
      assertSpaceIsRead(rows[0], this.#file);
      if (!(await this.#isHeld(db))) return undefined;
      const shardId = shardForNewRows(await placeNow(db, storeNo));
      return insertChunks(db, sealer, { file: this.#file, shardId, chunks });
    });
    if (termCount === undefined) return false;
    this.#chunkCount += chunks.length;
    this.#termCount += termCount;
    this.#usageBytes += chunks.reduce((sum, chunk) => sum + Buffer.byteLength(chunk.text) + chunk.embedding.byteLength, 0);
    return true;
  }
}

/** Throws `not_ready` when the store has been embedded by another model since this attempt began: the next one embeds by that. */
function assertSpaceIsRead(place: StorePlace, file: LockedFile): void {
  if (place.space_no === file.space_no) return;
  throw new BulkheadError('not_ready', 'The vector store changed its embedding model meanwhile; the file is indexed anew.');
}

interface IndexedChunks {
  readonly file: LockedFile;
  readonly shardId: number;
  readonly chunks: readonly EmbeddedChunk[];
}

/** Inserts the chunks, sealed, their vectors, and a posting for each of their words; how many words they have. One statement: each is a round trip. */
async function insertChunks(db: Sql, sealer: Sealer, { file, shardId, chunks }: IndexedChunks): Promise<number> {
  const { store_no: storeNo, file_no: fileNo, space_no: spaceNo, embedding_dimensions: dimensions, language } = file;
  const ordinals = chunks.map((chunk) => chunk.ordinal);
  const contents = chunks.map(({ ordinal, text }) =>
    sealer.seal(sealed.chunkContent, [storeNo, fileNo, ordinal], Buffer.from(text, 'utf8')),
  );
  const words = chunks.map((chunk) => lexicalText(chunk.text));
  const vectors = chunks.map((chunk) => vectorText(chunk.embedding));
  const place = sql`${shardId}::int, ${storeNo}::int, ${fileNo}::int, ordinal`;
  const { rows } = await sql<{ readonly terms: string }>`
    WITH fresh AS (
           SELECT ordinal, content, words, embedding::${vectorType(dimensions)} AS embedding
             FROM unnest(${ordinals}::int[], ${contents}::bytea[], ${words}::text[], ${vectors}::text[]) AS row (ordinal, content, words, embedding)),
         parsed AS MATERIALIZED (
           SELECT ordinal, content, embedding, to_tsvector(${language}::text::regconfig, words) AS words FROM fresh),
         counted AS MATERIALIZED (
           SELECT ordinal, content, embedding, words,
                  coalesce((SELECT sum(cardinality(positions)) FROM unnest(words)), 0)::int AS term_count FROM parsed),
         chunks AS (
           INSERT INTO app.chunk (shard_id, store_no, file_no, ordinal, term_count, content) SELECT ${place}, term_count, content FROM counted),
         vectors AS (
           INSERT INTO ${embeddingTable(dimensions)} (shard_id, store_no, file_no, ordinal, space_no, embedding)
           SELECT ${place}, ${spaceNo}::int, embedding FROM counted),
         postings AS (
           INSERT INTO app.posting (shard_id, store_no, file_no, ordinal, term_count, frequency, lexeme)
           SELECT ${place}, term_count, cardinality(word.positions), word.lexeme FROM counted CROSS JOIN LATERAL unnest(words) AS word)
    SELECT sum(term_count) AS terms FROM counted`.execute(db);
  return Number(rows[0]?.terms ?? 0);
}
