/** Providers that refuse, over HTTP: what a tenant notices of it, what an operator sees and says. The upstream is a real server that answers as told. */
import OpenAI from 'openai';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';
import { ScriptedUpstream, type UpstreamScript } from '../support/scripted-upstream.ts';

const adminToken = 'an-admin-token-for-tests';
let upstream: ScriptedUpstream;
let bulkhead: RunningBulkhead;
const keys = new Map<string, string>();

beforeAll(async () => {
  upstream = await ScriptedUpstream.start(answer());
  bulkhead = await startBulkhead({
    config: JSON.stringify({
      auth: { adminToken },
      tiers: { test: { weight: 1 } },
      providers: [{ id: 'real', kind: 'openai-compatible', baseUrl: upstream.baseUrl }],
      models: [{ id: 'chat', deployments: [{ provider: 'real', model: 'org/model', limits: { concurrency: 2 } }] }],
      bounds: { queueWaitMaxMs: 3_000 },
    }),
  });
  for (const id of ['acme', 'globex']) {
    await asOperator('POST', '/tenants', { id, name: id, tier: 'test' });
    const made = await asOperator('POST', `/tenants/${id}/keys`, { name: 'key' });
    keys.set(id, String(made.body['key']));
  }
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
  await upstream[Symbol.asyncDispose]();
});
beforeEach(async () => {
  upstream.answerWith(answer());
  upstream.received.length = 0;
  await say('auto');
});

async function asOperator(method: string, path: string, body?: unknown) {
  const answered = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${adminToken}`, ...(body !== undefined && { 'content-type': 'application/json' }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: answered.status, body: (await answered.json()) as Record<string, unknown> };
}

const say = (to: string, id = 'real/org/model') => asOperator('POST', '/deployments', { id, to });

async function deployment() {
  const { body } = await asOperator('GET', '/deployments');
  return (body['data'] as Record<string, unknown>[]).find(({ id }) => id === 'real/org/model');
}

function chat(tenant = 'acme', signal: AbortSignal | null = null) {
  return fetch(`${bulkhead.baseUrl}/v1/chat/completions`, {
    method: 'POST',
    signal,
    headers: { authorization: `Bearer ${keys.get(tenant)}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'chat', messages: [{ role: 'user', content: `hello of ${tenant}` }], max_tokens: 5 }),
  });
}

function answer(headers: Readonly<Record<string, string>> = {}): UpstreamScript {
  return (response) => {
    const message = { role: 'assistant', content: 'Hello.', refusal: null };
    const choices = [{ index: 0, message, finish_reason: 'stop', logprobs: null }];
    const usage = { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };
    response.writeHead(200, { 'content-type': 'application/json', ...headers });
    response.end(JSON.stringify({ id: 'c', object: 'chat.completion', created: 1, model: 'org/model', choices, usage }));
  };
}

function refuse(
  status: number,
  headers: Readonly<Record<string, string>> = {},
  error: Readonly<Record<string, unknown>> = {},
): UpstreamScript {
  return (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(JSON.stringify({ error: { message: 'no', type: 'requests', code: 'rate_limit_exceeded', ...error } }));
  };
}

describe('a provider that refuses for a moment', () => {
  it('is waited for: the tenant sees an answer, and no second charge of its requests', async () => {
    upstream.answerWith((response, request) => {
      upstream.answerWith(answer());
      return refuse(429, { 'retry-after-ms': '300' })(response, request);
    });
    const answered = await chat();
    expect(answered.status).toBe(200);
    expect(upstream.received).toHaveLength(2);
    expect(await deployment()).toMatchObject({ refusals: 1, answers: 1, concurrency: { configured: 2, in_flight: 0 } });
    const usage = await asOperator('GET', '/tenants/acme/usage');
    const rows = usage.body['data'] as { readonly requests: number }[];
    expect(rows.reduce((sum, { requests }) => sum + requests, 0)).toBe(1);
  });

  it('gives its first turn afterwards to who waits with the smallest share', async () => {
    upstream.answerWith(refuse(429, { 'retry-after-ms': '700' }));
    const order: string[] = [];
    const noisy = Array.from({ length: 6 }, () => chat('acme').then(() => order.push('acme')));
    while ((await deployment())?.['state'] !== 'paused') await new Promise((resolve) => setTimeout(resolve, 10));
    upstream.answerWith(answer());
    const quiet = chat('globex').then(() => order.push('globex'));
    await Promise.all([...noisy, quiet]);
    expect(order.indexOf('globex')).toBeLessThanOrEqual(1);
  });
});

describe('a provider that refuses for longer than anybody may wait', () => {
  it.each([
    ['a number of years', '99999999'],
    ['a number without end', '9'.repeat(400)],
    ['a date of another millennium', 'Fri, 31 Dec 2999 23:59:59 GMT'],
  ])('and names %s is believed for a minute at most', async (_name, retryAfter) => {
    upstream.answerWith(refuse(429, { 'retry-after': retryAfter }));
    const first = await chat();
    // Nothing that can be read is as good as nothing said: then it is asked again, three times.
    expect(first.status).toBe(429);
    const next = await chat('globex');
    const seconds = Number(next.headers.get('retry-after'));
    expect([429, 503]).toContain(next.status);
    expect(seconds).toBeGreaterThanOrEqual(1);
    expect(seconds).toBeLessThanOrEqual(80);
    const state = await deployment();
    expect(Number(state?.['resumes_in_ms'])).toBeLessThanOrEqual(66_000);
  });

  it('costs the second tenant one quick 503, and the provider nothing', async () => {
    upstream.answerWith(refuse(429, { 'retry-after': '60' }));
    await chat();
    const sent = upstream.received.length;
    const began = performance.now();
    const refused = await chat('globex');
    const body = (await refused.json()) as { readonly error: Record<string, unknown> };
    expect(refused.status).toBe(503);
    expect(body.error).toMatchObject({ code: 'capacity_unavailable', type: 'overloaded_error' });
    expect(refused.headers.get('x-should-retry')).toBe('true');
    expect(performance.now() - began).toBeLessThan(1_500);
    expect(upstream.received).toHaveLength(sent);
    expect(JSON.stringify(body)).not.toContain('acme');
  });
});

describe('the official SDK', () => {
  it('comes back by itself when the provider does', async () => {
    upstream.answerWith(refuse(429, { 'retry-after-ms': '500' }));
    setTimeout(() => upstream.answerWith(answer()), 1_200);
    const client = new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: keys.get('acme') ?? '', maxRetries: 4 });
    const completion = await client.chat.completions.create({ model: 'chat', messages: [{ role: 'user', content: 'hi' }], max_tokens: 5 });
    expect(completion.choices[0]?.message.content).toBe('Hello.');
  });
});

describe('a provider whose account has no money', () => {
  it('is asked once, and nobody is told of the account', async () => {
    upstream.answerWith(refuse(429, {}, { code: 'insufficient_quota', type: 'insufficient_quota', message: 'org-secret has no money' }));
    const first = await chat();
    expect(first.status).toBe(502);
    expect(await first.text()).not.toMatch(/money|secret/);
    expect(await deployment()).toMatchObject({ state: 'broken' });
    expect((await chat('globex')).status).toBe(503);
    expect(upstream.received).toHaveLength(1);
  });
});

describe('what a provider says of its limits', () => {
  it('is shown to operators, kept, and never shown to a tenant', async () => {
    const told = {
      'x-ratelimit-limit-tokens': '1000',
      'x-ratelimit-remaining-tokens': '20',
      'x-ratelimit-reset-tokens': '1m0s',
      'x-ratelimit-limit-requests': '31337',
      'x-ratelimit-remaining-requests': '31336',
    };
    upstream.answerWith(answer(told));
    const answered = await chat();
    expect(JSON.stringify([...answered.headers])).not.toContain('31336');
    expect(await deployment()).toMatchObject({ quota: { requests: { limit: 31_337 }, tokens: { limit: 1_000 } } });
    const second = await chat();
    expect(second.status).toBe(200);
    // Ten tokens and more are expected of it, and few are left: it waited for the bucket, not for a refusal.
    expect(upstream.received).toHaveLength(2);
  });
});

describe('an operator', () => {
  it('closes and opens a provider, and what is wrong is refused by name', async () => {
    expect((await say('closed')).body).toMatchObject({ state: 'closed', override: 'closed' });
    expect((await chat()).status).toBe(503);
    expect((await say('open')).body).toMatchObject({ state: 'serving', override: 'open' });
    expect((await chat()).status).toBe(200);
    expect((await say('ajar')).status).toBe(400);
    expect((await say('auto', 'nobody')).status).toBe(404);
    const asTenant = await fetch(`${bulkhead.baseUrl}/admin/v1/deployments`, {
      method: 'POST',
      headers: { authorization: `Bearer ${keys.get('acme')}`, 'content-type': 'application/json' },
      body: '{"id":"real/org/model","to":"closed"}',
    });
    expect(asTenant.status).toBe(401);
    expect((await chat()).status).toBe(200);
  });
});
