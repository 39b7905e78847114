/** The rows behind a ranking: text, file and attributes of ranked places. Texts are sealed, and opened when their transaction has ended. */
import { sql } from 'kysely';
import type { SealedValue, TenantCipher } from '../../encryption/tenant-cipher.ts';
import { assert } from '../../primitives/assert.ts';
import type { RankedPlace } from '../../rag/hybrid-ranking.ts';
import type { Attributes } from '../../tenancy/attributes.ts';
import type { RetrievedChunk } from '../../tenancy/capabilities.ts';
import type { Sql, TenantDatabase } from './database.ts';
import { inShards, type StorePlace } from './documents-contents.ts';
import { sealed } from './sealed-columns.ts';

/** A found chunk whose text is sealed still. */
export interface SealedChunk extends Omit<RetrievedChunk, 'text'> {
  readonly content: SealedValue;
}

/** The chunks with their texts, in their order. One that does not open under the tenant fails all and raises the alarm. */
export async function openChunks(cipher: TenantCipher, chunks: readonly SealedChunk[]): Promise<readonly RetrievedChunk[]> {
  const texts = await cipher.openAll(
    sealed.chunkContent,
    chunks.map((chunk) => chunk.content),
  );
  return chunks.map(({ content: _content, ...chunk }, index) => ({ ...chunk, text: texts[index]?.toString('utf8') ?? '' }));
}

/** What an answer says of the file that a chunk is from. */
export interface NamedFile {
  readonly fileId: string;
  readonly filename: string;
  readonly attributes: Attributes;
}

interface TextRow {
  readonly owner_id: string;
  readonly content: Buffer;
}

interface ChunkRow extends TextRow {
  readonly file_id: string;
  readonly filename: string;
  readonly attributes: Attributes;
}

/** In the transaction that ranked: every place has a row. */
export async function readRanked(
  db: Sql,
  { storeId, store }: { readonly storeId: string; readonly store: StorePlace },
  ranked: readonly RankedPlace[],
): Promise<readonly SealedChunk[]> {
  const fileNos = ranked.map((place) => place.fileNo);
  const ordinals = ranked.map((place) => place.ordinal);
  const { rows } = await sql<ChunkRow>`
    SELECT c.tenant_id AS owner_id, c.store_no, f.file_id, f.filename, f.attributes, c.content
      FROM unnest(${fileNos}::int[], ${ordinals}::int[]) WITH ORDINALITY AS ranked (file_no, ordinal, place)
     CROSS JOIN LATERAL (
           SELECT tenant_id, store_no, content FROM app.chunk
            WHERE ${inShards(store)} AND store_no = ${store.store_no}::int AND file_no = ranked.file_no AND ordinal = ranked.ordinal
           OFFSET 0) c
     CROSS JOIN LATERAL (
           SELECT attached.file_id, attached.attributes, body.filename
             FROM app.vector_store_file attached JOIN app.file body ON body.id = attached.file_id
            WHERE attached.store_no = ${store.store_no}::int AND attached.file_no = ranked.file_no OFFSET 0) f
     ORDER BY ranked.place`.execute(db);
  assert(rows.length === ranked.length, 'every ranked place has a row');
  return rows.map((row, index) => {
    const { file_id: fileId, filename, attributes } = row;
    const file = { fileId, filename, attributes };
    return sealedChunk({ storeId, storeNo: store.store_no }, ranked[index] as RankedPlace, { row, file });
  });
}

/** A store as its row says just now. */
export interface StoreHead {
  readonly revision: number;
  readonly shards: readonly number[];
  readonly lastActiveAtMs: number;
  readonly expiresAfterDays: number | undefined;
}

export interface RankedStore {
  readonly storeId: string;
  readonly storeNo: number;
  /** Of the contents that were ranked. */
  readonly revision: number;
  /** Where its rows may be. */
  readonly shards: readonly number[];
  /** By number, as they are at that revision. */
  readonly files: ReadonlyMap<number, NamedFile>;
}

export interface RankedRead {
  readonly head: StoreHead;
  /** Undefined when the store is another by now than the one that was ranked. */
  readonly chunks: readonly SealedChunk[] | undefined;
}

/** One round trip. Undefined: no such store. */
export async function readRankedAt(
  database: TenantDatabase,
  { storeId, storeNo, revision, shards, files }: RankedStore,
  ranked: readonly RankedPlace[],
): Promise<RankedRead | undefined> {
  const fileNos = ranked.map((place) => place.fileNo);
  const ordinals = ranked.map((place) => place.ordinal);
  const rows = await database.call<HeadRow & TextRow>('bulkhead_ranked_chunks', [storeId, revision, shards, fileNos, ordinals]);
  const [first] = rows;
  if (first === undefined) return undefined;
  const head = {
    revision: Number(first.revision),
    shards: first.shards,
    lastActiveAtMs: Number(first.last_active_at_ms),
    expiresAfterDays: first.expires_after_days ?? undefined,
  };
  const isSame = head.revision === revision && head.shards.every((shard) => shards.includes(shard));
  if (!isSame) return { head, chunks: undefined };
  assert(rows.length === Math.max(1, ranked.length), 'every ranked place has a row');
  const chunks = ranked.map((place, index) =>
    sealedChunk({ storeId, storeNo }, place, { row: rows[index] as TextRow, file: files.get(place.fileNo) as NamedFile }),
  );
  return { head, chunks };
}

interface HeadRow {
  readonly revision: string;
  readonly shards: readonly number[];
  readonly last_active_at_ms: string;
  readonly expires_after_days: number | null;
}

function sealedChunk(
  { storeId, storeNo }: { readonly storeId: string; readonly storeNo: number },
  { fileNo, ordinal, score }: RankedPlace,
  { row, file }: { readonly row: TextRow; readonly file: NamedFile },
): SealedChunk {
  const { fileId, filename, attributes } = file;
  const chunkId = `${fileId}:${ordinal}`;
  const content = { row: [storeNo, fileNo, ordinal], record: row.content };
  return { ownerId: row.owner_id, vectorStoreId: storeId, chunkId, fileId, filename, attributes, ordinal, content, score };
}
