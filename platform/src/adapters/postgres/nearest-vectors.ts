/**
 * The vectors of one store that are nearest to a question, by the two shapes of the query there are:
 *
 *  - exact: `ORDER BY (embedding <=> q) + 0` is no expression that an approximate index is ordered by, so no planner, setting or version can choose one;
 *  - approximate: `ORDER BY embedding <=> q` over the store's own index in its tenant's own shard. It goes on through the graph until enough rows have
 *    passed the conditions (strict order); when it still comes back short, the caller asks for the exact shape.
 */
import { type RawBuilder, sql } from 'kysely';
import type { Sql } from './database.ts';
import { embeddingTable, vectorType } from './documents-contents.ts';

/** The vectors that are looked through. */
export interface VectorPlace {
  readonly storeNo: number;
  readonly shard: number;
  readonly spaceNo: number;
  readonly dimensions: number;
}

export interface NearestQuestion {
  readonly place: VectorPlace;
  /** As `vectorText` writes it. */
  readonly question: string;
  readonly limit: number;
  /** Over rows `e`. */
  readonly isVisible: RawBuilder<unknown>;
}

export interface Nearest {
  readonly file_no: number;
  readonly ordinal: number;
  readonly distance: number;
}

/** Memory for rows that were seen and not returned, in units of work_mem. */
const scanMemoryMultiplier = 8;

export async function nearestExact(db: Sql, { place, question, limit, isVisible }: NearestQuestion): Promise<readonly Nearest[]> {
  const { rows } = await sql<Nearest>`
    SELECT e.file_no, e.ordinal, (e.embedding OPERATOR(public.<=>) ${question}::${vectorType(place.dimensions)}) + 0 AS distance
      FROM ${embeddingTable(place.dimensions)} e WHERE ${isAt(place)} AND ${isVisible}
     ORDER BY distance, e.file_no, e.ordinal LIMIT ${limit}::int`.execute(db);
  return rows;
}

/** Nearest first, ties by file and ordinal. May be short, and may miss some. After `prepareApproximate`. */
export async function nearestApproximate(db: Sql, asked: NearestQuestion): Promise<readonly Nearest[]> {
  const distance = sql`e.embedding OPERATOR(public.<=>) ${asked.question}::${vectorType(asked.place.dimensions)}`;
  const { rows } = await sql<Nearest>`${approximateShape(asked, sql`e.file_no, e.ordinal, ${distance} AS distance`)}`.execute(db);
  return rows.toSorted((left, right) => left.distance - right.distance || left.file_no - right.file_no || left.ordinal - right.ordinal);
}

export interface GraphWalk {
  readonly efSearch: number | null;
  /** Rows that are looked at before it gives up. */
  readonly scanTuplesMax: number;
}

/** For the rest of the transaction: how wide and how far the graph is searched. The exact shape is not touched by it. */
export async function prepareApproximate(db: Sql, { efSearch, scanTuplesMax }: GraphWalk): Promise<void> {
  await sql`
    SELECT set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', ${String(efSearch)}, true),
           set_config('hnsw.max_scan_tuples', ${String(scanTuplesMax)}, true), set_config('hnsw.scan_mem_multiplier', ${String(scanMemoryMultiplier)}, true)`.execute(
    db,
  );
}

/** What the index is made for is written out and not bound: the planner must be able to prove that the index covers the condition. */
export function approximateShape(
  { place, question, limit, isVisible }: NearestQuestion,
  columns: RawBuilder<unknown>,
): RawBuilder<unknown> {
  return sql`
    SELECT ${columns} FROM ${embeddingTable(place.dimensions)} e WHERE ${isAt(place)} AND ${isVisible}
     ORDER BY e.embedding OPERATOR(public.<=>) ${question}::${vectorType(place.dimensions)} LIMIT ${limit}::int`;
}

function isAt({ shard, storeNo, spaceNo }: VectorPlace): RawBuilder<unknown> {
  return sql`e.shard_id = ${sql.lit(shard)} AND e.store_no = ${sql.lit(storeNo)} AND e.space_no = ${sql.lit(spaceNo)}`;
}
