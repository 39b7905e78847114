/** The end of a tenant by the command line, with the server running: suspended, exported, imported, erased, and the receipt checked. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-end-'));
const adminToken = 'an-admin-token-for-tests';
/** Names a tenant that will be erased: a start after that must not make it again. */
const config = JSON.stringify({
  auth: { adminToken },
  tiers: { test: { weight: 1 } },
  tenants: [{ id: 'acme', tier: 'test' }],
  providers: [{ id: 'sim', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 10_000 }],
  models: [{ id: 'sim-fast', deployments: [{ provider: 'sim', model: 'sim-fast' }] }],
});
/** Each command starts a process, and an erasure reads and writes the whole directory. */
const waitMs = 240_000;
const inDirectory = (name: string) => join(dataDir, name);
let bulkhead: RunningBulkhead;
let storeId = '';
let responseId = '';
let client: OpenAI;

function command(...args: readonly string[]): Promise<{ readonly code: number; readonly said: string }> {
  const env = { PATH: process.env['PATH'], BULKHEAD_DATA_DIR: dataDir };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [main, '--config', inDirectory('bulkhead.yaml'), ...args],
      { env, cwd: dataDir, timeout: waitMs },
      (error, out, err) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? 1), said: out + err });
      },
    );
  });
}

async function commandDone(...args: readonly string[]): Promise<string> {
  const { code, said } = await command(...args);
  expect(code, said).toBe(0);
  return said;
}

async function clientOf(tenant: string): Promise<OpenAI> {
  const { key } = JSON.parse(await commandDone('key', 'create', tenant, '--name', 'test', '--json')) as { readonly key: string };
  return new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: key, maxRetries: 0 });
}

const search = async (by: OpenAI) =>
  (await by.vectorStores.search(storeId, { query: 'colour of the vault door' })).data.map(({ filename, score, content }) => [
    filename,
    score,
    content,
  ]);

beforeAll(async () => {
  bulkhead = await startBulkhead({ dataDir, config });
  client = await clientOf('acme');
  storeId = (await client.vectorStores.create({ name: 'vault' })).id;
  const file = new File(['The vault door is ultramarine blue. Its key hangs in the office.'], 'vault.txt');
  await client.vectorStores.files.uploadAndPoll(storeId, file, { pollIntervalMs: 200 });
  responseId = (await client.responses.create({ model: 'sim-fast', input: 'Which colour has the vault door?' })).id;
}, waitMs);
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
  rmSync(dataDir, { recursive: true, force: true });
});

describe('a tenant at its end', { timeout: waitMs }, () => {
  it('is exported and comes in again with everything', async () => {
    const before = await search(client);
    expect((await command('tenant', 'export', 'acme', '--out', inDirectory('acme.tar'))).said).toContain('Suspend the tenant first');
    await commandDone('tenant', 'suspend', 'acme');
    await commandDone('tenant', 'export', 'acme', '--out', inDirectory('acme.tar'));
    await commandDone('tenant', 'import', inDirectory('acme.tar'), '--as', 'restored');
    const restored = await clientOf('restored');
    expect(await search(restored)).toEqual(before);
    expect((await restored.responses.retrieve(responseId)).id).toBe(responseId);
    const archive = readFileSync(inDirectory('acme.tar'));
    const at = archive.indexOf('vault.txt');
    expect(at).toBeGreaterThan(0);
    archive[at] = 'V'.charCodeAt(0);
    writeFileSync(inDirectory('changed.tar'), archive);
    const refused = await command('tenant', 'import', inDirectory('changed.tar'), '--as', 'other');
    expect(refused.code).toBe(1);
    expect(refused.said).toContain('was changed');
  });

  it('is erased with a receipt that holds up, and only then', async () => {
    expect((await command('tenant', 'erase', 'acme')).said).toContain('--yes');
    const said = await commandDone('tenant', 'erase', 'acme', '--yes', '--receipt', inDirectory('receipt.json'));
    expect(said).toContain('acme was erased');
    expect(await commandDone('verify-receipt', inDirectory('receipt.json'))).toContain('genuine');
    writeFileSync(inDirectory('key.pem'), await commandDone('signing-key'));
    expect(await commandDone('verify-receipt', inDirectory('receipt.json'), '--public-key', inDirectory('key.pem'))).toContain('genuine');
    expect(await commandDone('tenant', 'receipts')).toContain('acme');
    const receipt = JSON.parse(readFileSync(inDirectory('receipt.json'), 'utf8')) as {
      body: { surfaces: { name: string; before: number; after: number; kept?: string }[] };
    };
    const surface = (name: string) => receipt.body.surfaces.find((each) => each.name === name);
    expect(surface('exported archives')).toMatchObject({ before: 1, after: 0 });
    expect(surface('usage journal')).toMatchObject({ after: 0 });
    expect(surface('app.usage_event')?.before).toBeGreaterThan(0);
    expect(existsSync(join(dataDir, 'exports', 'acme.tar'))).toBe(false);
    const forged = { ...receipt, body: { ...receipt.body, surfaces: receipt.body.surfaces.slice(1) } };
    writeFileSync(inDirectory('forged.json'), JSON.stringify(forged));
    const refused = await command('verify-receipt', inDirectory('forged.json'));
    expect(refused.code).toBe(1);
    expect(refused.said).toContain('changed after it was signed');
  });

  it('does not come back: not by its key, not by its id, not by the configuration', async () => {
    await expect(client.models.list()).rejects.toMatchObject({ status: 401 });
    expect((await command('tenant', 'create', 'acme', '--tier', 'test')).said).toContain('never reused');
    await bulkhead.stop('SIGKILL');
    bulkhead = await startBulkhead({ dataDir, config });
    // Its name lives on with the one that was restored; no line begins with its id.
    expect(await commandDone('tenant', 'list')).not.toMatch(/^acme\b/m);
    expect(await commandDone('tenant', 'receipts', '--json')).toContain('"tenant": "acme"');
  });
});
