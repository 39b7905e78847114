/** The same load spread over few and over many registered tenants: what a request costs must not grow with their number. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { median, milliseconds, table, whole } from '../support/table.ts';
import { type Bench, type ClosedRun, closedChat, type Finding } from './bench.ts';
import type { Bulkhead } from './bulkhead.ts';

const few = 10;
const connections = 16;

interface Crowd {
  readonly tenants: number;
  readonly keysFile: string;
  readonly firstPass: ClosedRun;
  readonly rounds: ClosedRun[];
}

export async function measureTenants(bench: Bench, bulkhead: Bulkhead, many: number): Promise<Finding> {
  const directory = mkdtempSync(join(tmpdir(), 'bulkhead-bench-keys-'));
  try {
    const crowds: Crowd[] = [];
    for (const tenants of [few, many]) crowds.push(await gather(bench, bulkhead, { tenants, directory }));
    for (let round = 0; round < bench.rounds; round++) {
      for (const crowd of crowds) crowd.rounds.push(await measure(bench, bulkhead, crowd));
    }
    return {
      title: 'Number of tenants',
      markdown: describe(crowds),
      raw: crowds.map(({ tenants, firstPass, rounds }) => ({ tenants, firstPass, rounds })),
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Registers the tenants and lets each ask once, so that what is measured later is the steady state. */
async function gather(bench: Bench, bulkhead: Bulkhead, crowd: { tenants: number; directory: string }): Promise<Crowd> {
  const startedAt = performance.now();
  const keys = await bulkhead.addTenants(crowd.tenants);
  bench.say(`registered ${crowd.tenants} tenants in ${((performance.now() - startedAt) / 1_000).toFixed(1)} s`);
  const keysFile = join(crowd.directory, `${crowd.tenants}.json`);
  writeFileSync(keysFile, JSON.stringify(keys), { mode: 0o600 });
  const once = { connections, warmupMs: 0, measureMs: 120_000, requestsMax: crowd.tenants, keysFile };
  const firstPass = await closedChat(bench, bulkhead.target, once);
  bench.say(`first request of each: ${whole(firstPass.requestsPerSecond)} requests/s`);
  return { tenants: crowd.tenants, keysFile, firstPass, rounds: [] };
}

async function measure(bench: Bench, bulkhead: Bulkhead, crowd: Crowd): Promise<ClosedRun> {
  const shape = bench.quick ? { warmupMs: 500, measureMs: 2_000 } : { warmupMs: 2_000, measureMs: 6_000 };
  const result = await closedChat(bench, bulkhead.target, { connections, keysFile: crowd.keysFile, ...shape });
  bench.say(`${crowd.tenants} tenants: ${whole(result.requestsPerSecond)} requests/s`);
  return result;
}

function describe(crowds: readonly Crowd[]): string {
  const middle = (crowd: Crowd, field: 'requestsPerSecond' | 'p50Ms' | 'p99Ms') => median(crowd.rounds.map((round) => round[field]));
  const base = crowds[0];
  const change = (crowd: Crowd, field: 'requestsPerSecond' | 'p50Ms') =>
    base === undefined || crowd === base ? '-' : `${((middle(crowd, field) / middle(base, field) - 1) * 100).toFixed(1)} %`;
  const cells = crowds.map((crowd) => [
    whole(crowd.tenants),
    whole(middle(crowd, 'requestsPerSecond')),
    change(crowd, 'requestsPerSecond'),
    milliseconds(middle(crowd, 'p50Ms')),
    change(crowd, 'p50Ms'),
    milliseconds(middle(crowd, 'p99Ms')),
    whole(crowd.firstPass.requestsPerSecond),
  ]);
  const header = ['tenants', 'requests/s', 'change', 'p50 ms', 'change of p50', 'p99 ms', 'first request of each, requests/s'];
  return (
    `${connections} connections; each request carries the key of the next tenant in turn. The gate is 10 % in requests a second and p50. ` +
    `Registered tenants add up over the rows.\n\n${table(header, cells)}`
  );
}
