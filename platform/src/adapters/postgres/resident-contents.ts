/**
 * What a resident partition is filled with: read in the tenant's own transactions, each short, because the embedded engine does nothing else meanwhile. What a
 * completed file has indexed never changes, so pieces read at different times fit together when the file is still there with as many chunks.
 */
import { sql } from 'kysely';
import { assert } from '../../primitives/assert.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { ChunkBatch } from '../../rag/resident/partition.ts';
import type { Attributes } from '../../tenancy/attributes.ts';
import type { Sql, TenantDatabase } from './database.ts';
import { embeddingTable, inShards, placeColumns, type StorePlace } from './documents-contents.ts';
import type { NamedFile } from './documents-search-rows.ts';
import { vectorHeadBytes } from './vector-text.ts';

/** A store's contents by name: which files it shows at a revision. */
export interface StoreContents {
  readonly place: StorePlace;
  readonly revision: number;
  readonly language: string;
  readonly chunkCount: number;
  readonly termCount: number;
  readonly files: ReadonlyMap<number, ShownFile>;
}

export interface ShownFile extends NamedFile {
  readonly chunkCount: number;
}

/** Chunks of these files, from an ordinal to before another. */
export interface ContentsPiece {
  readonly fileNos: readonly number[];
  readonly ordinalFrom: number;
  readonly ordinalBelow: number;
  readonly chunkCount: number;
}

/** Chunks that one transaction reads: about 20 ms of the embedded engine. */
export const pieceChunks = 256;
/** A larger file is read in this many pieces at most: each looks at all of the file's words. */
const piecesPerFileMax = 8;
const ordinalMax = 2 ** 31 - 1;

/** One snapshot. Undefined: no such store. */
export function readContents(database: TenantDatabase, storeId: string): Promise<StoreContents | undefined> {
  return database.read(async (db) => {
    const stores = await sql<StorePlace & HeadRow>`
      SELECT ${placeColumns}, s.revision, s.language, s.chunk_count, s.term_count FROM app.vector_store s WHERE s.id = ${storeId}`.execute(
      db,
    );
    const [store] = stores.rows;
    if (store === undefined) return undefined;
    const { rows } = await sql<FileRow>`
      SELECT f.file_no, f.file_id, body.filename, f.attributes, f.chunk_count
        FROM app.vector_store_file f JOIN app.file body ON body.tenant_id = f.tenant_id AND body.id = f.file_id
       WHERE f.store_no = ${store.store_no}::int AND f.status = 'completed' ORDER BY f.file_no`.execute(db);
    return {
      place: store,
      revision: Number(store.revision),
      language: store.language,
      chunkCount: Number(store.chunk_count),
      termCount: Number(store.term_count),
      files: new Map(rows.map((row) => [row.file_no, shownFile(row)])),
    };
  });
}

/** The chunks of files in pieces that one transaction each can read. */
export function* piecesOf(files: ReadonlyMap<number, ShownFile>): Generator<ContentsPiece> {
  let fileNos: number[] = [];
  let chunkCount = 0;
  const whole = () => ({ fileNos, ordinalFrom: 0, ordinalBelow: ordinalMax, chunkCount });
  for (const [fileNo, file] of files) {
    if (file.chunkCount > pieceChunks) {
      yield* slices(fileNo, file.chunkCount);
      continue;
    }
    if (chunkCount + file.chunkCount > pieceChunks) {
      yield whole();
      fileNos = [];
      chunkCount = 0;
    }
    fileNos.push(fileNo);
    chunkCount += file.chunkCount;
  }
  if (chunkCount > 0) yield whole();
}

function* slices(fileNo: number, chunks: number): Generator<ContentsPiece> {
  const size = Math.max(pieceChunks, Math.ceil(chunks / piecesPerFileMax));
  for (let ordinalFrom = 0; ordinalFrom < chunks; ordinalFrom += size) {
    const ordinalBelow = Math.min(chunks, ordinalFrom + size);
    yield { fileNos: [fileNo], ordinalFrom, ordinalBelow, chunkCount: ordinalBelow - ordinalFrom };
  }
}

/** Undefined: not all of these chunks are there any more. Asserts that every one is this tenant's. */
export function readPiece(
  database: TenantDatabase,
  { tenantId, place }: { readonly tenantId: TenantId; readonly place: StorePlace },
  piece: ContentsPiece,
): Promise<ChunkBatch | undefined> {
  return database.read(async (db) => {
    await sql`SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`.execute(db);
    const vectors = await readVectors(db, place, piece);
    if (vectors.length !== piece.chunkCount) return undefined;
    assert(
      vectors.every((row) => row.tenant_id === tenantId),
      'a partition is filled with its own tenant’s rows',
    );
    return batchOf(place, vectors, await readWords(db, place, piece));
  });
}

function shownFile(row: FileRow): ShownFile {
  return { fileId: row.file_id, filename: row.filename, attributes: row.attributes, chunkCount: Number(row.chunk_count) };
}

interface HeadRow {
  readonly revision: string;
  readonly language: string;
  readonly chunk_count: string;
  readonly term_count: string;
}

interface FileRow {
  readonly file_no: number;
  readonly file_id: string;
  readonly filename: string;
  readonly attributes: Attributes;
  readonly chunk_count: string;
}

interface VectorRow {
  readonly tenant_id: string;
  readonly file_no: number;
  readonly ordinal: number;
  readonly vector: Buffer;
}

interface WordsRow {
  readonly file_no: number;
  readonly ordinal: number;
  readonly term_count: number;
  readonly words: string;
  readonly frequencies: string;
}

async function readVectors(db: Sql, place: StorePlace, piece: ContentsPiece): Promise<readonly VectorRow[]> {
  const { rows } = await sql<VectorRow>`
    SELECT tenant_id, file_no, ordinal, public.vector_send(embedding::public.vector) AS vector FROM ${embeddingTable(place.embedding_dimensions)}
     WHERE ${inShards(place)} AND store_no = ${place.store_no}::int AND space_no = ${place.space_no}::int AND ${isOf(piece)}
     ORDER BY file_no, ordinal`.execute(db);
  return rows;
}

/** No word holds a line break: the parser takes it for space between words. */
async function readWords(db: Sql, place: StorePlace, piece: ContentsPiece): Promise<readonly WordsRow[]> {
  const { rows } = await sql<WordsRow>`
    SELECT file_no, ordinal, min(term_count) AS term_count, string_agg(lexeme, chr(10)) AS words, string_agg(frequency::text, chr(10)) AS frequencies
      FROM app.posting WHERE ${inShards(place)} AND store_no = ${place.store_no}::int AND ${isOf(piece)}
     GROUP BY file_no, ordinal`.execute(db);
  return rows;
}

function isOf({ fileNos, ordinalFrom, ordinalBelow }: ContentsPiece) {
  return sql`file_no = ANY (${fileNos}::int[]) AND ordinal >= ${ordinalFrom}::int AND ordinal < ${ordinalBelow}::int`;
}

function batchOf(place: StorePlace, rows: readonly VectorRow[], wordRows: readonly WordsRow[]): ChunkBatch {
  const rowBytes = vectorHeadBytes + place.embedding_dimensions * 4;
  const vectors = new Uint8Array(rows.length * rowBytes);
  const wordsAt = new Map(wordRows.map((row) => [`${row.file_no}:${row.ordinal}`, row]));
  const words = rows.map((row) => wordsAt.get(`${row.file_no}:${row.ordinal}`));
  for (const [index, { vector }] of rows.entries()) vectors.set(vector, index * rowBytes);
  return {
    fileNos: Int32Array.from(rows, (row) => row.file_no),
    ordinals: Int32Array.from(rows, (row) => row.ordinal),
    termCounts: Int32Array.from(words, (row) => row?.term_count ?? 0),
    vectors,
    words: words.map((row) => row?.words ?? ''),
    frequencies: words.map((row) => row?.frequencies ?? ''),
  };
}
