/**
 * Exact hybrid search in one statement: nearest vectors and BM25, fused by weighted reciprocal rank.
 *
 * Exact by the shape of the query: `ORDER BY (embedding <=> q) + 0` is no expression that an approximate index is ordered by, so no
 * planner, setting or version can choose one. Word statistics are counted over the store's own visible postings. Scores are summed as
 * whole numbers, so they do not depend on the order in which rows were read: whatever other tenants do, ids and scores stay the same
 * to the last bit (test/retrieval/non-interference.test.ts).
 */
import { type RawBuilder, sql } from 'kysely';
import { assert } from '../../primitives/assert.ts';
import { lexicalText } from '../../rag/lexical-text.ts';
import type { Attributes } from '../../tenancy/attributes.ts';
import type { HybridQuery, RetrievedChunk } from '../../tenancy/capabilities.ts';
import type { Sql } from './database.ts';
import { embeddingTable, inShards, placeColumns, type StorePlace, vectorType } from './documents-contents.ts';
import { compileFilter } from './documents-filter.ts';
import { vectorText } from './vector-text.ts';

export interface StoreSearch {
  readonly chunks: readonly RetrievedChunk[];
  readonly lastActiveAtMs: number;
  readonly expiresAfterDays: number | undefined;
}

/** Candidates of each arm. At least the largest limit, so that the nearest vectors alone fill every answer. */
const armDepth = 100;
/** Reciprocal rank fusion, Cormack et al., SIGIR 2009. */
const rankConstant = 60;
/** Distinct words of a question that are looked up, and the rarest of them that are scored. */
const questionTermsMax = 64;
const scoredTermsMax = 16;
/** BM25 (Robertson and Zaragoza 2009): saturation and length normalisation. */
const k1 = 1.2;
const b = 0.75;
/** Scores as whole numbers: 2^24 units; one word scores less than 2.2 * ln(2^31), so a product fits 31 bits. */
const scoreUnit = 16_777_216;
/** An arm never weighs nothing: the vectors complete every answer, and a score is above 0. */
const weightMin = 1e-6;

/** Undefined: no such store. Asserts that the question was embedded for this store's model. */
export async function searchStore(db: Sql, storeId: string, query: HybridQuery): Promise<StoreSearch | undefined> {
  const store = await openStore(db, storeId);
  if (store === undefined) return undefined;
  assert(query.embedding.length === store.embedding_dimensions, "the question has the dimension of the store's embeddings");
  const { rows } = await hybridStatement(store, query).execute(db);
  return {
    chunks: rows.map((row) => retrievedChunk(storeId, row)),
    lastActiveAtMs: Number(store.last_active_at_ms),
    expiresAfterDays: store.expires_after_days ?? undefined,
  };
}

export interface SearchedStore extends StorePlace {
  readonly language: string;
  readonly chunk_count: string;
  readonly term_count: string;
  readonly last_active_at_ms: string;
  readonly expires_after_days: number | null;
  /** Whether an unfinished ingestion has rows here that must not be seen. Same snapshot as the search. */
  readonly has_drafts: boolean;
}

interface FoundRow {
  readonly tenant_id: string;
  readonly file_id: string;
  readonly filename: string;
  readonly attributes: Attributes;
  readonly ordinal: number;
  readonly content: string;
  readonly score: number;
}

/**
 * Settings that end with the transaction: without sequential scans a search reads its own tenant's rows through the key, so its time
 * does not depend on how many rows others have in the shard; compiling a query costs more than running it.
 */
async function openStore(db: Sql, storeId: string): Promise<SearchedStore | undefined> {
  const { rows } = await sql<SearchedStore>`
    SELECT ${placeColumns}, s.language, s.chunk_count, s.term_count, s.last_active_at_ms, s.expires_after_days,
           EXISTS (SELECT FROM app.vector_store_file f WHERE f.store_no = s.store_no AND f.draft IS NOT NULL) AS has_drafts,
           set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)
      FROM app.vector_store s WHERE s.id = ${storeId}`.execute(db);
  return rows[0];
}

/**
 * LATERAL with OFFSET 0 keeps each lookup one by key. Left to itself, and without statistics, which the embedded database gathers only when
 * told to, the planner joined the whole store instead.
 */
export function hybridStatement(store: SearchedStore, query: HybridQuery): RawBuilder<FoundRow> {
  const weights = { dense: Math.max(query.weights.dense, weightMin), lexical: Math.max(query.weights.lexical, weightMin) };
  const best = (weights.dense + weights.lexical) / (rankConstant + 1);
  return sql<FoundRow>`
    WITH matching AS MATERIALIZED (${matchingFiles(store, query)}),
         dense AS MATERIALIZED (${denseArm(store, query)}),
         hit AS MATERIALIZED (${hits(store, query)}),
         word AS MATERIALIZED (${rarestWords(store)}),
         lexical AS MATERIALIZED (${lexicalArm(store, query)}),
         fused AS MATERIALIZED (
           SELECT file_no, ordinal,
                  (coalesce(${weights.dense}::float8 / (${rankConstant}::float8 + dense.rank), 0)
                   + coalesce(${weights.lexical}::float8 / (${rankConstant}::float8 + lexical.rank), 0)) / ${best}::float8 AS score
             FROM dense FULL JOIN lexical USING (file_no, ordinal)
            ORDER BY score DESC, file_no, ordinal LIMIT ${query.limit}::int)
    SELECT c.tenant_id, f.file_id, f.filename, f.attributes, c.ordinal, c.content, fused.score
      FROM fused
     CROSS JOIN LATERAL (
           SELECT tenant_id, ordinal, content FROM app.chunk
            WHERE ${inShards(store)} AND store_no = ${store.store_no}::int AND file_no = fused.file_no AND ordinal = fused.ordinal
           OFFSET 0) c
     CROSS JOIN LATERAL (
           SELECT attached.file_id, attached.attributes, body.filename
             FROM app.vector_store_file attached JOIN app.file body ON body.id = attached.file_id
            WHERE attached.store_no = ${store.store_no}::int AND attached.file_no = fused.file_no OFFSET 0) f
     ORDER BY fused.score DESC, fused.file_no, fused.ordinal`;
}

/** Files that the filter lets through, found once and not for every chunk. */
function matchingFiles(store: SearchedStore, { filter }: HybridQuery): RawBuilder<unknown> {
  const passes = filter === undefined ? sql`false` : compileFilter(filter, sql`attributes`);
  return sql`SELECT file_no FROM app.vector_store_file WHERE store_no = ${store.store_no}::int AND status = 'completed' AND ${passes}`;
}

/**
 * Which rows may be seen. `IN (...) IS TRUE` is always a hash lookup; a bare IN may become a join, and was one of 587 ms when the
 * planner misjudged it.
 */
function isVisible(store: SearchedStore, query: HybridQuery, fileNo: RawBuilder<unknown>): RawBuilder<unknown> {
  if (query.filter !== undefined) return sql`(${fileNo} IN (SELECT file_no FROM matching)) IS TRUE`;
  return isPublished(store, fileNo);
}

function isPublished(store: SearchedStore, fileNo: RawBuilder<unknown>): RawBuilder<unknown> {
  if (!store.has_drafts) return sql`true`;
  return sql`(${fileNo} IN (SELECT file_no FROM app.vector_store_file WHERE store_no = ${store.store_no}::int AND draft IS NOT NULL)) IS NOT TRUE`;
}

function denseArm(store: SearchedStore, query: HybridQuery): RawBuilder<unknown> {
  const question = sql`${vectorText(query.embedding)}::${vectorType(store.embedding_dimensions)}`;
  return sql`
    SELECT file_no, ordinal, row_number() OVER (ORDER BY distance, file_no, ordinal) AS rank
      FROM (SELECT e.file_no, e.ordinal, (e.embedding OPERATOR(public.<=>) ${question}) + 0 AS distance
              FROM ${embeddingTable(store.embedding_dimensions)} e
             WHERE ${inShards(store, sql`e.shard_id`)} AND e.store_no = ${store.store_no}::int AND e.space_no = ${store.space_no}::int
               AND ${isVisible(store, query, sql`e.file_no`)}
             ORDER BY distance, e.file_no, e.ordinal LIMIT ${armDepth}::int) nearest`;
}

/** Every visible posting of the question's words. */
function hits(store: SearchedStore, query: HybridQuery): RawBuilder<unknown> {
  return sql`
    SELECT term.lexeme, p.file_no, p.ordinal, p.frequency, p.term_count
      FROM (SELECT lexeme FROM unnest(to_tsvector(${store.language}::text::regconfig, ${lexicalText(query.text)}::text))
             ORDER BY positions[1], lexeme LIMIT ${questionTermsMax}::int) term
     CROSS JOIN LATERAL (SELECT * FROM app.posting p
                          WHERE ${inShards(store, sql`p.shard_id`)} AND p.store_no = ${store.store_no}::int AND p.lexeme = term.lexeme
                            AND ${isPublished(store, sql`p.file_no`)} OFFSET 0) p`;
}

/** Words by how few of the store's chunks hold them, with the inverse document frequency that never turns negative. */
function rarestWords(store: SearchedStore): RawBuilder<unknown> {
  const chunks = sql`${store.chunk_count}::float8`;
  return sql`
    SELECT lexeme, ln(1 + (${chunks} - chunks + 0.5::float8) / (chunks + 0.5::float8)) AS weight
      FROM (SELECT lexeme, count(*)::float8 AS chunks FROM hit GROUP BY lexeme) counted
     ORDER BY chunks, lexeme LIMIT ${scoredTermsMax}::int`;
}

function lexicalArm(store: SearchedStore, query: HybridQuery): RawBuilder<unknown> {
  const meanTerms = Math.max(1, Number(store.term_count) / Math.max(1, Number(store.chunk_count)));
  const saturated = sql`hit.frequency * ${k1 + 1}::float8 / (hit.frequency + ${k1}::float8 * (${1 - b}::float8 + ${b}::float8 * hit.term_count / ${meanTerms}::float8))`;
  return sql`
    SELECT file_no, ordinal, row_number() OVER (ORDER BY score DESC, file_no, ordinal) AS rank
      FROM (SELECT hit.file_no, hit.ordinal, sum(round(word.weight * ${saturated} * ${scoreUnit}::float8)::int) AS score
              FROM hit JOIN word USING (lexeme)
             WHERE ${isVisible(store, query, sql`hit.file_no`)}
             GROUP BY hit.file_no, hit.ordinal
             ORDER BY score DESC, hit.file_no, hit.ordinal LIMIT ${armDepth}::int) best`;
}

function retrievedChunk(storeId: string, row: FoundRow): RetrievedChunk {
  return {
    ownerId: row.tenant_id,
    vectorStoreId: storeId,
    chunkId: `${row.file_id}:${row.ordinal}`,
    fileId: row.file_id,
    filename: row.filename,
    attributes: row.attributes,
    ordinal: row.ordinal,
    text: row.content,
    score: row.score,
  };
}
