/** Suspending a tenant ends what is running for it with an error in its dialect, bills what was delivered, gives back what was held, and touches nobody else. */
import { setTimeout as wait } from 'node:timers/promises';
import OpenAI, { APIError } from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const adminToken = 'an-admin-token-for-tests';
/** So slow that a stream would run for minutes, and one slot, so that one kept would be noticed. */
const config = JSON.stringify({
  auth: { adminToken },
  tiers: { test: { weight: 1, limits: { concurrency: 1 } } },
  providers: [{ id: 'sim', kind: 'simulated', timeToFirstTokenMs: 1, tokensPerSecond: 4, concurrency: 4 }],
  models: [{ id: 'slow', deployments: [{ provider: 'sim', model: 'slow' }] }],
});
let bulkhead: RunningBulkhead;
const clients = new Map<string, OpenAI>();
const keyIds = new Map<string, string>();

async function asOperator(method: string, path: string, body?: unknown) {
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${adminToken}`, ...(body !== undefined && { 'content-type': 'application/json' }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

beforeAll(async () => {
  bulkhead = await startBulkhead({ config });
  for (const id of ['acme', 'globex']) {
    await asOperator('POST', '/tenants', { id, tier: 'test' });
    const { body } = await asOperator('POST', `/tenants/${id}/keys`, { name: 'test' });
    keyIds.set(id, String(body['id']));
    clients.set(id, new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: String(body['key']), maxRetries: 0 }));
  }
});
afterAll(() => bulkhead[Symbol.asyncDispose]());

const clientOf = (tenant: string) => clients.get(tenant) as OpenAI;
const question = [{ role: 'user' as const, content: 'Write a very long story about the sea, the ships and everybody in the harbour.' }];

/** Reads a stream to its end; resolves with what was received and how it ended. */
async function readChat(tenant: string, onFirst: () => void) {
  let chunks = 0;
  try {
    const stream = await clientOf(tenant).chat.completions.create({ model: 'slow', messages: question, stream: true, max_tokens: 3_000 });
    for await (const _ of stream) if (++chunks === 1) onFirst();
    return { chunks, error: undefined };
  } catch (error) {
    return { chunks, error: error as APIError };
  }
}

async function readResponse(tenant: string, onFirst: () => void) {
  let events = 0;
  try {
    const stream = await clientOf(tenant).responses.create({ model: 'slow', input: question[0]?.content ?? '', stream: true });
    for await (const event of stream) if (event.type === 'response.output_text.delta' && ++events === 1) onFirst();
    return { chunks: events, error: undefined };
  } catch (error) {
    return { chunks: events, error: error as APIError };
  }
}

async function usageOf(tenant: string): Promise<{ readonly requests: number; readonly output: number }> {
  const { body } = await asOperator('GET', `/tenants/${tenant}/usage?group_by=model`);
  const [row] = body['data'] as readonly Record<string, number>[];
  return { requests: row?.['requests'] ?? 0, output: row?.['output_tokens'] ?? 0 };
}

describe('a tenant that is suspended', () => {
  it.each([
    ['chat completions', readChat],
    ['responses', readResponse],
  ])('has its running stream of %s ended with an error event, billed and its slot given back', async (_, read) => {
    const before = await usageOf('acme');
    const first = Promise.withResolvers<void>();
    const reading = read('acme', first.resolve);
    await first.promise;
    await wait(300);
    const suspendedAtMs = performance.now();
    expect((await asOperator('POST', '/tenants/acme/suspend')).body).toMatchObject({ state: 'suspended' });
    const { chunks, error } = await reading;
    expect(performance.now() - suspendedAtMs).toBeLessThan(5_000);
    expect(chunks).toBeGreaterThan(0);
    expect(error).toBeInstanceOf(APIError);
    expect(error?.code).toBe('tenant_suspended');
    await expect(clientOf('acme').models.list()).rejects.toMatchObject({ status: 403, code: 'tenant_suspended' });
    const after = await usageOf('acme');
    expect(after.requests).toBe(before.requests + 1);
    expect(after.output).toBeGreaterThan(before.output);
    await asOperator('POST', '/tenants/acme/resume');
    // Its one slot is free again at once.
    const short = await clientOf('acme').chat.completions.create({ model: 'slow', messages: question, max_tokens: 1 });
    expect(short.choices[0]?.finish_reason).toBe('length');
  });

  it('has nothing of its stores in memory any more, and finds them again afterwards', async () => {
    const partitions = async () => {
      const answer = await fetch(`${bulkhead.baseUrl}/metrics`, { headers: { authorization: `Bearer ${adminToken}` } });
      return Number(/^bulkhead_resident_partitions (\d+)$/m.exec(await answer.text())?.[1]);
    };
    const client = clientOf('acme');
    const store = await client.vectorStores.create({ name: 'notes' });
    await client.vectorStores.files.uploadAndPoll(store.id, new File(['The harbour opens at six.'], 'harbour.txt'));
    const find = async () => (await client.vectorStores.search(store.id, { query: 'When does the harbour open?' })).data.length;
    expect(await find()).toBe(1);
    await expect.poll(partitions, { timeout: 10_000 }).toBe(1);
    // Planted: forgetting a tenant whatever changes of it, also at the second look two seconds later.
    await asOperator('POST', '/tenants/acme', { limits: { concurrency: 1 } });
    await wait(2_500);
    expect(await partitions()).toBe(1);
    await asOperator('POST', '/tenants/acme/suspend');
    await expect.poll(partitions, { timeout: 5_000 }).toBe(0);
    await asOperator('POST', '/tenants/acme/resume');
    await expect.poll(find, { timeout: 5_000 }).toBe(1);
  });

  it('takes nobody else along', async () => {
    const first = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
    const theirs = readChat('globex', first[0].resolve);
    const ours = readChat('acme', first[1].resolve);
    await Promise.all(first.map(({ promise }) => promise));
    await asOperator('POST', '/tenants/acme/suspend');
    expect((await ours).error?.code).toBe('tenant_suspended');
    await asOperator('POST', '/tenants/acme/resume');
    const state = await Promise.race([theirs.then(() => 'ended'), wait(2_500, 'running')]);
    expect(state).toBe('running');
    // A key that is revoked ends its streams too, and this test with it.
    await asOperator('DELETE', `/tenants/globex/keys/${keyIds.get('globex')}`);
    expect((await theirs).error?.code).toBe('invalid_api_key');
  });
});
