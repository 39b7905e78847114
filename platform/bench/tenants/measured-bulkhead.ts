/** A whole Bulkhead to measure: on the embedded database, or on a real server set up as docs/guides/postgresql.md says. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startPostgres } from '../../../scripts/services.mjs';
import { startBulkhead } from '../../test/support/running-bulkhead.ts';
import { onServer, urlAt } from '../../test/support/server-database.ts';

export type Engine = 'embedded' | 'server';

export interface Answer {
  readonly status: number;
  readonly ms: number;
  readonly body: Readonly<Record<string, unknown>>;
}

export interface Client {
  send(method: 'GET' | 'POST', path: string, body?: unknown): Promise<Answer>;
}

export interface MeasuredBulkhead extends AsyncDisposable {
  readonly pid: number;
  readonly baseUrl: string;
  readonly operator: Client;
  /** A new key of the tenant. */
  keyOf(tenant: string): Promise<string>;
  /** With a new key. */
  clientOf(tenant: string): Promise<Client>;
}

const triesMax = 40;
const retryAfterMs = 250;
const adminToken = 'an-admin-token-for-benchmarks';
const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

export async function startMeasured(engine: Engine): Promise<MeasuredBulkhead> {
  await using stack = new AsyncDisposableStack();
  const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-bench-'));
  stack.defer(() => rmSync(dataDir, { recursive: true, force: true }));
  const database = engine === 'server' ? await prepareServer(stack, dataDir) : {};
  const bulkhead = stack.use(await startBulkhead({ dataDir, config: configOf(database) }));
  const operator = clientFor(bulkhead.baseUrl, adminToken);
  const keyOf = async (tenant: string) =>
    String((await operator.send('POST', `/admin/v1/tenants/${tenant}/keys`, { name: 'bench' })).body['key']);
  const started = stack.move();
  return {
    pid: bulkhead.process.pid ?? 0,
    baseUrl: bulkhead.baseUrl,
    operator,
    keyOf,
    clientOf: async (tenant) => clientFor(bulkhead.baseUrl, await keyOf(tenant)),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

function configOf(database: object): string {
  return JSON.stringify({
    database,
    auth: { adminToken, secret: 'a secret that the replicas of one database share' },
    tiers: { bench: { weight: 1 } },
    providers: [{ id: 'sim', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 10_000 }],
    models: [{ id: 'sim-fast', deployments: [{ provider: 'sim', model: 'sim-fast' }] }],
    logging: { level: 'warn' },
  });
}

async function prepareServer(stack: AsyncDisposableStack, dataDir: string): Promise<object> {
  const server = await startPostgres({ isFresh: true });
  stack.defer(() => server.stop());
  const postgres = urlAt(server.url, 'postgres');
  await onServer(['CREATE ROLE bench_admin LOGIN CREATEROLE CREATEDB', 'CREATE ROLE bench_login LOGIN NOINHERIT'], postgres);
  for (const name of ['bench', 'bulkhead_silo_template']) {
    await onServer([`CREATE DATABASE ${name} OWNER bench_admin`], postgres);
    await onServer(['CREATE EXTENSION vector'], urlAt(server.url, name));
  }
  const database = { url: urlAt(server.url, 'bench', 'bench_login'), ownerUrl: urlAt(server.url, 'bench', 'bench_admin') };
  const file = join(dataDir, 'bulkhead.yaml');
  writeFileSync(file, configOf(database));
  const env = { ...process.env, BULKHEAD_DATA_DIR: dataDir };
  await promisify(execFile)(process.execPath, [main, '--config', file, 'migrate'], { cwd: dataDir, env });
  return database;
}

export function clientFor(baseUrl: string, token: string): Client {
  return {
    async send(method, path, body) {
      const headers = { authorization: `Bearer ${token}`, ...(body !== undefined && !(body instanceof FormData) && jsonHeader) };
      const from = performance.now();
      const sent = body === undefined ? {} : { body: body instanceof FormData ? body : JSON.stringify(body) };
      let answer = await fetch(baseUrl + path, { method, headers, ...sent });
      // As the SDKs do; the time goes on.
      for (let tries = 1; answer.status === 503 && tries < triesMax; tries++) {
        await wait(retryAfterMs);
        answer = await fetch(baseUrl + path, { method, headers, ...sent });
      }
      const parsed = (await answer.json()) as Record<string, unknown>;
      const ms = performance.now() - from;
      if (answer.status >= 300) throw new Error(`${method} ${path} was answered ${answer.status}: ${JSON.stringify(parsed)}`);
      return { status: answer.status, ms, body: parsed };
    },
  };
}

const jsonHeader = { 'content-type': 'application/json' };
