/** A whole Bulkhead in this process, on the engine of the project, with a way to audit it and a superuser's way to its database. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { Database } from '../../src/adapters/postgres/database.ts';
import { admitLogin } from '../../src/adapters/postgres/login-check.ts';
import { type App, openApp } from '../../src/app.ts';
import type { ChainedReport, SignedReport } from '../../src/audit/sign-report.ts';
import { loadConfig } from '../../src/config/load.ts';
import { type LogFields, type Logger, silentLogger } from '../../src/telemetry/logger.ts';
import { onServer, testTemplate, urlAt, urlOf } from '../support/server-database.ts';

export interface AuditedApp extends AsyncDisposable {
  readonly app: App;
  /** Errors that were logged, by code. */
  readonly alarms: readonly string[];
  admin(method: string, path: string, body?: unknown): Promise<{ readonly status: number; readonly body: string }>;
  audit(order?: Readonly<Record<string, unknown>>): Promise<ChainedReport>;
  /** One after the other, past every wall. */
  asSuperuser(...statements: readonly string[]): Promise<void>;
}

const adminToken = 'admin-token-of-the-audited-app';

export async function openAuditedApp(audit: Readonly<Record<string, unknown>> = {}): Promise<AuditedApp> {
  await using stack = new AsyncDisposableStack();
  const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-audited-'));
  stack.defer(() => rmSync(dataDir, { recursive: true, force: true }));
  const url = process.env['BULKHEAD_TEST_ENGINE'] === 'server' ? await serverLogin(stack) : undefined;
  const alarms: string[] = [];
  const loaded = loadConfig({
    cwd: dataDir,
    env: {
      BULKHEAD_DATA_DIR: dataDir,
      BULKHEAD_ADMIN_TOKEN: adminToken,
      ...(url !== undefined && { DATABASE_URL: url.serving }),
    },
    file: configFile(dataDir, audit),
  });
  const app = await openApp({ loaded, logger: alarmLogger(alarms), listen: true });
  stack.defer(() => app.close());
  const owner = url?.owner ?? new Database({ connection: { socketDir: join(dataDir, 'pg') }, poolSize: 1, queryTimeoutMs: 30_000 });
  stack.defer(() => owner.close());
  const headers = { authorization: `Bearer ${app.adminToken}` };
  const admin: AuditedApp['admin'] = (method, path, body) => app.inject({ method, path, headers, body });
  const opened = stack.move();
  return {
    app,
    alarms,
    admin,
    audit: (order = {}) => auditOf(admin, order),
    asSuperuser: (...statements) =>
      owner.withClient(async (client) => {
        for (const statement of statements) await client.query(statement);
      }),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/** A database of its own on the server, and a login that may serve and nothing more. */
async function serverLogin(stack: AsyncDisposableStack): Promise<{ readonly serving: string; readonly owner: Database }> {
  const name = `audited_${randomBytes(8).toString('hex')}`;
  await onServer([`CREATE DATABASE ${name} TEMPLATE ${testTemplate}`, `CREATE ROLE ${name} LOGIN PASSWORD '${name}' NOINHERIT`]);
  stack.defer(() => onServer([`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`, `DROP ROLE ${name}`]));
  const serving = urlAt(urlOf(name), name, name);
  const owner = new Database({ connection: { url: urlOf(name) }, poolSize: 1, queryTimeoutMs: 30_000 });
  await admitLogin(owner, serving);
  return { serving, owner };
}

function configFile(dataDir: string, audit: Readonly<Record<string, unknown>>): string {
  const file = join(dataDir, 'bulkhead.yaml');
  const provider = { id: 'sim', kind: 'simulated', timeToFirstTokenMs: 0, tokensPerSecond: 1_000_000, concurrency: 8 };
  const config = {
    server: { port: 0 },
    auth: { secret: 'a secret of the audited app that is long enough' },
    tiers: { test: { weight: 1 } },
    providers: [provider],
    models: [{ id: 'sim-fast', deployments: [{ provider: 'sim', model: 'sim-fast' }] }],
    audit: { intervalMinutes: 0, ...audit },
  };
  writeFileSync(file, JSON.stringify(config));
  return file;
}

function alarmLogger(alarms: string[]): Logger {
  return { ...silentLogger, error: ({ code }: LogFields) => void alarms.push(code ?? 'unknown') };
}

async function auditOf(admin: AuditedApp['admin'], order: Readonly<Record<string, unknown>>): Promise<ChainedReport> {
  const begun = await admin('POST', '/admin/v1/audits', order);
  if (begun.status !== 202) throw new Error(`the audit did not begin: ${begun.body}`);
  const { id } = JSON.parse(begun.body) as { readonly id: string };
  for (;;) {
    const answer = JSON.parse((await admin('GET', `/admin/v1/audits/${id}`)).body) as SignedReport & { readonly status?: string };
    if (answer.status === undefined) return answer.body;
    if (answer.status === 'failed') throw new Error(JSON.stringify(answer));
    await wait(50);
  }
}
