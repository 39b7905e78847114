/** The whole product in a process of its own, before a simulated provider of few slots: with its own queue as it is shipped, or first come first served. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RunningPart, startPart } from '../support/part.ts';
import { type Client, clientFor } from '../tenants/measured-bulkhead.ts';

export type HttpPolicy = 'ours' | 'FCFS';

export interface FairnessPool {
  readonly utilisation: number | null;
  readonly tenants: readonly { readonly tenant: string; readonly received_share: number; readonly wait_ms: { readonly p99: number } }[];
}

export interface BenchedBulkhead extends AsyncDisposable {
  readonly url: string;
  readonly directory: string;
  /** Makes the tenant, in the tier of its weight, and a key for it. */
  addTenant(id: string, weight: number): Promise<string>;
  /** `GET /admin/v1/fairness`, the pool. */
  fairness(): Promise<FairnessPool>;
}

export interface BulkheadOptions {
  readonly policy: HttpPolicy;
  readonly permits: number;
  readonly waitMaxMs: number;
  /** Of an answer's tokens. */
  readonly tokensPerSecond: number;
}

export const model = 'bench';
const weights = [1, 2, 4];

export async function startBulkhead(options: BulkheadOptions): Promise<BenchedBulkhead> {
  await using stack = new AsyncDisposableStack();
  const directory = mkdtempSync(join(tmpdir(), 'bulkhead-bench-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  const adminToken = `bench-${randomBytes(24).toString('hex')}`;
  const configFile = join(directory, 'bulkhead.yaml');
  writeFileSync(configFile, JSON.stringify(configOf(options, directory, adminToken)), { mode: 0o600 });
  const part = stack.use(await start(options, configFile, directory));
  const operator = clientFor(part.url, adminToken);
  const started = stack.move();
  return {
    url: part.url,
    directory,
    addTenant: (id, weight) => addTenant(operator, id, weight),
    fairness: async () => poolOf((await operator.send('GET', '/admin/v1/fairness')).body),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

function start({ policy }: BulkheadOptions, configFile: string, cwd: string): Promise<RunningPart> {
  const shipped = {
    script: fileURLToPath(new URL('../../src/main.ts', import.meta.url)),
    args: ['--config', configFile, 'serve', '--json'],
  };
  const firstCome = { script: fileURLToPath(new URL('./serve-first-come.ts', import.meta.url)), args: [configFile] };
  const options = { name: `Bulkhead (${policy})`, ...(policy === 'ours' ? shipped : firstCome), cwd, env: cleanEnvironment() };
  return startPart(options, (line) => /^\{"ready":true,"baseUrl":"([^"]+)"/.exec(line)?.[1]?.replace('localhost', '127.0.0.1'));
}

function configOf({ permits, waitMaxMs, tokensPerSecond }: BulkheadOptions, dataDir: string, adminToken: string): object {
  return {
    server: { host: '127.0.0.1', port: 0 },
    dataDir,
    auth: { adminToken },
    tiers: Object.fromEntries(weights.map((weight) => [tierOf(weight), { weight }])),
    providers: [{ id: 'sim', kind: 'simulated', concurrency: permits, timeToFirstTokenMs: 0, tokensPerSecond }],
    models: [{ id: model, deployments: [{ provider: 'sim', model: 'sim-reasoning', limits: { concurrency: permits } }] }],
    logging: { level: 'warn' },
    bounds: { queueWaitMaxMs: waitMaxMs },
  };
}

function tierOf(weight: number): string {
  return `weight-${weight}`;
}

async function addTenant(operator: Client, id: string, weight: number): Promise<string> {
  await operator.send('POST', '/admin/v1/tenants', { id, tier: tierOf(weight) });
  return String((await operator.send('POST', `/admin/v1/tenants/${id}/keys`, { name: 'bench' })).body['key']);
}

function poolOf(body: Readonly<Record<string, unknown>>): FairnessPool {
  const [pool] = body['data'] as readonly FairnessPool[];
  if (pool === undefined) throw new Error('the server reports no pool');
  return pool;
}

/** Without the variables that would change what is configured. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const configuring = new Set(['DATABASE_URL', 'VALKEY_URL', 'HOST', 'PORT']);
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !configuring.has(name) && !name.startsWith('BULKHEAD_')));
}
