/**
 * The approximate index of one store's active space: an HNSW graph over those rows alone, on the one partition that holds nobody else's. Partial, so that
 * a space which is being filled beside it, or another large store of the tenant, never enters the graph. Built without blocking anybody, one at a time.
 */
import type pg from 'pg';
import { assert } from '../../primitives/assert.ts';
import type { Database } from './database.ts';
import type { VectorPlace } from './nearest-vectors.ts';
import { dedicatedShardMin } from './store-placement.ts';

export interface IndexBuild {
  readonly memoryMb: number;
  /** Replaces an index that is there already. */
  readonly isFresh: boolean;
  readonly signal: AbortSignal;
}

/** Edges of a node and candidates while building: twice pgvector's default of candidates, because a better graph is searched half as wide for the same recall (docs/rfd/0011-whales.md). */
const graph = 'm = 16, ef_construction = 128';

/** Arbitrary, constant: held by the connection that builds, which goes on to the end when its process dies. */
const buildLock = 7_070_011;

/** Makes the index when it is not there, whole, already. What a dead process left half built is dropped first. */
export async function buildIndex(owner: Database, place: VectorPlace, { memoryMb, isFresh, signal }: IndexBuild): Promise<void> {
  assert(place.shard >= dedicatedShardMin, 'an approximate index is made in a dedicated shard');
  const name = indexName(place);
  const leaf = leafName(place);
  await asOwner(owner, async (client) => {
    await cancellable(owner, client, signal, () => client.query('SELECT pg_advisory_lock($1)', [buildLock]));
    const { rows } = await client.query('SELECT 1 FROM pg_index WHERE indexrelid = to_regclass($1) AND indisvalid', [`app.${name}`]);
    if (rows.length > 0 && !isFresh) return;
    await client.query(`DROP INDEX CONCURRENTLY IF EXISTS app.${name}`);
    // One process, so that neighbours keep the others; the graph is built in memory when it fits, many times faster.
    await client.query(`SET maintenance_work_mem = '${Math.floor(memoryMb)}MB'; SET max_parallel_maintenance_workers = 0`);
    await cancellable(owner, client, signal, () =>
      client.query(`
        CREATE INDEX CONCURRENTLY ${name} ON app.${leaf} USING hnsw (embedding public.${place.dimensions > 2_000 ? 'halfvec' : 'vector'}_cosine_ops)
          WITH (${graph}) WHERE store_no = ${place.storeNo} AND space_no = ${place.spaceNo}`),
    );
    await client.query(`ANALYZE app.${leaf}`);
  });
}

/** Drops the indexes of a dedicated shard that belong to none of these places. */
export async function dropOtherIndexes(owner: Database, shard: number, wanted: readonly VectorPlace[]): Promise<void> {
  const names = wanted.map(indexName);
  await asOwner(owner, async (client) => {
    const { rows } = await client.query<{ readonly name: string }>(
      `SELECT x.relname AS name FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam JOIN pg_class t ON t.oid = i.indrelid
        WHERE a.amname = 'hnsw' AND t.relnamespace = 'app'::regnamespace AND t.relname ~ ('_s' || $1::int || '$') AND x.relname <> ALL ($2::text[])`,
      [shard, names],
    );
    for (const { name } of rows) await client.query(`DROP INDEX CONCURRENTLY IF EXISTS app.${client.escapeIdentifier(name)}`);
  });
}

/** Numbers of the schema's own. */
function indexName(place: VectorPlace): string {
  return `${leafName(place)}_n${place.storeNo}_v${place.spaceNo}`;
}

function leafName({ dimensions, shard }: VectorPlace): string {
  return `embedding_${dimensions}_s${shard}`;
}

/** For statements that run in no transaction. The connection is given back as it was. */
async function asOwner(owner: Database, work: (client: pg.PoolClient) => Promise<void>): Promise<void> {
  await owner.withClient(async (client) => {
    await client.query('SET ROLE bulkhead_owner');
    try {
      await work(client);
    } finally {
      await client.query('RESET ROLE; RESET maintenance_work_mem; RESET max_parallel_maintenance_workers; SELECT pg_advisory_unlock_all()');
    }
  });
}

/** Ends the statement at the server when the signal aborts: dropping the connection would leave it running there. */
async function cancellable(owner: Database, client: pg.PoolClient, signal: AbortSignal, work: () => Promise<unknown>): Promise<void> {
  signal.throwIfAborted();
  const { rows } = await client.query<{ readonly pid: number }>('SELECT pg_backend_pid() AS pid');
  const cancel = () => {
    owner.withClient((other) => other.query('SELECT pg_cancel_backend($1)', [rows[0]?.pid])).catch(() => {});
  };
  signal.addEventListener('abort', cancel, { once: true });
  try {
    await work();
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}
