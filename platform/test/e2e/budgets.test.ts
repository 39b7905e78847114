/**
 * Money as a limit, over HTTP: no call spends more than the tenant has, whichever route it comes by; what was spent survives `kill -9`; a changed budget holds within a
 * second; the official SDK does as it is told.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI, { APIError } from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { copyTemplate } from '../support/database-template.ts';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const adminToken = 'an-admin-token-for-tests';
/** An answer of 10 tokens costs 0.001 dollars, and the input next to nothing. */
const config = JSON.stringify({
  auth: { adminToken },
  tiers: { test: { weight: 1 } },
  providers: [{ id: 'sim', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 100_000, concurrency: 64 }],
  models: [
    {
      id: 'chat',
      deployments: [{ provider: 'sim', model: 'chat' }],
      outputTokensMax: 40,
      price: { inputUsdPerMillion: 0.001, outputUsdPerMillion: 100 },
    },
    {
      id: 'vectors',
      kind: 'embedding',
      dimensions: 384,
      deployments: [{ provider: 'sim', model: 'vectors' }],
      price: { inputUsdPerMillion: 100, outputUsdPerMillion: 0 },
    },
  ],
  embedding: { model: 'vectors' },
});
const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-budgets-'));
let bulkhead: RunningBulkhead;

beforeAll(async () => {
  await copyTemplate(dataDir);
  bulkhead = await startBulkhead({ config, dataDir });
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
  rmSync(dataDir, { recursive: true, force: true });
});

async function asOperator(method: string, path: string, body?: unknown) {
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${adminToken}`, ...(body !== undefined && { 'content-type': 'application/json' }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

/** A tenant with so many dollars a month, and a key of its own. */
async function tenantWith(
  id: string,
  usd: number,
  more: Readonly<Record<string, unknown>> = {},
  key: Readonly<Record<string, unknown>> = {},
) {
  const made = await asOperator('POST', '/tenants', { id, tier: 'test', budget: { usd }, ...more });
  expect(made).toMatchObject({ status: 201, body: { budget: { usd: usd.toFixed(9), period: 'month', on_exhausted: 'refuse' } } });
  const { body } = await asOperator('POST', `/tenants/${id}/keys`, { name: 'test', ...key });
  return String(body['key']);
}

async function send(apiKey: string, path: string, body: unknown, headers: Readonly<Record<string, string>> = {}) {
  const answer = await fetch(`${bulkhead.baseUrl}/v1${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  return { status: answer.status, headers: answer.headers, body: (await answer.json()) as Record<string, Record<string, unknown>> };
}

const chat = (apiKey: string, maxTokens: number, more: Readonly<Record<string, unknown>> = {}) =>
  send(apiKey, '/chat/completions', {
    model: 'chat',
    messages: [{ role: 'user', content: 'Tell a story.' }],
    max_tokens: maxTokens,
    ...more,
  });

async function spentOf(tenant: string): Promise<bigint> {
  const { body } = await asOperator('GET', `/tenants/${tenant}/usage`);
  return (body['data'] as readonly { readonly cost_nano_usd: string }[]).reduce((sum, row) => sum + BigInt(row.cost_nano_usd), 0n);
}

describe('a budget', () => {
  it('is never passed by calls at once, and is used up to the last call that fits', async () => {
    const apiKey = await tenantWith('racing', 0.02);
    const answers = await Promise.all(Array.from({ length: 64 }, () => chat(apiKey, 10)));
    const refused = answers.filter(({ status }) => status !== 200);
    expect(refused.length).toBeGreaterThan(40);
    for (const { status, body } of refused) {
      expect(status).toBe(429);
      expect(['budget_exceeded', 'budget_reserved']).toContain(body['error']?.['code']);
    }
    await expect.poll(() => spentOf('racing'), { timeout: 20_000 }).toBeGreaterThan(0n);
    for (let count = 0; count < 64; count++) await chat(apiKey, 10);
    await expect.poll(async () => Number((await spentOf('racing')) / 1_000n), { timeout: 20_000 }).toBeGreaterThan(18_000);
    expect(Number((await spentOf('racing')) / 1_000n)).toBeLessThanOrEqual(20_000);
  });

  it('survives kill -9, events in the journal included', async () => {
    const apiKey = await tenantWith('killed', 0.01);
    for (let count = 0; count < 8; count++) expect((await chat(apiKey, 10)).status).toBe(200);
    await bulkhead.stop('SIGKILL');
    bulkhead = await startBulkhead({ config, dataDir });
    const answers = [];
    for (let count = 0; count < 8; count++) answers.push((await chat(apiKey, 10)).status);
    expect(answers.filter((status) => status === 200).length).toBeLessThanOrEqual(2);
    await expect.poll(async () => Number((await spentOf('killed')) / 1_000n), { timeout: 20_000 }).toBeLessThanOrEqual(10_000);
  });

  it('binds every route that spends', async () => {
    const apiKey = await tenantWith('poor', 0.000_001);
    const store = await send(apiKey, '/vector_stores', { name: 'store' });
    const { id: storeId } = store.body as unknown as { readonly id: string };
    const form = new FormData();
    form.set('purpose', 'assistants');
    form.set('file', new File(['A page about the sea and the ships in the harbour.'], 'page.txt'));
    const uploaded = await fetch(`${bulkhead.baseUrl}/v1/files`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}` },
      body: form,
    });
    const { id: fileId } = (await uploaded.json()) as { readonly id: string };
    const messages = [{ role: 'user', content: 'Tell a story.' }];
    const calls: readonly [string, unknown][] = [
      ['/chat/completions', { model: 'chat', messages }],
      ['/chat/completions', { model: 'chat', messages, stream: true }],
      ['/responses', { model: 'chat', input: 'Tell a story.' }],
      ['/responses', { model: 'chat', input: 'Tell a story.', stream: true }],
      ['/embeddings', { model: 'vectors', input: 'words' }],
      [`/vector_stores/${storeId}/search`, { query: 'words' }],
    ];
    for (const [path, body] of calls) {
      const { status, body: answer, headers } = await send(apiKey, path, body);
      expect([path, status, answer['error']?.['code']]).toEqual([path, 429, 'budget_exceeded']);
      expect(headers.get('x-should-retry')).toBe('false');
      expect(headers.get('retry-after')).toBeNull();
    }
    // Ingestion spends too: the file says why it is not there.
    await send(apiKey, `/vector_stores/${storeId}/files`, { file_id: fileId });
    const attached = async () => {
      const answer = await fetch(`${bulkhead.baseUrl}/v1/vector_stores/${storeId}/files/${fileId}`, {
        headers: { authorization: `Bearer ${apiKey}` },
      });
      return (await answer.json()) as { readonly status: string; readonly last_error: { readonly message: string } | null };
    };
    await expect.poll(async () => (await attached()).status, { timeout: 60_000, interval: 300 }).toBe('failed');
    expect((await attached()).last_error?.message).toContain('budget_exceeded: ');
    expect(await spentOf('poor')).toBe(0n);
  });

  it('holds as changed within a second, and forgets nothing of what was spent', async () => {
    const apiKey = await tenantWith('changing', 0.001_1);
    expect((await chat(apiKey, 10)).status).toBe(200);
    expect((await chat(apiKey, 10)).body['error']?.['code']).toBe('budget_exceeded');
    await asOperator('POST', '/tenants/changing', { budget: { usd: 0.002_2 } });
    await expect.poll(async () => (await chat(apiKey, 10)).status, { timeout: 1_000, interval: 50 }).toBe(200);
    expect((await chat(apiKey, 10)).body['error']?.['code']).toBe('budget_exceeded');
  });

  it('of a team is shared by its keys, of a key is the key’s, of a user the user’s', async () => {
    const apiKey = await tenantWith(
      'levels',
      1,
      { per_team: { budget: { usd: 0.002_1 } }, per_user: { budget: { usd: 0.003_1 } } },
      { team: 'red' },
    );
    const second = await asOperator('POST', '/tenants/levels/keys', { name: 'second', team: 'red', budget: { usd: 0.001_1 } });
    expect(second.body).toMatchObject({ team: 'red', budget: { usd: '0.001100000' } });
    const other = String(second.body['key']);
    expect((await chat(other, 10)).status).toBe(200);
    expect((await chat(other, 10)).body['error']).toMatchObject({ code: 'budget_exceeded', limit: 'key.budget' });
    expect((await chat(apiKey, 10)).status).toBe(200);
    expect((await chat(apiKey, 10)).body['error']).toMatchObject({ code: 'budget_exceeded', limit: 'team.budget' });
    const third = String((await asOperator('POST', '/tenants/levels/keys', { name: 'third' })).body['key']);
    for (let count = 0; count < 3; count++) expect((await chat(third, 10, { user: 'ann' })).status).toBe(200);
    expect((await chat(third, 10, { user: 'ann' })).body['error']).toMatchObject({ limit: 'user.budget' });
    expect((await chat(third, 10, { user: 'bob' })).status).toBe(200);
  });

  it('makes the official SDK stop at once when it is spent, with what to do in the message', async () => {
    const apiKey = await tenantWith('sdk', 0.001);
    let requests = 0;
    const client = new OpenAI({
      baseURL: `${bulkhead.baseUrl}/v1`,
      apiKey,
      maxRetries: 5,
      fetch: (...args) => {
        requests++;
        return fetch(...args);
      },
    });
    const error = await client.chat.completions
      .create({ model: 'chat', messages: [{ role: 'user', content: 'Tell a story.' }] })
      .then(() => undefined)
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject({ status: 429, code: 'budget_exceeded', type: 'insufficient_quota' });
    expect(String(error)).toContain('max_tokens');
    expect(requests).toBe(1);
  });

  it('is refused when it is not one', async () => {
    for (const budget of [{ usd: 0 }, { usd: -1 }, { usd: 1e12 }, { usd: 1, period: 'year' }, { usd: '1' }, { dollars: 1 }]) {
      expect(await asOperator('POST', '/tenants', { id: 'wrong', tier: 'test', budget })).toMatchObject({ status: 400 });
    }
    for (const fields of [{ time_zone: 'Mars/Olympus' }, { teams: { '../x': {} } }, { per_user: { limits: { concurrency: 0 } } }]) {
      expect(await asOperator('POST', '/tenants', { id: 'wrong', tier: 'test', ...fields })).toMatchObject({ status: 400 });
    }
    for (const session of ['', 'x'.repeat(200), 'a b']) {
      const apiKey = await tenantWith(`session-${session.length}`, 1);
      const answer = await send(apiKey, '/chat/completions', { model: 'chat', messages: [] }, { 'x-session-id': session });
      expect(answer.status).toBe(400);
    }
  });
});
