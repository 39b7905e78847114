/** Limits over HTTP: what answers and refusals say of them, what a session is charged for, and how soon a changed limit holds. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const adminToken = 'an-admin-token-for-tests';
const config = JSON.stringify({
  auth: { adminToken },
  tiers: { test: { weight: 1 } },
  providers: [
    { id: 'sim', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 100_000, concurrency: 64 },
    { id: 'slow', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 20, concurrency: 64 },
  ],
  models: [
    { id: 'chat', deployments: [{ provider: 'sim', model: 'chat' }], outputTokensMax: 40 },
    { id: 'slow', deployments: [{ provider: 'slow', model: 'slow' }], outputTokensMax: 400 },
    { id: 'vectors', kind: 'embedding', dimensions: 384, deployments: [{ provider: 'sim', model: 'vectors' }] },
  ],
  embedding: { model: 'vectors' },
});
let bulkhead: RunningBulkhead;

beforeAll(async () => {
  bulkhead = await startBulkhead({ config });
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
});

async function asOperator(method: string, path: string, body: unknown) {
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

type Fields = Readonly<Record<string, unknown>>;

/** A tenant with these fields, and a key of its own. */
async function tenantWith(id: string, fields: Fields, key: Fields = {}): Promise<string> {
  expect((await asOperator('POST', '/tenants', { id, tier: 'test', ...fields })).status).toBe(201);
  const { body } = await asOperator('POST', `/tenants/${id}/keys`, { name: 'test', ...key });
  return String(body['key']);
}

async function send(apiKey: string, path: string, body: Fields, headers: Readonly<Record<string, string>> = {}) {
  const answer = await fetch(`${bulkhead.baseUrl}/v1${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, text, code: /"code":\s*"([a-z_]+)"/.exec(text)?.[1] };
}

const messages = [{ role: 'user', content: 'Tell a story.' }];
const chat = (apiKey: string, more: Fields = {}, headers = {}) =>
  send(apiKey, '/chat/completions', { model: 'chat', messages, max_tokens: 10, ...more }, headers);

/** A list of strings with parameters (RFC 9651), by the strings. */
function listOf(field: string | null): Record<string, Record<string, string | number>> {
  const items = (field ?? '').split(', ').map((item) => {
    const [name = '', ...parameters] = item.split(';');
    expect(name).toMatch(/^"[a-z]+"$/);
    const pairs = parameters.map((parameter) => {
      expect(parameter).toMatch(/^[a-z]+=(\d{1,15}|"[a-z-]+")$/);
      const [key = '', value = ''] = parameter.split('=');
      return [key, value.startsWith('"') ? value.slice(1, -1) : Number(value)] as const;
    });
    return [name.slice(1, -1), Object.fromEntries(pairs)] as const;
  });
  return Object.fromEntries(items);
}

const policyOf = ({ headers }: { readonly headers: Headers }) => listOf(headers.get('ratelimit-policy'));
const limitOf = ({ headers }: { readonly headers: Headers }) => listOf(headers.get('ratelimit'));

describe('the headers of limits', () => {
  // Planted: the outermost scope whatever it has left.
  it('say of every dimension what the tightest scope allows and has left, on whole answers and on streams', async () => {
    const limits = { requests_per_minute: 600, tokens_per_minute: 50_000, concurrency: 5 };
    const apiKey = await tenantWith('told', { limits }, { limits: { requests_per_minute: 60, output_tokens_per_minute: 9_000 } });
    const answers = [
      await chat(apiKey),
      await chat(apiKey, { stream: true }),
      await send(apiKey, '/embeddings', { model: 'vectors', input: 'a word' }),
      await send(apiKey, '/responses', { model: 'chat', input: 'Hello', max_output_tokens: 10 }),
    ];
    for (const [index, answer] of answers.entries()) {
      expect(answer.status).toBe(200);
      expect(policyOf(answer)).toEqual({
        rpm: { q: 60, w: 60 },
        tpm: { q: 50_000, w: 60, qu: 'tokens' },
        otpm: { q: 9_000, w: 60, qu: 'tokens' },
        concurrency: { q: 5, qu: 'concurrent-requests' },
      });
      const left = limitOf(answer);
      expect(left).toMatchObject({ rpm: { t: expect.any(Number) }, concurrency: { r: 4 } });
      expect(left['rpm']?.['r']).toBeGreaterThanOrEqual(59 - index);
      expect(left['rpm']?.['r']).toBeLessThan(60);
      expect(left['tpm']?.['r']).toBe(Number(answer.headers.get('x-ratelimit-remaining-tokens')));
      expect(answer.headers.get('x-ratelimit-limit-requests')).toBe('60');
    }
  });

  it('say on a refusal which limit bound', async () => {
    const apiKey = await tenantWith('refused', { limits: { requests_per_minute: 1, tokens_per_minute: 1_000 } });
    const large = await chat(apiKey, { max_tokens: 2_000 });
    expect([large.status, large.code]).toEqual([413, 'request_too_large_for_limit']);
    expect(policyOf(large)).toEqual({ tpm: { q: 1_000, w: 60, qu: 'tokens' } });
    expect((await chat(apiKey)).status).toBe(200);
    const soon = await chat(apiKey);
    expect([soon.status, soon.code]).toEqual([429, 'rate_limit_exceeded']);
    expect(policyOf(soon)).toEqual({ rpm: { q: 1, w: 60 } });
    expect(limitOf(soon)).toEqual({ rpm: { r: 0, t: Number(soon.headers.get('retry-after')) } });
    expect(soon.headers.get('x-ratelimit-remaining-requests')).toBe('0');
  });

  it('say that all slots are in use', async () => {
    const apiKey = await tenantWith('busy', { limits: { concurrency: 1 } });
    const running = chat(apiKey, { model: 'slow', max_tokens: 40 });
    await expect.poll(async () => (await chat(apiKey)).code, { timeout: 5_000 }).toBe('concurrency_limit_exceeded');
    const refused = await chat(apiKey);
    expect(policyOf(refused)).toEqual({ concurrency: { q: 1, qu: 'concurrent-requests' } });
    expect(limitOf(refused)).toEqual({ concurrency: { r: 0 } });
    expect((await running).status).toBe(200);
  });

  // Planted: the key of the scope as partition key.
  it('tell nothing of whose they are, and nothing of another tenant’s requests', async () => {
    const limits = { requests_per_minute: 100, tokens_per_minute: 100_000 };
    const fields = { limits, per_user: { limits: { requests_per_minute: 50 } } };
    const [ours, theirs] = [await tenantWith('ours', fields, { team: 'red' }), await tenantWith('theirs', fields, { team: 'red' })];
    const first = await chat(ours, { user: 'ann' });
    for (let count = 0; count < 10; count++) await chat(theirs, { user: 'ann' });
    const second = await chat(ours, { user: 'ann' });
    expect(Number(limitOf(second)['rpm']?.['r'])).toBeGreaterThanOrEqual(Number(limitOf(first)['rpm']?.['r']) - 1);
    for (const { headers } of [first, second]) {
      const said = `${headers.get('ratelimit')} ${headers.get('ratelimit-policy')}`;
      expect(said).not.toMatch(/ours|theirs|ann|red|key|user|tenant|pk=/);
    }
  });

  it('are not there for a tenant without limits', async () => {
    const { headers, status } = await chat(await tenantWith('free', {}));
    expect(status).toBe(200);
    expect([headers.get('ratelimit'), headers.get('ratelimit-policy')]).toEqual([null, null]);
  });
});

describe('a session', () => {
  // Planted: counting every call that came.
  it('is not charged for calls that limits refuse', async () => {
    const apiKey = await tenantWith('session', { per_session: { calls_max: 3, limits: { tokens_per_minute: 1_000 } } });
    const call = (more: Fields = {}) => chat(apiKey, more, { 'x-session-id': 's1' });
    for (let count = 0; count < 5; count++) expect((await call({ max_tokens: 2_000 })).code).toBe('request_too_large_for_limit');
    for (let count = 0; count < 3; count++) expect((await call()).status).toBe(200);
    expect((await call()).code).toBe('session_limit_exceeded');
  });

  it('never makes more calls at once than it may make at all', async () => {
    const apiKey = await tenantWith('burst', { per_session: { calls_max: 3 } });
    const answers = await Promise.all(Array.from({ length: 12 }, () => chat(apiKey, {}, { 'x-session-id': 's1' })));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(3);
  });
});

describe('a limit that changes', () => {
  const changeTo = async (tenant: string, limits: Fields | null) => {
    const from = performance.now();
    expect((await asOperator('POST', `/tenants/${tenant}`, { limits })).status).toBe(200);
    return from;
  };

  it('holds within a second, lower, higher or not at all, and forgets nothing of what is in use', async () => {
    const apiKey = await tenantWith('changing', { limits: { concurrency: 3 } });
    const running = [1, 2].map(() => chat(apiKey, { model: 'slow', max_tokens: 120 }));
    await expect.poll(async () => limitOf(await chat(apiKey))['concurrency'], { timeout: 5_000 }).toEqual({ r: 0 });
    const within = async (from: number, code: string | undefined) => {
      await expect.poll(async () => (await chat(apiKey)).code, { interval: 20, timeout: 2_000 }).toBe(code);
      expect(performance.now() - from).toBeLessThan(1_000);
    };
    await within(await changeTo('changing', { concurrency: 2 }), 'concurrency_limit_exceeded');
    await within(await changeTo('changing', { concurrency: 3 }), undefined);
    await within(await changeTo('changing', { concurrency: 1 }), 'concurrency_limit_exceeded');
    await within(await changeTo('changing', null), undefined);
    expect((await Promise.all(running)).map(({ status }) => status)).toEqual([200, 200]);
  });

  it('is never zero: there is suspension for that', async () => {
    const apiKey = await tenantWith('zero', { limits: { requests_per_minute: 50 } });
    expect((await asOperator('POST', '/tenants/zero', { limits: { requests_per_minute: 0 } })).status).toBe(400);
    expect(policyOf(await chat(apiKey))).toEqual({ rpm: { q: 50, w: 60 } });
  });

  it('keeps what a bucket has used: raised and lowered again it is as empty as before', async () => {
    const apiKey = await tenantWith('bucket', { limits: { requests_per_minute: 6 } });
    for (let count = 0; count < 6; count++) expect((await chat(apiKey)).status).toBe(200);
    await changeTo('bucket', { requests_per_minute: 60 });
    await expect.poll(async () => policyOf(await chat(apiKey))['rpm']?.['q'], { timeout: 1_000 }).toBe(60);
    await changeTo('bucket', { requests_per_minute: 6 });
    await expect.poll(async () => (await chat(apiKey)).code, { timeout: 1_000 }).toBe('rate_limit_exceeded');
  });
});
