/**
 * The whole product over HTTP on the embedded database: authentication, admission, metering, the question embedded by the stand-in. Its vectors are not
 * those of the workload, so recall is not measured here, only whether answers are complete.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RunningBulkhead, startBulkhead } from '../../../test/support/running-bulkhead.ts';
import { residentMiB } from '../../support/machine.ts';
import { openBulkhead } from './bulkhead.ts';
import type { SearchSystem } from './system.ts';
import type { BenchTenant, Question, Workload } from './workload.ts';

export const httpDimensions = 384;
const adminToken = 'an-admin-token-for-benchmarks';
/** The master key that the loader seals with (test/support/key-ring.ts). */
const libraryKey = Buffer.alloc(32, 7).toString('base64');

export function openBulkheadHttp(): SearchSystem {
  const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-bench-'));
  const keys = new Map<number, Promise<string>>();
  let running: RunningBulkhead | undefined;
  let stores: ReadonlyMap<number, string> = new Map();
  const post = async (path: string, token: string, body: unknown) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const answer = await fetch(`${running?.baseUrl}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${path} was answered ${answer.status}: ${text}`);
    return JSON.parse(text) as Record<string, unknown>;
  };
  const keyOf = (tenant: BenchTenant) => {
    const known =
      keys.get(tenant.rank) ?? post(`/admin/v1/tenants/${tenant.name}/keys`, adminToken, { name: 'bench' }).then(({ key }) => String(key));
    keys.set(tenant.rank, known);
    return known;
  };
  return {
    hasRecall: false,
    async load(workload) {
      stores = await fill(dataDir, workload);
      running = await startBulkhead({ dataDir, config: configOf(workload) });
    },
    async search({ tenant, text: query }: Question, limit) {
      const path = `/v1/vector_stores/${stores.get(tenant.rank)}/search`;
      const { data } = await post(path, await keyOf(tenant), { query, max_num_results: limit });
      return (data as readonly unknown[]).map((_, index) => index);
    },
    // Its key is made before anything is timed.
    async forget(tenant) {
      await keyOf(tenant);
    },
    serverMiB: async () => residentMiB(running?.process.pid ?? 0),
    async [Symbol.asyncDispose]() {
      await running?.[Symbol.asyncDispose]();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

async function fill(dataDir: string, workload: Workload): Promise<ReadonlyMap<number, string>> {
  await using bulkhead = await openBulkhead({ engine: 'embedded', dimensions: httpDimensions, model: 'local-hash-384', dataDir });
  await bulkhead.load(workload);
  return bulkhead.storeIds();
}

function configOf({ tenants }: Workload): string {
  return JSON.stringify({
    auth: { adminToken },
    atRest: { key: libraryKey },
    tiers: { bench: { weight: 1 } },
    tenants: tenants.map(({ name }) => ({ id: name, tier: 'bench' })),
    providers: [{ id: 'sim', kind: 'simulated' }],
    models: [{ id: 'sim-fast', deployments: [{ provider: 'sim', model: 'sim-fast' }] }],
    logging: { level: 'warn' },
  });
}
