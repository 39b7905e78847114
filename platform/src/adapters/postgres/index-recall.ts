/**
 * How much of the truth an approximate index finds: asked with the tenant's own vectors and with mixtures of two of them, as the tenant, and compared with
 * the exact answers of the same snapshot. Rows at the same distance are as good as each other.
 */
import { sql } from 'kysely';
import type { Random } from '../../primitives/random.ts';
import { candidateDepth } from '../../rag/hybrid-ranking.ts';
import type { Sql, TenantDatabase } from './database.ts';
import { embeddingTable } from './documents-contents.ts';
import { type Nearest, nearestApproximate, nearestExact, prepareApproximate, type VectorPlace } from './nearest-vectors.ts';
import { vectorText } from './vector-text.ts';

/** The depth that recall is stated for: recall@10. */
export const recallDepth = 10;
/** As deep as the dense arm of a search goes, so that what is measured is what is served. */
const askedDepth = candidateDepth;
/** Nothing is filtered here: the first walk is long enough. */
const scanTuplesMax = 20_000;
/** Distances are float32 underneath. */
const sameDistance = 1e-6;
/** How wide the graph is searched, in the order in which it is tried. */
export const efSearchLadder = [128, 256, 512, 1_000] as const;

export interface RecallMeasurement {
  readonly efSearch: number;
  readonly recall: number;
}

export interface RecallSample {
  readonly queries: number;
  readonly recallMin: number;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** The first width of the ladder that reaches the floor, or the last one and what it reached. Undefined: the store is empty. */
export async function measureRecall(
  database: TenantDatabase,
  place: VectorPlace,
  sample: RecallSample,
): Promise<RecallMeasurement | undefined> {
  const questions = await database.read((db) => questionsOf(db, place, sample));
  if (questions.length === 0) return undefined;
  let measured: RecallMeasurement | undefined;
  for (const efSearch of efSearchLadder) {
    let sum = 0;
    for (const question of questions) {
      sample.signal.throwIfAborted();
      // One short transaction a question: a long one would keep dead rows everywhere.
      sum += await database.read((db) => recallOf(db, { place, question, limit: askedDepth, isVisible: sql`true` }, efSearch));
    }
    measured = { efSearch, recall: sum / questions.length };
    if (measured.recall >= sample.recallMin) break;
  }
  return measured;
}

async function recallOf(db: Sql, asked: Parameters<typeof nearestExact>[1], efSearch: number): Promise<number> {
  await sql`SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)`.execute(db);
  const exact = await nearestExact(db, { ...asked, limit: recallDepth });
  await prepareApproximate(db, { efSearch, scanTuplesMax });
  return recallAgainst(exact, await nearestApproximate(db, asked));
}

/** The share of the first `recallDepth` exact rows that the other answer has, or has others just as near for. 1 when there is nothing to find. */
export function recallAgainst(exact: readonly Nearest[], found: readonly Nearest[]): number {
  const wanted = Math.min(recallDepth, exact.length);
  const last = exact[wanted - 1];
  if (last === undefined) return 1;
  const near = found.slice(0, recallDepth).filter(({ distance }) => distance <= last.distance + sameDistance);
  return Math.min(1, near.length / wanted);
}

/** Half of them rows of the store, half mixtures of two. */
async function questionsOf(db: Sql, place: VectorPlace, { queries, random, signal }: RecallSample): Promise<readonly string[]> {
  const vectors: Float32Array[] = [];
  for (let count = 0; count < queries; count++) {
    signal.throwIfAborted();
    const vector = await anyVector(db, place, random);
    if (vector !== undefined) vectors.push(vector);
  }
  return vectors.map((vector, index) => {
    const other = vectors[(index + 1) % vectors.length];
    return vectorText(index % 2 === 0 || other === undefined ? vector : mixture(vector, other));
  });
}

function mixture(vector: Float32Array, other: Float32Array): Float32Array {
  return vector.map((value, index) => 0.75 * value + 0.25 * (other[index] ?? 0));
}

/** The first row at or after a random file; files in the order of their numbers. */
async function anyVector(db: Sql, place: VectorPlace, random: Random): Promise<Float32Array | undefined> {
  const { rows } = await sql<{ readonly embedding: string }>`
    WITH file AS MATERIALIZED (
           SELECT file_no, chunk_count FROM app.vector_store_file
            WHERE store_no = ${place.storeNo} AND chunk_count > 0
              AND file_no >= (SELECT floor(${random.next()}::float8 * next_file_no)::int FROM app.vector_store WHERE store_no = ${place.storeNo})
            ORDER BY file_no LIMIT 1)
    SELECT e.embedding::text AS embedding
      FROM file CROSS JOIN LATERAL (
           SELECT embedding FROM ${embeddingTable(place.dimensions)} e
            WHERE e.shard_id = ${place.shard}::int AND e.store_no = ${place.storeNo}::int AND e.space_no = ${place.spaceNo}::int AND e.file_no = file.file_no
              AND e.ordinal >= floor(${random.next()}::float8 * file.chunk_count)::int
            ORDER BY e.ordinal LIMIT 1) e`.execute(db);
  const [row] = rows;
  return row && Float32Array.from(JSON.parse(row.embedding) as number[]);
}
