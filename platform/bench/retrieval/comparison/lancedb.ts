/** LanceDB with a table for each tenant, in this process. Installed when asked for; no dependency of the project. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { SearchSystem } from './system.ts';
import type { BenchTenant, Question, Workload } from './workload.ts';

export const lanceVersion = '0.37.1';
const home = fileURLToPath(new URL('../../../../.cache/lancedb', import.meta.url));
const installWithinMs = 300_000;
const rowsAtOnce = 4_096;

/** What is used of it. */
interface Lance {
  connect(directory: string): Promise<LanceConnection>;
}
interface LanceConnection {
  createTable(name: string, rows: readonly LanceRow[]): Promise<LanceTable>;
  close(): void;
}
interface LanceTable {
  add(rows: readonly LanceRow[]): Promise<unknown>;
  vectorSearch(vector: Float32Array): LanceQuery;
}
interface LanceQuery {
  distanceType(type: 'cosine'): LanceQuery;
  select(columns: readonly string[]): LanceQuery;
  limit(count: number): LanceQuery;
  toArray(): Promise<readonly { readonly id: number }[]>;
}
interface LanceRow {
  readonly id: number;
  readonly vector: readonly number[];
}

/** Throws when npm cannot install it. */
export async function installLance(signal: AbortSignal): Promise<void> {
  if (existsSync(join(home, 'node_modules/@lancedb/lancedb/package.json'))) return;
  mkdirSync(home, { recursive: true });
  const quiet = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error', '--save-exact'];
  const args = ['install', '--prefix', home, ...quiet, `@lancedb/lancedb@${lanceVersion}`];
  await promisify(execFile)('npm', args, { cwd: home, signal, timeout: installWithinMs });
}

export async function openLance(): Promise<SearchSystem> {
  const lance = createRequire(join(home, 'package.json'))('@lancedb/lancedb') as Lance;
  const directory = mkdtempSync(join(tmpdir(), 'bulkhead-lance-'));
  const connection = await lance.connect(directory);
  const tables = new Map<number, LanceTable>();
  return {
    async load(workload) {
      for (const tenant of workload.tenants) tables.set(tenant.rank, await tableOf(connection, workload, tenant));
    },
    async search({ tenant, vector }: Question, limit) {
      const table = tables.get(tenant.rank);
      if (table === undefined) throw new Error('the tenant was not loaded');
      const rows = await table.vectorSearch(vector).distanceType('cosine').select(['id', '_distance']).limit(limit).toArray();
      return rows.map(({ id }) => Number(id));
    },
    async [Symbol.asyncDispose]() {
      connection.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function tableOf(connection: LanceConnection, workload: Workload, tenant: BenchTenant): Promise<LanceTable> {
  let table: LanceTable | undefined;
  for (let from = 0; from < tenant.size; from += rowsAtOnce) {
    const rows = rowsOf(workload, tenant, { from, to: Math.min(tenant.size, from + rowsAtOnce) });
    if (table === undefined) table = await connection.createTable(tenant.name, rows);
    else await table.add(rows);
  }
  if (table === undefined) throw new Error('a tenant without vectors');
  return table;
}

function rowsOf(
  workload: Workload,
  tenant: BenchTenant,
  { from, to }: { readonly from: number; readonly to: number },
): readonly LanceRow[] {
  const { dimensions } = workload.options;
  const vectors = workload.vectorsOf(tenant, from, to);
  return Array.from({ length: to - from }, (_, index) => ({
    id: from + index,
    vector: Array.from(vectors.subarray(index * dimensions, (index + 1) * dimensions)),
  }));
}
