/** A siloed tenant as an operator and a client see it: created, filled and asked through the SDK, moved by the command line, there after a restart. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-siloed-'));
let bulkhead: RunningBulkhead;
let client: OpenAI;
let storeId = '';

beforeAll(async () => {
  bulkhead = await startBulkhead({ dataDir });
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
  rmSync(dataDir, { recursive: true, force: true });
});

async function asOperator(method: string, path: string, body?: unknown) {
  const { adminToken } = bulkhead.quickstart();
  const headers = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' };
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, {
    method,
    headers,
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

async function bulkheadCommand(...args: readonly string[]): Promise<string> {
  const env = { PATH: process.env['PATH'], BULKHEAD_DATA_DIR: dataDir };
  return (await promisify(execFile)(process.execPath, [main, ...args], { cwd: dataDir, env })).stdout;
}

async function ask(): Promise<{ readonly text: string; readonly files: readonly string[] }> {
  const response = await client.responses.create({
    model: 'sim-fast',
    input: 'Which colour has the vault door?',
    tools: [{ type: 'file_search', vector_store_ids: [storeId] }],
  });
  const found = await client.vectorStores.search(storeId, { query: 'colour of the vault door' });
  return { text: response.output_text, files: found.data.map((hit) => hit.filename) };
}

describe('a tenant with a database of its own', () => {
  it('is created with it', async () => {
    expect(await asOperator('POST', '/tenants', { id: 'vault', tier: 'pro', isolation: 'siloed' })).toMatchObject({
      status: 201,
      body: { id: 'vault', isolation: 'siloed' },
    });
    expect(existsSync(join(dataDir, 'silos', 'vault', 'pgdata'))).toBe(true);
    const { body } = await asOperator('POST', '/tenants/vault/keys', { name: 'test' });
    client = new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: String(body['key']), maxRetries: 0 });
  });

  it('uploads, indexes and is answered from its own documents, and pays for it', async () => {
    storeId = (await client.vectorStores.create({ name: 'vault' })).id;
    const file = new File(['The vault door is ultramarine blue. Its key hangs in the office.'], 'vault.txt');
    const attached = await client.vectorStores.files.uploadAndPoll(storeId, file);
    expect(attached.status).toBe('completed');
    expect((await ask()).files).toEqual(['vault.txt']);
    const usage = await asOperator('GET', '/tenants/vault/usage?group_by=model');
    expect(usage.status).toBe(200);
    expect(JSON.stringify(usage.body)).toContain('sim-fast');
  });

  it('moves back and forth by the command line while it is there, and says so', async () => {
    const before = await ask();
    expect(await bulkheadCommand('tenant', 'move', 'vault', '--to', 'pooled')).toContain('tenant vault is pooled');
    expect(existsSync(join(dataDir, 'silos', 'vault'))).toBe(false);
    expect(await ask()).toEqual(before);
    const moved = JSON.parse(await bulkheadCommand('tenant', 'move', 'vault', '--to', 'siloed', '--json')) as { readonly status: string };
    expect(moved.status).toBe('completed');
    expect(await ask()).toEqual(before);
    expect(await bulkheadCommand('tenant', 'move', 'vault', '--to', 'siloed')).toContain('tenant vault is siloed');
  });

  it('refuses nonsense', async () => {
    expect((await asOperator('POST', '/tenants/vault/move', { to: 'the moon' })).status).toBe(400);
    expect((await asOperator('POST', '/tenants/nobody/move', { to: 'siloed' })).status).toBe(404);
    expect((await asOperator('GET', '/tenants/acme/move')).status).toBe(404);
  });

  it('says where stores are placed, and that there is nothing to place on the embedded database', async () => {
    const shown = await asOperator('GET', '/tenants/vault/placement');
    expect(shown).toMatchObject({ status: 200, body: { object: 'tenant.placement', available: false, to: 'automatic', stores: [] } });
    expect((await asOperator('POST', '/tenants/vault/placement', { to: 'dedicated' })).status).toBe(400);
    expect((await asOperator('POST', '/tenants/vault/placement', { to: 'the moon' })).status).toBe(400);
    expect((await asOperator('POST', '/tenants/nobody/placement', { to: 'pooled' })).status).toBe(404);
    expect((await asOperator('GET', '/tenants/nobody/placement')).status).toBe(404);
    const anonymous = await fetch(`${bulkhead.baseUrl}/admin/v1/tenants/vault/move`);
    expect(anonymous.status).toBe(401);
  });

  it('is there after a restart', async () => {
    const before = await ask();
    await bulkhead.stop('SIGKILL');
    bulkhead = await startBulkhead({ dataDir });
    const { apiKey } = client;
    client = new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey, maxRetries: 0 });
    expect(await ask()).toEqual(before);
  });
});
