import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { startBulkhead } from '../support/running-bulkhead.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

function newDataDir(): string {
  const directory = mkdtempSync(join(tmpdir(), 'bulkhead-life-'));
  directories.push(directory);
  return directory;
}

function chatRequest(key: string, maxTokens: number) {
  return {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'sim-fast',
      stream: true,
      max_tokens: maxTokens,
      messages: [{ role: 'user', content: 'Tell me a long story.' }],
    }),
  };
}

describe('the life of a server', () => {
  it('keeps keys, documents and usage over a restart, and writes quickstart.json for its owner alone', async () => {
    const dataDir = newDataDir();
    const first = await startBulkhead({ dataDir });
    const before = first.quickstart();
    expect(statSync(join(dataDir, 'quickstart.json')).mode & 0o777).toBe(0o600);
    expect(Object.keys(before)).toEqual(expect.arrayContaining(['baseUrl', 'consoleUrl', 'adminToken', 'models', 'tenants']));
    const answer = await fetch(`${first.baseUrl}/v1/chat/completions`, chatRequest(first.tenant('acme').apiKey, 5));
    expect(answer.status).toBe(200);
    await answer.text();
    expect(await first.stop('SIGINT')).toBe(0);

    const second = await startBulkhead({ dataDir });
    expect(second.tenant('acme').apiKey).toBe(before.tenants.find((tenant) => tenant.id === 'acme')?.apiKey);
    const usage = await fetch(`${second.baseUrl}/admin/v1/tenants/acme/usage?group_by=endpoint`, {
      headers: { authorization: `Bearer ${second.quickstart().adminToken}` },
    });
    const rows = ((await usage.json()) as { readonly data: readonly { readonly endpoint: string; readonly requests: number }[] }).data;
    expect(rows.find((row) => row.endpoint === 'chat.completions')?.requests).toBe(1);
    const files = await fetch(`${second.baseUrl}/v1/files`, { headers: { authorization: `Bearer ${second.tenant('acme').apiKey}` } });
    expect(((await files.json()) as { readonly data: readonly unknown[] }).data.length).toBeGreaterThan(0);
    expect(await second.stop('SIGTERM')).toBe(0);
  });

  it('lets a running stream finish on Ctrl-C, bills it, and exits 0', async () => {
    const dataDir = newDataDir();
    const bulkhead = await startBulkhead({ dataDir });
    const answer = await fetch(`${bulkhead.baseUrl}/v1/chat/completions`, chatRequest(bulkhead.tenant('acme').apiKey, 60));
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    await reader.read();
    const ended = bulkhead.stop('SIGINT');
    let text = '';
    for (let part = await reader.read(); !part.done; part = await reader.read()) text += Buffer.from(part.value).toString();
    expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true);
    expect(await ended).toBe(0);
  });

  it('refuses a second process on the same data directory, naming the one that holds it', async () => {
    await using bulkhead = await startBulkhead();
    const child = spawn(process.execPath, [main, 'serve', '--json'], {
      cwd: bulkhead.dataDir,
      env: { ...process.env, PORT: '0', BULKHEAD_DATA_DIR: bulkhead.dataDir },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    const [code] = (await once(child, 'exit')) as [number];
    expect(code).toBe(1);
    expect(said).toContain(String(bulkhead.process.pid));
    expect(said).toContain(bulkhead.dataDir);
    expect((await fetch(`${bulkhead.baseUrl}/readyz`)).status).toBe(200);
  });

  it('bills an aborted stream for what was delivered, and gives the slot back', async () => {
    await using bulkhead = await startBulkhead();
    const key = bulkhead.tenant('acme').apiKey;
    const abort = new AbortController();
    const answer = await fetch(`${bulkhead.baseUrl}/v1/chat/completions`, { ...chatRequest(key, 400), signal: abort.signal });
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    for (let seen = 0; seen < 5; seen++) await reader.read();
    abort.abort();
    const admin = { headers: { authorization: `Bearer ${bulkhead.quickstart().adminToken}` } };
    const chatUsage = async () => {
      const usage = await fetch(`${bulkhead.baseUrl}/admin/v1/tenants/acme/usage?group_by=endpoint`, admin);
      const { data } = (await usage.json()) as { readonly data: readonly Record<string, number | string>[] };
      return data.find((row) => row['endpoint'] === 'chat.completions');
    };
    await expect.poll(chatUsage, { timeout: 10_000 }).toMatchObject({ requests: 1, estimated_requests: 1 });
    const row = await chatUsage();
    expect(row?.['output_tokens']).toBeGreaterThan(0);
    expect(row?.['output_tokens']).toBeLessThan(400);
    const fairness = await fetch(`${bulkhead.baseUrl}/admin/v1/fairness`, admin);
    const pools = ((await fairness.json()) as { readonly data: readonly { readonly in_flight: number }[] }).data;
    expect(pools.every((pool) => pool.in_flight === 0)).toBe(true);
  });

  it('sees a revoked key and a suspended tenant at once', async () => {
    await using bulkhead = await startBulkhead();
    const admin = { authorization: `Bearer ${bulkhead.quickstart().adminToken}` };
    const models = (key: string) => fetch(`${bulkhead.baseUrl}/v1/models`, { headers: { authorization: `Bearer ${key}` } });
    const { apiKey, jwt } = bulkhead.tenant('globex');
    expect((await models(apiKey)).status).toBe(200);
    const keyId = apiKey.split('_')[2];
    expect((await fetch(`${bulkhead.baseUrl}/admin/v1/tenants/globex/keys/${keyId}`, { method: 'DELETE', headers: admin })).status).toBe(
      200,
    );
    await expect.poll(async () => (await models(apiKey)).status, { timeout: 5_000 }).toBe(401);
    expect((await models(jwt)).status).toBe(200);
    await fetch(`${bulkhead.baseUrl}/admin/v1/tenants/globex/suspend`, { method: 'POST', headers: admin });
    await expect.poll(async () => (await models(jwt)).status, { timeout: 5_000 }).toBe(403);
    await fetch(`${bulkhead.baseUrl}/admin/v1/tenants/globex/resume`, { method: 'POST', headers: admin });
    await expect.poll(async () => (await models(jwt)).status, { timeout: 5_000 }).toBe(200);
  });
});
