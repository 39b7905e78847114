/**
 * The arms of a search in SQL: nearest vectors and BM25 over posting rows, in one statement.
 *
 * Exact by the shape of the query: `ORDER BY (embedding <=> q) + 0` is no expression that an approximate index is ordered by, so no
 * planner, setting or version can choose one. Word statistics are counted over the store's own visible postings. Scores are summed as
 * whole numbers, so they do not depend on the order in which rows were read.
 */
import { type RawBuilder, sql } from 'kysely';
import {
  type Arms,
  armDepth,
  b,
  candidateDepth,
  fusionWeights,
  k1,
  meanTermsOf,
  questionTermsMax,
  rankByDistance,
  scoredTermsMax,
  scoreUnit,
  type VectorCandidate,
  weightUnit,
} from '../../rag/hybrid-ranking.ts';
import { lexicalText } from '../../rag/lexical-text.ts';
import type { HybridQuery } from '../../tenancy/capabilities.ts';
import type { Sql } from './database.ts';
import { embeddingTable, inShards, type StorePlace, vectorType } from './documents-contents.ts';
import { compileFilter } from './documents-filter.ts';
import { vectorFromBinary, vectorText } from './vector-text.ts';

export interface SearchedStore extends StorePlace {
  readonly language: string;
  readonly chunk_count: string;
  readonly term_count: string;
  /** Whether an unfinished ingestion has rows here that must not be seen. Same snapshot as the search. */
  readonly has_drafts: boolean;
}

export interface CandidateRow {
  readonly file_no: number;
  readonly ordinal: number;
  /** Null for the words. */
  readonly vector: Buffer | null;
}

/** Both arms, exactly: in the transaction that read the store, so of one snapshot. */
export async function exactArms(db: Sql, store: SearchedStore, query: HybridQuery): Promise<Arms> {
  const { rows } = await candidateStatement(store, query).execute(db);
  return armsOf(rows, query);
}

/** Rows of `candidateStatement` as ranked arms. */
export function armsOf(rows: readonly CandidateRow[], query: HybridQuery): Arms {
  const nearest: VectorCandidate[] = [];
  const lexical = [];
  for (const { file_no: fileNo, ordinal, vector } of rows) {
    if (vector === null) lexical.push({ fileNo, ordinal });
    else nearest.push({ fileNo, ordinal, vector: vectorFromBinary(vector) });
  }
  return { dense: rankByDistance(nearest, query.embedding), lexical };
}

/**
 * Candidates of both arms; the words' are ranked. `nearest`: another way to the nearest vectors than the exact one (documents-search-approximate.ts). LATERAL with OFFSET 0 keeps each lookup one by key. Left to itself, and without statistics, which the
 * embedded database gathers only when told to, the planner joined the whole store instead.
 */
export function candidateStatement(store: SearchedStore, query: HybridQuery, nearest = denseArm(store, query)): RawBuilder<CandidateRow> {
  const matching = sql`matching AS MATERIALIZED (${matchingFiles(store, query)})`;
  const dense = sql`dense AS MATERIALIZED (${nearest})`;
  const ranked = sql`SELECT file_no, ordinal, public.vector_send(embedding::public.vector) AS vector FROM dense`;
  if (fusionWeights(query.weights).lexical === 0) return sql<CandidateRow>`WITH ${matching}, ${dense} ${ranked}`;
  return sql<CandidateRow>`
    WITH ${matching}, ${dense},
         hit AS MATERIALIZED (${hits(store, query)}),
         word AS MATERIALIZED (${rarestWords(store)}),
         lexical AS MATERIALIZED (${lexicalArm(store, query)})
    ${ranked} UNION ALL (SELECT file_no, ordinal, NULL::bytea FROM lexical ORDER BY score DESC, file_no, ordinal)`;
}

/** Files that the filter lets through, found once and not for every chunk. */
export function matchingFiles(store: SearchedStore, { filter }: HybridQuery): RawBuilder<unknown> {
  const passes = filter === undefined ? sql`false` : compileFilter(filter, sql`attributes`);
  return sql`SELECT file_no FROM app.vector_store_file WHERE store_no = ${store.store_no}::int AND status = 'completed' AND ${passes}`;
}

/**
 * Which rows may be seen, where `matching` is in scope. `IN (...) IS TRUE` is always a hash lookup; a bare IN may become a join, and was one of 587 ms when the
 * planner misjudged it.
 */
export function isVisible(store: SearchedStore, query: HybridQuery, fileNo: RawBuilder<unknown>): RawBuilder<unknown> {
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
    SELECT file_no, ordinal, embedding
      FROM (SELECT e.file_no, e.ordinal, e.embedding, (e.embedding OPERATOR(public.<=>) ${question}) + 0 AS distance
              FROM ${embeddingTable(store.embedding_dimensions)} e
             WHERE ${inShards(store, sql`e.shard_id`)} AND e.store_no = ${store.store_no}::int AND e.space_no = ${store.space_no}::int
               AND ${isVisible(store, query, sql`e.file_no`)}
             ORDER BY distance, e.file_no, e.ordinal LIMIT ${candidateDepth}::int) nearest`;
}

/** Every visible posting of the question's words. */
function hits(store: SearchedStore, query: HybridQuery): RawBuilder<unknown> {
  return sql`
    SELECT term.lexeme, p.file_no, p.ordinal, p.frequency, p.term_count
      FROM (SELECT lexeme FROM unnest(to_tsvector(${store.language}::text::regconfig, ${lexicalText(query.text)}::text))
             ORDER BY positions[1], lexeme COLLATE "C" LIMIT ${questionTermsMax}::int) term
     CROSS JOIN LATERAL (SELECT * FROM app.posting p
                          WHERE ${inShards(store, sql`p.shard_id`)} AND p.store_no = ${store.store_no}::int AND p.lexeme = term.lexeme
                            AND ${isPublished(store, sql`p.file_no`)} OFFSET 0) p`;
}

/** Words by how few of the store's chunks hold them, with their weights (`wordWeight`). */
function rarestWords(store: SearchedStore): RawBuilder<unknown> {
  const chunks = sql`${store.chunk_count}::float8`;
  const unit = sql`${weightUnit}::float8`;
  return sql`
    SELECT lexeme, round(ln(1 + (${chunks} - chunks + 0.5::float8) / (chunks + 0.5::float8)) * ${unit}) / ${unit} AS weight
      FROM (SELECT lexeme, count(*)::float8 AS chunks FROM hit GROUP BY lexeme) counted
     ORDER BY chunks, lexeme COLLATE "C" LIMIT ${scoredTermsMax}::int`;
}

/** `wordScore`, summed. */
function lexicalArm(store: SearchedStore, query: HybridQuery): RawBuilder<unknown> {
  const meanTerms = meanTermsOf({ chunkCount: Number(store.chunk_count), termCount: Number(store.term_count) });
  const saturated = sql`hit.frequency * ${k1 + 1}::float8 / (hit.frequency + ${k1}::float8 * (${1 - b}::float8 + ${b}::float8 * hit.term_count / ${meanTerms}::float8))`;
  return sql`
    SELECT hit.file_no, hit.ordinal, sum(round(word.weight * (${saturated}) * ${scoreUnit}::float8)::int) AS score
      FROM hit JOIN word USING (lexeme)
     WHERE ${isVisible(store, query, sql`hit.file_no`)}
     GROUP BY hit.file_no, hit.ordinal
     ORDER BY score DESC, hit.file_no, hit.ordinal LIMIT ${armDepth}::int`;
}
