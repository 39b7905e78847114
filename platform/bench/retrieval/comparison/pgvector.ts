/** pgvector as its documentation says, without Bulkhead: one table for all tenants, a column that says whose row it is. */
import { readdirSync, readFileSync } from 'node:fs';
import pg from 'pg';
import type { SearchSystem } from './system.ts';
import type { BenchTenant, Question, Workload } from './workload.ts';

export type PgvectorMode = 'exact' | 'hnsw' | 'hnsw-iterative';

const rowsAtOnce = 500;
const maintenanceMemory = '1GB';

export async function openPgvector(url: string, mode: PgvectorMode, clients: number): Promise<SearchSystem> {
  const pool = new pg.Pool({ connectionString: url, max: clients });
  // A setting of the session, as an application would make it.
  if (mode === 'hnsw-iterative') pool.on('connect', (client) => void client.query("SET hnsw.iterative_scan = 'strict_order'"));
  return {
    load: (workload) => load(pool, workload, mode),
    async search({ tenant, vector }: Question, limit) {
      const { rows } = await pool.query<{ readonly id: number }>({
        text: 'SELECT id FROM items WHERE tenant = $1 ORDER BY embedding <=> $2 LIMIT $3',
        values: [tenant.rank, `[${vector.join(',')}]`, limit],
      });
      return rows.map(({ id }) => id);
    },
    serverMiB: () => serverMiB(pool),
    async diskMiB() {
      const { rows } = await pool.query<{ readonly bytes: string }>("SELECT pg_total_relation_size('items') AS bytes");
      return Number(rows[0]?.bytes) / 2 ** 20;
    },
    [Symbol.asyncDispose]: () => pool.end(),
  };
}

/** The modes of one run share a server, so the rows may be there, and the index: what is timed is what is missing. */
async function load(pool: pg.Pool, workload: Workload, mode: PgvectorMode): Promise<void> {
  const { dimensions } = workload.options;
  const { rows } = await pool.query<{ readonly items: string | null }>("SELECT to_regclass('items')::text AS items");
  if (rows[0]?.items === null) {
    await pool.query('CREATE EXTENSION IF NOT EXISTS vector');
    await pool.query(
      `CREATE TABLE items (tenant int NOT NULL, id int NOT NULL, embedding vector(${dimensions}) NOT NULL, PRIMARY KEY (tenant, id))`,
    );
    for (const tenant of workload.tenants) await insert(pool, workload, tenant);
  }
  const client = await pool.connect();
  try {
    if (mode !== 'exact') {
      await client.query(`SET maintenance_work_mem = '${maintenanceMemory}'`);
      await client.query('CREATE INDEX IF NOT EXISTS items_nearest ON items USING hnsw (embedding vector_cosine_ops)');
    }
    await client.query('VACUUM ANALYZE items');
  } finally {
    client.release();
  }
}

async function insert(pool: pg.Pool, workload: Workload, tenant: BenchTenant): Promise<void> {
  const { dimensions } = workload.options;
  for (let from = 0; from < tenant.size; from += rowsAtOnce) {
    const to = Math.min(tenant.size, from + rowsAtOnce);
    const vectors = workload.vectorsOf(tenant, from, to);
    const ids = Array.from({ length: to - from }, (_, index) => from + index);
    const texts = ids.map((_, index) => `[${vectors.subarray(index * dimensions, (index + 1) * dimensions).join(',')}]`);
    await pool.query('INSERT INTO items SELECT $1, id, embedding::vector FROM unnest($2::int[], $3::text[]) AS row (id, embedding)', [
      tenant.rank,
      ids,
      texts,
    ]);
  }
}

/** Memory of the server and its backends, pages that several share counted once (proportional set size). Undefined sizes count as none. */
export async function serverMiB(pool: pg.Pool): Promise<number> {
  const { rows } = await pool.query<{ readonly pid: number }>('SELECT pg_backend_pid() AS pid');
  const backend = rows[0]?.pid;
  if (process.platform !== 'linux' || backend === undefined) return Number.NaN;
  const server = parentOf(backend);
  const processes = readdirSync('/proc').filter(
    (name) => /^\d+$/.test(name) && (Number(name) === server || parentOf(Number(name)) === server),
  );
  return processes.reduce((sum, pid) => sum + sharedMiB(pid), 0);
}

function parentOf(pid: number): number {
  const [, rest = ''] = read(`/proc/${pid}/stat`).split(') ');
  return Number(rest.split(' ')[1]);
}

function sharedMiB(pid: string): number {
  return Number(/^Pss:\s+(\d+)/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0) / 1_024;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
