import { type RawBuilder, sql } from 'kysely';
import type { SealedValue } from '../../encryption/tenant-cipher.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { SealJob } from '../../rag/job-queue.ts';
import {
  type ChunkVector,
  type EmbeddedStores,
  type EmbeddingSetting,
  type ReembeddingShelf,
  type ReembeddingStep,
  type SpaceChunk,
  type StoreSpace,
  sliceChunksMax,
} from '../../rag/reembed.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { Sql, TenantDatabase } from './database.ts';
import {
  type EmbeddingSpace,
  embeddingTable,
  inShards,
  placeColumns,
  placeNow,
  type StorePlace,
  shardForNewRows,
  vectorType,
} from './documents-contents.ts';
import { insertJobs } from './documents-jobs.ts';
import { sealed } from './sealed-columns.ts';
import { activateSpace } from './space-activation.ts';
import { clearStaleVectors, hasStaleVectors } from './stale-vectors.ts';
import { vectorText } from './vector-text.ts';

export interface ReembeddingShelfParts {
  readonly database: TenantDatabase;
  readonly principal: Principal;
  readonly sealJob: SealJob;
  readonly clock: Clock;
}

/** Vectors of one transaction: the embedded database does nothing else meanwhile. */
const vectorsPerTransactionMax = 32;

/**
 * Re-embedding as rows: the store's row says which space is read and which is filled, and what is in the space says how far it is. So there is no
 * progress to keep, and nothing to mend after a death.
 */
export class PostgresReembeddingShelf implements ReembeddingShelf {
  readonly #parts: ReembeddingShelfParts;

  constructor(parts: ReembeddingShelfParts) {
    this.#parts = parts;
  }

  async begin({ model, dimensions }: EmbeddingSetting): Promise<void> {
    const { database, principal, sealJob, clock } = this.#parts;
    await database.write(async (db) => {
      await sql`
        UPDATE app.vector_store SET building_space_no = NULL, building_model = NULL, building_dimensions = NULL, building_fault = NULL
         WHERE building_space_no IS NOT NULL AND embedding_model = ${model} AND embedding_dimensions = ${dimensions}`.execute(db);
      await sql`
        UPDATE app.vector_store
           SET building_space_no = next_space_no, next_space_no = next_space_no + 1, building_model = ${model}, building_dimensions = ${dimensions},
               building_fault = NULL
         WHERE (embedding_model, embedding_dimensions) IS DISTINCT FROM (${model}, ${dimensions}::int)
           AND (building_model, building_dimensions) IS DISTINCT FROM (${model}, ${dimensions}::int)`.execute(db);
      const { rows } = await sql<{ readonly id: string; readonly building_space_no: number }>`
        SELECT id, building_space_no FROM app.vector_store WHERE building_space_no IS NOT NULL ORDER BY store_no`.execute(db);
      const jobs = rows.map(({ id: storeId, building_space_no: spaceNo }) => {
        const job = { id: `job_${storeId}_space_${spaceNo}`, kind: 'reembed_store', payload: { storeId, spaceNo } } as const;
        return { ...job, envelope: sealJob(principal, job) };
      });
      const nowMs = clock.nowMs();
      await insertJobs(db, jobs, { nowMs, readyAtMs: nowMs });
    });
  }

  async survey(): Promise<readonly EmbeddedStores[]> {
    const { rows } = await this.#parts.database.read((db) =>
      sql<SurveyRow>`
        SELECT embedding_model, embedding_dimensions, building_model, building_dimensions, building_fault, count(*)::int AS stores
          FROM app.vector_store GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5`.execute(db),
    );
    return rows.map(embeddedStores);
  }

  async next(space: StoreSpace): Promise<ReembeddingStep> {
    const step = await this.#nextSealed(space);
    if (step.kind !== 'embed') return step;
    return { ...step, chunks: await this.#open(step.chunks) };
  }

  async #nextSealed({ storeId, spaceNo }: StoreSpace): Promise<SealedStep> {
    return this.#parts.database.read(async (db): Promise<SealedStep> => {
      const store = await openStore(db, storeId);
      if (store === undefined) return { kind: 'done' };
      const building = buildingOf(store, spaceNo);
      if (building === undefined) return (await hasStaleVectors(db, store)) ? { kind: 'clear' } : { kind: 'done' };
      const walked = await chunksAfterTheLast(db, store, building);
      const chunks = walked.length > 0 ? walked : await chunksLeftOut(db, store, building);
      if (chunks.length === 0) return { kind: 'activate' };
      return { kind: 'embed', setting: { model: store.building_model ?? '', dimensions: building.dimensions }, chunks };
    });
  }

  async append(space: StoreSpace, vectors: readonly ChunkVector[]): Promise<boolean> {
    assert(vectors.length <= sliceChunksMax, 'vectors are appended in bounded batches');
    for (let first = 0; first < vectors.length; first += vectorsPerTransactionMax) {
      if (!(await this.#appendNow(space, vectors.slice(first, first + vectorsPerTransactionMax)))) return false;
    }
    return true;
  }

  async activate(space: StoreSpace): Promise<boolean> {
    return this.#parts.database.write((db) => activateSpace(db, space));
  }

  async clear({ storeId }: StoreSpace): Promise<void> {
    await this.#parts.database.write((db) => clearStaleVectors(db, storeId));
  }

  async markFault({ storeId, spaceNo }: StoreSpace, code: string): Promise<void> {
    await this.#parts.database.write((db) =>
      sql`UPDATE app.vector_store SET building_fault = ${code} WHERE id = ${storeId} AND building_space_no = ${spaceNo}`.execute(db),
    );
  }

  /** After the transaction that read them. */
  async #open(chunks: readonly SealedChunk[]): Promise<readonly SpaceChunk[]> {
    const values = chunks.map((chunk) => chunk.content);
    const texts = await this.#parts.database.cipher.openAll(sealed.chunkContent, values);
    return chunks.map(({ fileNo, ordinal }, index) => ({ fileNo, ordinal, text: texts[index]?.toString('utf8') ?? '' }));
  }

  /** The rows of the store and of the files are locked, in this order as everywhere: files stay, and stay where they are, while vectors are written. */
  async #appendNow({ storeId, spaceNo }: StoreSpace, vectors: readonly ChunkVector[]): Promise<boolean> {
    return this.#parts.database.write(async (db) => {
      const { rows } = await sql<StorePlace>`
        UPDATE app.vector_store s SET building_fault = NULL WHERE s.id = ${storeId} AND s.building_space_no = ${spaceNo} RETURNING ${placeColumns}`.execute(
        db,
      );
      const [store] = rows;
      const building = store && buildingOf(store, spaceNo);
      if (store === undefined || building === undefined) return false;
      const [files, ordinals] = [vectors.map((vector) => vector.fileNo), vectors.map((vector) => vector.ordinal)];
      const texts = vectors.map((vector) => vectorText(vector.embedding));
      await sql`
        SELECT 1 FROM app.vector_store_file WHERE store_no = ${store.store_no} AND file_no = ANY (${files}::int[]) ORDER BY file_no FOR UPDATE`.execute(
        db,
      );
      const shardId = shardForNewRows(await placeNow(db, store.store_no));
      await sql`
        INSERT INTO ${embeddingTable(building.dimensions)} (shard_id, store_no, space_no, file_no, ordinal, embedding)
        SELECT ${shardId}::int, ${store.store_no}::int, ${spaceNo}::int, file_no, ordinal, embedding::${vectorType(building.dimensions)}
          FROM unnest(${files}::int[], ${ordinals}::int[], ${texts}::text[]) AS fresh (file_no, ordinal, embedding)
         WHERE ${isCompleted(store, sql`fresh.file_no`)}
        ON CONFLICT DO NOTHING`.execute(db);
      return true;
    });
  }
}

interface SealedChunk extends Omit<SpaceChunk, 'text'> {
  readonly content: SealedValue;
}

type SealedStep =
  | { readonly kind: 'embed'; readonly setting: EmbeddingSetting; readonly chunks: readonly SealedChunk[] }
  | Exclude<ReembeddingStep, { readonly kind: 'embed' }>;

interface SurveyRow {
  readonly embedding_model: string;
  readonly embedding_dimensions: number;
  readonly building_model: string | null;
  readonly building_dimensions: number | null;
  readonly building_fault: string | null;
  readonly stores: number;
}

function embeddedStores(row: SurveyRow): EmbeddedStores {
  const { building_model: model, building_dimensions: dimensions, building_fault: fault } = row;
  return {
    model: row.embedding_model,
    dimensions: row.embedding_dimensions,
    stores: row.stores,
    ...(model !== null && dimensions !== null && { building: { model, dimensions } }),
    ...(fault !== null && { fault }),
  };
}

interface BuildingStore extends StorePlace {
  readonly building_model: string | null;
}

/** Lookups by key whatever the planner believes, as in a search. */
async function openStore(db: Sql, storeId: string): Promise<BuildingStore | undefined> {
  const { rows } = await sql<BuildingStore>`
    SELECT ${placeColumns}, s.building_model, set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)
      FROM app.vector_store s WHERE s.id = ${storeId}`.execute(db);
  return rows[0];
}

function buildingOf(store: StorePlace, spaceNo: number): EmbeddingSpace | undefined {
  const { building_space_no: building, building_dimensions: dimensions } = store;
  return building === spaceNo && dimensions !== null ? { spaceNo, dimensions } : undefined;
}

/** A scalar subquery stays one lookup by key for each row; EXISTS may become a join over the whole store. */
function isCompleted(store: StorePlace, fileNo: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(SELECT f.status FROM app.vector_store_file f WHERE f.store_no = ${store.store_no}::int AND f.file_no = ${fileNo}) = 'completed'`;
}

interface ChunkRow {
  readonly file_no: number;
  readonly ordinal: number;
  readonly content: Buffer;
}

/** In the order of the key, so where to go on is the last vector there is. */
async function chunksAfterTheLast(db: Sql, store: StorePlace, space: EmbeddingSpace): Promise<readonly SealedChunk[]> {
  const last = await sql<{ readonly file_no: number; readonly ordinal: number }>`
    SELECT e.file_no, e.ordinal FROM ${embeddingTable(space.dimensions)} e WHERE ${inSpace(store, space)}
     ORDER BY e.file_no DESC, e.ordinal DESC LIMIT 1`.execute(db);
  const { file_no: fileNo, ordinal } = last.rows[0] ?? { file_no: -1, ordinal: -1 };
  return readChunks(db, store, sql`(c.file_no, c.ordinal) > (${fileNo}::int, ${ordinal}::int) AND ${isCompleted(store, sql`c.file_no`)}`);
}

/** Of files that were indexed after the walk had passed them. */
async function chunksLeftOut(db: Sql, store: StorePlace, space: EmbeddingSpace): Promise<readonly SealedChunk[]> {
  const table = embeddingTable(space.dimensions);
  const { rows } = await sql<{ readonly file_no: number }>`
    SELECT f.file_no FROM app.vector_store_file f
     WHERE f.store_no = ${store.store_no}::int AND f.status = 'completed'
       AND f.chunk_count > (SELECT count(*) FROM ${table} e WHERE ${inSpace(store, space)} AND e.file_no = f.file_no)
     ORDER BY f.file_no LIMIT 1`.execute(db);
  const [file] = rows;
  if (file === undefined) return [];
  const hasNoVector = sql`(SELECT 1 FROM ${table} e WHERE ${inSpace(store, space)} AND e.file_no = c.file_no AND e.ordinal = c.ordinal) IS NULL`;
  return readChunks(db, store, sql`c.file_no = ${file.file_no}::int AND ${hasNoVector}`);
}

function inSpace(store: StorePlace, space: EmbeddingSpace): RawBuilder<unknown> {
  return sql`${inShards(store, sql`e.shard_id`)} AND e.store_no = ${store.store_no}::int AND e.space_no = ${space.spaceNo}::int`;
}

async function readChunks(db: Sql, store: StorePlace, which: RawBuilder<unknown>): Promise<readonly SealedChunk[]> {
  const { rows } = await sql<ChunkRow>`
    SELECT c.file_no, c.ordinal, c.content FROM app.chunk c
     WHERE ${inShards(store, sql`c.shard_id`)} AND c.store_no = ${store.store_no}::int AND ${which}
     ORDER BY c.file_no, c.ordinal LIMIT ${sliceChunksMax}::int`.execute(db);
  return rows.map(({ file_no: fileNo, ordinal, content }) => ({
    fileNo,
    ordinal,
    content: { row: [store.store_no, fileNo, ordinal], record: content },
  }));
}
