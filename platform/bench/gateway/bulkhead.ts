/** Bulkhead as it is shipped: its own process, embedded database, every stage on; one provider, the mock upstream. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RunningPart, startPart } from '../support/part.ts';
import type { Bench, Target } from './bench.ts';

export interface Bulkhead extends AsyncDisposable {
  readonly target: Target;
  readonly part: RunningPart;
  /** Registers tenants and returns one API key each. */
  addTenants(count: number): Promise<readonly string[]>;
}

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const requestsAtOnce = 8;
const connectionsMax = 8_192;
/** Limits so high that they never bind: what they cost is measured, not what they refuse. */
const hugeBudget = { usd: 1_000_000, period: 'month', onExhausted: 'refuse' };
const hugeLimits = { requestsPerMinute: 900_000_000, tokensPerMinute: 900_000_000_000, concurrency: 1_000_000 };

export interface BulkheadOptions {
  /** Where Node writes a profile of the run when it ends; undefined profiles nothing. */
  readonly cpuProfileDir?: string | undefined;
  /** Where limits and permits are kept for all replicas; undefined: in the process. */
  readonly valkeyUrl?: string | undefined;
}

export async function startBulkhead(bench: Bench, { cpuProfileDir, valkeyUrl }: BulkheadOptions = {}): Promise<Bulkhead> {
  const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-bench-'));
  const adminToken = `bench-${randomBytes(24).toString('hex')}`;
  const configFile = join(dataDir, 'bulkhead.yaml');
  // JSON is YAML.
  writeFileSync(
    configFile,
    JSON.stringify({
      ...configuration(bench.upstream.url, dataDir, adminToken),
      ...(valkeyUrl !== undefined && { valkey: { url: valkeyUrl } }),
    }),
    { mode: 0o600 },
  );
  const removeDirectory = () => rmSync(dataDir, { recursive: true, force: true });
  try {
    const part = await start({ bench, configFile, dataDir, cpuProfileDir });
    return await prepare(part, adminToken, { name: valkeyUrl === undefined ? 'Bulkhead' : 'Bulkhead, Valkey', removeDirectory });
  } catch (error) {
    removeDirectory();
    throw error;
  }
}

async function start(from: { bench: Bench; configFile: string; dataDir: string; cpuProfileDir: string | undefined }): Promise<RunningPart> {
  const profile = from.cpuProfileDir === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${from.cpuProfileDir}`];
  const options = {
    name: 'Bulkhead',
    script: main,
    args: ['--config', from.configFile, 'serve', '--json'],
    nodeOptions: profile,
    cpus: from.bench.pinning.gateway,
    cwd: from.dataDir,
    env: cleanEnvironment(),
  };
  return startPart(options, (line) => /^\{"ready":true,"baseUrl":"([^"]+)"/.exec(line)?.[1]?.replace('localhost', '127.0.0.1'));
}

async function prepare(
  part: RunningPart,
  adminToken: string,
  { name, removeDirectory }: { readonly name: string; readonly removeDirectory: () => void },
): Promise<Bulkhead> {
  let tenants = 0;
  const addTenants = async (count: number) => {
    const from = tenants;
    tenants += count;
    return inParallel(count, (index) => addTenant(part.url, adminToken, `bench-${from + index}`));
  };
  const close = async () => {
    await part.stop();
    removeDirectory();
  };
  try {
    const [key] = await addTenants(1);
    const headers = { authorization: `Bearer ${key}` };
    const target = { name, url: part.url, headers, pid: part.pid };
    return { target, part, addTenants, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

function configuration(upstreamUrl: string, dataDir: string, adminToken: string): object {
  return {
    server: { host: '127.0.0.1', port: 0 },
    dataDir,
    auth: { adminToken },
    tiers: { bench: { weight: 1, limits: hugeLimits, budget: hugeBudget, perUser: { limits: hugeLimits, budget: hugeBudget } } },
    providers: [{ id: 'mock', kind: 'openai-compatible', baseUrl: `${upstreamUrl}/v1`, connectionsMax }],
    models: [
      {
        id: 'bench',
        deployments: [{ provider: 'mock', model: 'bench', limits: { concurrency: connectionsMax } }],
        price: { inputUsdPerMillion: 0.15, outputUsdPerMillion: 0.6 },
      },
    ],
    logging: { level: 'warn' },
    bounds: { queueRequestsPerTenantMax: 10_000 },
  };
}

async function addTenant(url: string, adminToken: string, id: string): Promise<string> {
  await ask(`${url}/admin/v1/tenants`, adminToken, { id, name: id, tier: 'bench' });
  const made = await ask(`${url}/admin/v1/tenants/${id}/keys`, adminToken, { name: 'bench' });
  return String(made['key']);
}

async function ask(url: string, adminToken: string, body: object): Promise<Readonly<Record<string, unknown>>> {
  const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' };
  const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
  if (answer.status !== 201) throw new Error(`${new URL(url).pathname} answered ${answer.status}: ${(await answer.text()).slice(0, 300)}`);
  return (await answer.json()) as Readonly<Record<string, unknown>>;
}

async function inParallel<Result>(count: number, run: (index: number) => Promise<Result>): Promise<readonly Result[]> {
  const results: Result[] = [];
  let next = 0;
  const worker = async () => {
    for (let index = next++; index < count; index = next++) results[index] = await run(index);
  };
  await Promise.all(Array.from({ length: requestsAtOnce }, worker));
  return results;
}

/** Without the variables that would change what is configured. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const configuring = new Set(['DATABASE_URL', 'VALKEY_URL', 'HOST', 'PORT']);
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !configuring.has(name) && !name.startsWith('BULKHEAD_')));
}
