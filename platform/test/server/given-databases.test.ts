/** Siloed tenants in databases that their operator gave: by configuration and by the admin API, beside an embedded shared database. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningService, startPostgres } from '../../../scripts/services.mjs';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';
import { onServer, urlAt } from '../support/server-database.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-given-'));
const adminToken = 'an-admin-token-for-tests';
/** The server lets everybody in; what matters is where the text turns up. */
const password = 'correct-horse-battery-staple';
let server: RunningService;
let bulkhead: RunningBulkhead;

function urlOf(database: string, login: string): string {
  const url = new URL(urlAt(server.url, database, login));
  url.password = password;
  return url.href;
}

const given = (database: string) => ({ url: urlOf(database, 'vault_login'), ownerUrl: urlOf(database, 'vault_admin') });

function configOf(database: string): string {
  const { url: databaseUrl, ownerUrl: databaseOwnerUrl } = given(database);
  return JSON.stringify({
    auth: { adminToken, secret: 'a secret that the replicas of one database share' },
    tenants: [
      { id: 'vault', tier: 'pro', isolation: 'siloed', databaseUrl, databaseOwnerUrl },
      { id: 'plain', tier: 'pro' },
    ],
    providers: [{ id: 'sim', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 10_000 }],
    models: [{ id: 'sim-fast', deployments: [{ provider: 'sim', model: 'sim-fast' }] }],
    logging: { level: 'debug' },
  });
}

async function asOperator(method: string, path: string, body?: unknown) {
  const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' };
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, { method, headers, ...sent });
  const text = await answer.text();
  expect(text).not.toContain(password);
  return { status: answer.status, text, body: JSON.parse(text) as Record<string, unknown> };
}

const keys = new Map<string, string>();

async function clientOf(tenant: string): Promise<OpenAI> {
  const apiKey = keys.get(tenant) ?? String((await asOperator('POST', `/tenants/${tenant}/keys`, { name: 'test' })).body['key']);
  keys.set(tenant, apiKey);
  return new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey, maxRetries: 0 });
}

async function fill(tenant: string, secret: string): Promise<string> {
  const client = await clientOf(tenant);
  const store = await client.vectorStores.create({ name: tenant });
  const file = new File([`The password of the archive is ${secret}.`], `${secret}.txt`);
  expect((await client.vectorStores.files.uploadAndPoll(store.id, file)).status).toBe('completed');
  return store.id;
}

async function ask(tenant: string, store: string): Promise<readonly string[]> {
  const found = await (await clientOf(tenant)).vectorStores.search(store, { query: 'password of the archive' });
  return found.data.map((hit) => hit.filename);
}

/** One row of one statement, as the superuser. */
async function truth(database: string, statement: string): Promise<string> {
  const { default: pg } = await import('pg');
  const client = new pg.Client({ connectionString: urlAt(server.url, database) });
  await client.connect();
  try {
    return String(Object.values((await client.query<Record<string, unknown>>(statement)).rows[0] ?? {})[0]);
  } finally {
    await client.end();
  }
}

const pagesOfTenants = `SELECT sum(pg_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'app' AND c.relkind = 'r'`;
const chunks = 'SELECT count(*) FROM app.chunk';

async function move(tenant: string, order: Record<string, unknown>): Promise<void> {
  expect((await asOperator('POST', `/tenants/${tenant}/move`, order)).status).toBe(202);
  const status = async () => (await asOperator('GET', `/tenants/${tenant}/move`)).body['status'];
  await expect.poll(status, { timeout: 30_000, interval: 100 }).toBe('completed');
}

let store = '';

beforeAll(async () => {
  server = await startPostgres({ isFresh: true });
  const databases = ['vault', 'annex', 'other', 'empty'];
  const postgres = urlAt(server.url, 'postgres');
  await onServer(['CREATE ROLE vault_admin LOGIN CREATEROLE', 'CREATE ROLE vault_login LOGIN NOINHERIT'], postgres);
  for (const name of databases) {
    await onServer([`CREATE DATABASE ${name} OWNER vault_admin`], postgres);
    await onServer(['CREATE EXTENSION vector'], urlAt(server.url, name));
  }
  mkdirSync(dataDir, { recursive: true });
  bulkhead = await startBulkhead({ dataDir, config: configOf('vault') });
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
  await server.stop();
  rmSync(dataDir, { recursive: true, force: true });
});

describe('a tenant whose database the configuration gives', () => {
  it('lives there and nowhere else, and is there after kill -9', async () => {
    store = await fill('vault', 'heron');
    expect(await truth('vault', chunks)).toBe('1');
    expect(await truth('vault', 'SELECT tenant_id FROM control.occupant')).toBe('vault');
    await bulkhead.stop('SIGKILL');
    bulkhead = await startBulkhead({ dataDir, config: configOf('vault') });
    expect(await ask('vault', store)).toEqual(['heron.txt']);
  });

  it('leaves no page there when it moves into the shared database, and moves back', async () => {
    await move('vault', { to: 'pooled' });
    expect(await ask('vault', store)).toEqual(['heron.txt']);
    expect(await truth('vault', pagesOfTenants)).toBe('0');
    expect(await truth('vault', 'SELECT count(*) FROM control.occupant')).toBe('0');
    await move('vault', { to: 'siloed' });
    expect(await ask('vault', store)).toEqual(['heron.txt']);
    expect(await truth('vault', chunks)).toBe('1');
  });
});

describe('a tenant whose database the admin API gives', () => {
  it('is created there, its URL kept where nobody can read it', async () => {
    const { url: database_url, ownerUrl: database_owner_url } = given('annex');
    const created = await asOperator('POST', '/tenants', {
      id: 'annex',
      tier: 'pro',
      isolation: 'siloed',
      database_url,
      database_owner_url,
    });
    expect(created.status, created.text).toBe(201);
    const annexStore = await fill('annex', 'marten');
    expect(await truth('annex', chunks)).toBe('1');
    await bulkhead.stop();
    expect(filesWith(dataDir, password)).toEqual(['bulkhead.yaml']);
    bulkhead = await startBulkhead({ dataDir, config: configOf('vault') });
    expect(await ask('annex', annexStore)).toEqual(['marten.txt']);
    expect(bulkhead.log()).not.toContain(password);
  });

  it('is refused a database that another tenant has, and is suspended rather than housed elsewhere', async () => {
    const { url: database_url } = given('annex');
    const refused = await asOperator('POST', '/tenants', { id: 'intruder', tier: 'pro', isolation: 'siloed', database_url });
    expect(refused.status).toBe(400);
    expect(refused.text).toContain('in use');
    expect((await asOperator('GET', '/tenants/intruder')).body).toMatchObject({ state: 'suspended' });
    expect(await truth('annex', 'SELECT tenant_id FROM control.occupant')).toBe('annex');
  });

  const refusals: readonly (readonly [string, () => Record<string, string>, number, string])[] = [
    ['a login that is a superuser', () => ({ database_url: urlOf('vault', 'postgres') }), 503, 'superuser'],
    [
      'a database without the schema and without its owner',
      () => ({ database_url: urlOf('empty', 'vault_login') }),
      503,
      'databaseOwnerUrl',
    ],
    ['a database that is not there', () => ({ database_url: urlOf('nowhere', 'vault_login') }), 400, '3D000'],
    ['something that is no URL of PostgreSQL', () => ({ database_url: `https://${password}.example/` }), 400, 'postgres://'],
    ['an owner without a database', () => ({ database_owner_url: urlOf('empty', 'vault_admin') }), 400, 'database_url'],
  ];
  it.each(refusals)('is refused %s', async (what, body, status, advice) => {
    const id = `refused-${refusals.findIndex(([name]) => name === what)}`;
    const refused = await asOperator('POST', '/tenants', { id, tier: 'pro', isolation: 'siloed', ...body() });
    expect(refused.status, refused.text).toBe(status);
    expect(refused.text).toContain(advice);
  });

  it('moves into one while it is served, and is not moved from silo to silo', async () => {
    const plain = await fill('plain', 'otter');
    const { url: database_url, ownerUrl: database_owner_url } = given('other');
    expect((await asOperator('POST', '/tenants/plain/move', { to: 'pooled', database_url })).status).toBe(400);
    await move('plain', { to: 'siloed', database_url, database_owner_url });
    expect(await truth('other', chunks)).toBe('1');
    expect(await ask('plain', plain)).toEqual(['otter.txt']);
    const again = await asOperator('POST', '/tenants/plain/move', { to: 'siloed', database_url: given('empty').url });
    expect(again).toMatchObject({ status: 400 });
    expect(again.text).toContain('pooled first');
    await move('plain', { to: 'pooled' });
    expect(await ask('plain', plain)).toEqual(['otter.txt']);
    expect(await truth('other', pagesOfTenants)).toBe('0');
  });
});

describe('a tenant whose URL is changed to another’s database', () => {
  it('is not served from another database than the one it lives in', async () => {
    await bulkhead.stop();
    bulkhead = await startBulkhead({ dataDir, config: configOf('annex') });
    await expect(ask('vault', store)).rejects.toMatchObject({ status: 503 });
    expect(bulkhead.log()).toContain('not the one that holds it');
    await bulkhead.stop();
    bulkhead = await startBulkhead({ dataDir, config: configOf('vault') });
    expect(await ask('vault', store)).toEqual(['heron.txt']);
  });
});

function filesWith(directory: string, text: string): readonly string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && readFileSync(join(entry.parentPath, entry.name)).includes(text))
    .map((entry) => entry.name);
}
