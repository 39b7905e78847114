/** A whole Bulkhead on a real PostgreSQL, set up by the statements of the guide: refused with a wrong login, serving with the right one, directly and behind PgBouncer. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningService, startPgBouncer, startPostgres, startValkey } from '../../../scripts/services.mjs';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';
import { onServer as runAt, urlAt } from '../support/server-database.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const guide = readFileSync(new URL('../../../docs/guides/postgresql.md', import.meta.url), 'utf8');
const workDir = mkdtempSync(join(tmpdir(), 'bulkhead-server-'));
const adminToken = 'an-admin-token-for-tests';
const name = 'guide';
/** Its own: roles belong to a whole server, and the guide begins where there are none. */
let server: RunningService;
const urlOf = (database: string, login?: string) => urlAt(server.url, database, login);
const onServer = (statements: readonly string[], database = 'postgres') => runAt(statements, urlOf(database));

/** The statements that the guide tells an operator to run, for this test's database and logins. */
function guideStatements(block: number): readonly string[] {
  const blocks = [...guide.matchAll(/```sql\n([\s\S]*?)```/g)].map((match) => match[1] ?? '');
  const text = (blocks[block] ?? '').replaceAll('bulkhead_admin', `${name}_admin`).replaceAll('bulkhead_login', `${name}_login`);
  return text
    .replace('CREATE DATABASE bulkhead ', `CREATE DATABASE ${name} `)
    .split(';')
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');
}

function configOf(url: string, more: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({
    ...more,
    database: { url, ownerUrl: urlOf(name, `${name}_admin`) },
    auth: { adminToken, secret: 'a secret that the replicas of one database share' },
    atRest: { key: '5a'.repeat(32) },
    providers: [
      { id: 'sim', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 10_000 },
      { id: 'snail', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 1 },
    ],
    models: [
      { id: 'sim-fast', deployments: [{ provider: 'sim', model: 'sim-fast' }] },
      { id: 'slow', deployments: [{ provider: 'snail', model: 'slow' }] },
    ],
    logging: { level: 'warn' },
  });
}

function directory(part: string): string {
  const path = join(workDir, part);
  mkdirSync(path);
  return path;
}

function command(url: string, ...args: readonly string[]): Promise<{ readonly code: number; readonly said: string }> {
  const file = join(workDir, 'bulkhead.yaml');
  writeFileSync(file, configOf(url));
  const env = { PATH: process.env['PATH'], BULKHEAD_DATA_DIR: join(workDir, 'data') };
  return new Promise((resolve) => {
    execFile(process.execPath, [main, '--config', file, ...args], { env, cwd: workDir, timeout: 50_000 }, (error, out, err) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? 1), said: out + err });
    });
  });
}

async function asOperator(bulkhead: RunningBulkhead, path: string, body: unknown): Promise<Record<string, unknown>> {
  const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' };
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  const text = await answer.text();
  expect(answer.status, `${path}: ${text}\n${bulkhead.log()}`).toBe(201);
  return JSON.parse(text) as Record<string, unknown>;
}

async function updateTenant(bulkhead: RunningBulkhead, tenant: string, changes: unknown): Promise<void> {
  const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' };
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1/tenants/${tenant}`, { method: 'POST', headers, body: JSON.stringify(changes) });
  expect(answer.status).toBe(200);
}

async function clientOf(bulkhead: RunningBulkhead, tenant: string, isolation: 'pooled' | 'siloed'): Promise<OpenAI> {
  await asOperator(bulkhead, '/tenants', { id: tenant, tier: 'pro', isolation });
  const { key } = await asOperator(bulkhead, `/tenants/${tenant}/keys`, { name: 'test' });
  return new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: String(key), maxRetries: 0 });
}

/** Uploads a document with a secret of its own, asks about it, and returns what the store holds. */
async function fillAndAsk(client: OpenAI, secret: string) {
  const store = await client.vectorStores.create({ name: 'notes' });
  const file = new File([`The password of the archive is ${secret}.`], `${secret}.txt`);
  expect((await client.vectorStores.files.uploadAndPoll(store.id, file)).status).toBe('completed');
  const response = await client.responses.create({
    model: 'sim-fast',
    input: 'What is the password of the archive?',
    tools: [{ type: 'file_search', vector_store_ids: [store.id] }],
  });
  const found = await client.vectorStores.search(store.id, { query: 'password of the archive' });
  return { storeId: store.id, responseId: response.id, files: found.data.map((hit) => hit.filename) };
}

async function residentHits(bulkhead: RunningBulkhead): Promise<number> {
  const answer = await fetch(`${bulkhead.baseUrl}/metrics`, { headers: { authorization: `Bearer ${adminToken}` } });
  return Number(/^bulkhead_resident_hits (\d+)/m.exec(await answer.text())?.[1]);
}

beforeAll(async () => {
  server = await startPostgres({ isFresh: true });
  await onServer(guideStatements(0));
  await onServer(guideStatements(1), name);
  await onServer(guideStatements(2));
  await onServer(guideStatements(3), 'bulkhead_silo_template');
});
afterAll(async () => {
  await server.stop();
  rmSync(workDir, { recursive: true, force: true });
});

describe('the login that serves', () => {
  it('is refused until the schema is there, and told what to run', async () => {
    const { code, said } = await command(urlOf(name, `${name}_login`), 'doctor');
    expect(code).not.toBe(0);
    expect(said).toContain('bulkhead migrate');
  });

  it('may serve after bulkhead migrate, which the guide says is enough', async () => {
    const migrated = await command(urlOf(name, `${name}_login`), 'migrate');
    expect(migrated.code, migrated.said).toBe(0);
    const { code, said } = await command(urlOf(name, `${name}_login`), 'doctor');
    expect(code, said).toBe(0);
  });

  const faults: readonly (readonly [string, string, string, string])[] = [
    ['bypasses row-level security', 'ALTER ROLE %l BYPASSRLS', 'NOBYPASSRLS', 'ALTER ROLE %l NOBYPASSRLS'],
    ['may create roles', 'ALTER ROLE %l CREATEROLE', 'NOCREATEROLE', 'ALTER ROLE %l NOCREATEROLE'],
    ['may become the owner of the tables', 'GRANT bulkhead_owner TO %l', 'REVOKE bulkhead_owner', 'REVOKE bulkhead_owner FROM %l'],
    ['lacks a role', 'REVOKE bulkhead_ledger FROM %l', 'GRANT bulkhead_ledger', 'GRANT bulkhead_ledger TO %l WITH INHERIT FALSE, SET TRUE'],
  ];

  it.each(faults)('is refused when it %s, and served again once mended as the message says', async (_, plant, advice, mend) => {
    const login = `${name}_login`;
    // As whoever granted it: PostgreSQL keeps the grants of each grantor apart.
    await onServer([`SET ROLE ${name}_admin`, plant.replace('%l', login)], name).catch(() => onServer([plant.replace('%l', login)], name));
    try {
      const { code, said } = await command(urlOf(name, login), 'doctor');
      expect(code, said).not.toBe(0);
      expect(said).toContain(advice);
      expect(said).toContain(login);
    } finally {
      await onServer([mend.replace('%l', login)], name);
      await onServer([`SET ROLE ${name}_admin`, mend.replace('%l', login)], name).catch(() => {});
    }
    expect((await command(urlOf(name, login), 'doctor')).code).toBe(0);
  });

  it('is refused when it is a superuser, or the owner', async () => {
    expect((await command(urlOf(name), 'doctor')).said).toContain('superuser');
    expect((await command(urlOf(name, `${name}_admin`), 'doctor')).said).toContain('bulkhead_owner');
  });
});

describe('a whole Bulkhead on the server', () => {
  it('serves pooled and siloed tenants from their own documents, and finds everything after kill -9', async () => {
    const dataDir = directory('serving');
    const config = configOf(urlOf(name, `${name}_login`));
    const secrets = { pooled: 'heron', siloed: 'marten' } as const;
    const filled = new Map<string, { readonly client: OpenAI; readonly left: Awaited<ReturnType<typeof fillAndAsk>> }>();
    {
      await using bulkhead = await startBulkhead({ dataDir, config });
      for (const isolation of ['pooled', 'siloed'] as const) {
        const client = await clientOf(bulkhead, `${isolation}-tenant`, isolation);
        const left = await fillAndAsk(client, secrets[isolation]);
        expect(left.files).toEqual([`${secrets[isolation]}.txt`]);
        filled.set(isolation, { client, left });
      }
      await bulkhead.stop('SIGKILL');
    }
    await using bulkhead = await startBulkhead({ dataDir, config });
    for (const [isolation, { client, left }] of filled) {
      const again = new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: client.apiKey, maxRetries: 0 });
      expect((await again.responses.retrieve(left.responseId)).id).toBe(left.responseId);
      expect((await again.vectorStores.list()).data.map((store) => store.id)).toEqual([left.storeId]);
      for (const [other, { left: foreign }] of filled) {
        if (other !== isolation) await expect(again.vectorStores.retrieve(foreign.storeId)).rejects.toMatchObject({ status: 404 });
      }
    }
  });

  it('ends the streams of a tenant within 5 s of its suspension in another process, and refuses its calls there', async () => {
    const config = configOf(urlOf(name, `${name}_login`));
    await using here = await startBulkhead({ dataDir: directory('here'), config });
    await using there = await startBulkhead({ dataDir: directory('there'), config });
    const { apiKey } = await clientOf(here, 'suspended-tenant', 'pooled');
    const client = new OpenAI({ baseURL: `${there.baseUrl}/v1`, apiKey, maxRetries: 0 });
    const stream = await client.chat.completions.create({
      model: 'slow',
      messages: [{ role: 'user', content: 'Write a very long story about the sea, the ships and everybody in the harbour.' }],
      stream: true,
    });
    const reading = (async () => {
      for await (const _ of stream);
    })();
    reading.catch(() => {});
    const headers = { authorization: `Bearer ${adminToken}` };
    await fetch(`${here.baseUrl}/admin/v1/tenants/suspended-tenant/suspend`, { method: 'POST', headers });
    const suspendedAtMs = performance.now();
    await expect(reading).rejects.toMatchObject({ code: 'tenant_suspended' });
    await expect(client.models.list()).rejects.toMatchObject({ status: 403, code: 'tenant_suspended' });
    expect(performance.now() - suspendedAtMs).toBeLessThan(5_000);
  });

  it('holds one limit over two processes, gives back what a killed one held, and goes on when Valkey is killed', async () => {
    const valkey = await startValkey();
    const config = configOf(urlOf(name, `${name}_login`), { valkey: { url: valkey.url }, bounds: { reservationLeaseMs: 3_000 } });
    await using here = await startBulkhead({ dataDir: directory('limits-here'), config });
    await using there = await startBulkhead({ dataDir: directory('limits-there'), config });
    const atHere = await clientOf(here, 'shared-limits', 'pooled');
    const atThere = new OpenAI({ baseURL: `${there.baseUrl}/v1`, apiKey: atHere.apiKey, maxRetries: 0 });
    await updateTenant(here, 'shared-limits', { limits: { concurrency: 4, requests_per_minute: 60 } });
    const messages = [{ role: 'user' as const, content: 'Write a very long story about the sea.' }];
    const open = async (client: OpenAI) => client.chat.completions.create({ model: 'slow', messages, stream: true, max_tokens: 500 });
    // Two streams on each: no slot is left on either.
    for (const client of [atThere, atThere, atHere, atHere]) await open(client);
    await expect(open(atHere)).rejects.toMatchObject({ code: 'concurrency_limit_exceeded' });
    await expect(open(atThere)).rejects.toMatchObject({ code: 'concurrency_limit_exceeded' });
    await there.stop('SIGKILL');
    const killedAtMs = performance.now();
    await expect
      .poll(
        () =>
          open(atHere).then(
            () => 'open',
            (error: { code: string }) => error.code,
          ),
        { timeout: 15_000, interval: 500 },
      )
      .toBe('open');
    // A lease, and a third of one until somebody looks.
    expect(performance.now() - killedAtMs).toBeLessThan(8_000);
    await valkey.stop('SIGKILL');
    const quick = () => atHere.chat.completions.create({ model: 'sim-fast', messages, max_tokens: 5 });
    const from = performance.now();
    await quick();
    expect(performance.now() - from).toBeLessThan(1_000);
    expect(here.log()).toContain('limits cannot be shared');
    // Three streams run; what was held before still counts.
    await open(atHere);
    await expect(open(atHere)).rejects.toMatchObject({ code: 'concurrency_limit_exceeded' });
  });

  it('places a store by size, with the owner’s login of the guide, and starts again beside its index', async () => {
    const login = `${name}_login`;
    const config = configOf(urlOf(name, login), { retrieval: { dedicatedChunksMin: 1, placementSweepIntervalMs: 200 } });
    const dataDir = directory('placing');
    const shown = async (bulkhead: RunningBulkhead) => {
      const headers = { authorization: `Bearer ${adminToken}` };
      const answer = await fetch(`${bulkhead.baseUrl}/admin/v1/tenants/placed-tenant/placement`, { headers });
      return (await answer.json()) as {
        readonly stores: readonly { readonly placement: string; readonly search: string; readonly recall: number }[];
      };
    };
    let client: OpenAI;
    let storeId = '';
    {
      await using bulkhead = await startBulkhead({ dataDir, config });
      client = await clientOf(bulkhead, 'placed-tenant', 'pooled');
      ({ storeId } = await fillAndAsk(client, 'curlew'));
      await expect
        .poll(async () => (await shown(bulkhead)).stores.map(({ placement, search, recall }) => [placement, search, recall]), {
          timeout: 30_000,
        })
        .toEqual([['dedicated', 'approximate', 1]]);
    }
    await using again = await startBulkhead({ dataDir, config });
    client = new OpenAI({ baseURL: `${again.baseUrl}/v1`, apiKey: client.apiKey, maxRetries: 0 });
    const found = await client.vectorStores.search(storeId, { query: 'password of the archive' });
    expect(found.data.map((hit) => hit.filename)).toEqual(['curlew.txt']);
    expect((await command(urlOf(name, login), 'tenant', 'placement', 'placed-tenant', '--help')).said).toContain('--to');
  });

  it('works behind PgBouncer in transaction mode, and comes back after it was gone', async () => {
    const users = [`${name}_login`, 'postgres'];
    let bouncer: RunningService = await startPgBouncer(urlOf(name, `${name}_login`), { users });
    try {
      await using bulkhead = await startBulkhead({ dataDir: directory('bounced'), config: configOf(bouncer.url) });
      const client = await clientOf(bulkhead, 'bounced-tenant', 'pooled');
      const clients = await Promise.all(Array.from({ length: 4 }, (_, index) => clientOf(bulkhead, `bounced-${index}`, 'pooled')));
      const answers = await Promise.all(clients.map((each, index) => fillAndAsk(each, `secret-${index}`)));
      expect(answers.map(({ files }) => files)).toEqual(clients.map((_, index) => [`secret-${index}.txt`]));
      const ask = (index: number) =>
        clients[index]?.vectorStores.search(answers[index]?.storeId ?? '', { query: 'password of the archive' });
      for (const index of clients.keys()) {
        const before = await residentHits(bulkhead);
        await expect.poll(async () => ask(index)?.then(() => residentHits(bulkhead)), { timeout: 20_000 }).toBeGreaterThan(before);
      }
      // From memory now, with the read of one statement: side by side on the pooler's connections, each finds its own.
      const searches = Array.from({ length: 40 }, async (_, turn) => {
        const index = turn % clients.length;
        const found = await ask(index);
        return [index, ...(found?.data ?? []).map((hit) => hit.filename)];
      });
      for (const [index, ...files] of await Promise.all(searches)) expect(files).toEqual([`secret-${index}.txt`]);
      expect(await residentHits(bulkhead)).toBeGreaterThanOrEqual(40);
      await bouncer.stop();
      await expect(client.vectorStores.list()).rejects.toMatchObject({ status: 503 });
      bouncer = await startPgBouncer(urlOf(name, `${name}_login`), { users, port: Number(new URL(bouncer.url).port) });
      await expect
        .poll(
          async () =>
            client.vectorStores.list().then(
              ({ data }) => data.length,
              () => -1,
            ),
          { timeout: 20_000, interval: 250 },
        )
        .toBe(0);
      expect((await fillAndAsk(client, 'back')).files).toEqual(['back.txt']);
    } finally {
      await bouncer.stop();
    }
  });
});
