/** The queue of a running server, as its operator sees it: once, and as a stream of events. */
import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const adminToken = 'an-admin-token-for-tests';
const config = JSON.stringify({
  auth: { adminToken },
  tiers: { test: { weight: 1 } },
  providers: [{ id: 'sim', kind: 'simulated', timeToFirstTokenMs: 20, tokensPerSecond: 400, concurrency: 4 }],
  models: [{ id: 'chat', deployments: [{ provider: 'sim', model: 'chat', limits: { concurrency: 4 } }] }],
});
let bulkhead: RunningBulkhead;
const keys = new Map<string, string>();

interface Pool {
  readonly capacity: number;
  readonly queued: number;
  readonly utilisation: number | null;
  readonly tenants: readonly {
    readonly tenant: string;
    readonly queued: number;
    readonly started: number;
    readonly received_share: number;
    readonly entitled_share: number | null;
    readonly wait_ms: { readonly p99: number };
    readonly shed: Readonly<Record<string, number>>;
    readonly waited_for: readonly { readonly tenant: string; readonly ms: number }[];
  }[];
}

const asOperator = { authorization: `Bearer ${adminToken}` };

async function post(path: string, body: unknown, token = adminToken) {
  const answer = await fetch(`${bulkhead.baseUrl}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

async function poolNow(): Promise<Pool | undefined> {
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1/fairness`, { headers: asOperator });
  return ((await answer.json()) as { readonly data: readonly Pool[] }).data[0];
}

const chat = (tenant: string, maxTokens: number, headers = {}) =>
  fetch(`${bulkhead.baseUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${keys.get(tenant)}`, 'content-type': 'application/json', ...headers },
    body: JSON.stringify({
      model: 'chat',
      messages: [{ role: 'user', content: 'Tell a long story about the sea.' }],
      max_tokens: maxTokens,
    }),
  });

beforeAll(async () => {
  bulkhead = await startBulkhead({ config });
  for (const id of ['noisy', 'quiet']) {
    await post('/admin/v1/tenants', { id, tier: 'test' });
    keys.set(id, String((await post(`/admin/v1/tenants/${id}/keys`, { name: 'test' })).body['key']));
  }
});
afterAll(() => bulkhead[Symbol.asyncDispose]());

describe('the fairness report', () => {
  it('shows a flood, that the quiet tenant does not notice it, and whom it waited for', async () => {
    // Half of it under names of its own for each request.
    const flood = Array.from({ length: 120 }, (_, index) =>
      chat('noisy', 60, index % 2 === 0 ? {} : { 'x-session-id': `minted-${index}` }),
    );
    await wait(500);
    const quiet: number[] = [];
    for (let count = 0; count < 6; count++) {
      const from = performance.now();
      expect((await chat('quiet', 5)).status).toBe(200);
      quiet.push(performance.now() - from);
    }
    const pool = await poolNow();
    const of = (tenant: string) => pool?.tenants.find((each) => each.tenant === tenant);
    expect(pool).toMatchObject({ capacity: 4, utilisation: 1 });
    expect(of('noisy')?.queued).toBeGreaterThan(20);
    expect(of('noisy')?.shed['tenant_queue_full']).toBeGreaterThan(0);
    expect(of('quiet')).toMatchObject({ started: 6, shed: {} });
    expect(of('quiet')?.waited_for[0]?.tenant ?? 'noisy').toBe('noisy');
    expect(of('noisy')?.received_share).toBeGreaterThan(0.5);
    const answers = await Promise.all(flood);
    for (const answer of answers) await answer.arrayBuffer();
    expect(answers.filter(({ status }) => status === 200).length).toBeGreaterThan(90);
    // A place in the queue behind 100 requests of 0.15 s on four slots would be four seconds.
    expect(Math.max(...quiet)).toBeLessThan(2_000);
  });

  it('comes as a stream of events, one a second, until the watcher leaves', async () => {
    const abort = new AbortController();
    const headers = { ...asOperator, accept: 'text/event-stream' };
    const answer = await fetch(`${bulkhead.baseUrl}/admin/v1/fairness`, { headers, signal: abort.signal });
    expect(answer.headers.get('content-type')).toContain('text/event-stream');
    let text = '';
    for await (const part of answer.body as ReadableStream<Uint8Array>) {
      text += Buffer.from(part).toString();
      if (text.split('\n\n').length > 2) break;
    }
    abort.abort();
    const [first = ''] = text.split('\n\n');
    expect(first).toMatch(/^event: fairness\ndata: \{/);
    const report = JSON.parse(first.slice(first.indexOf('{'))) as { readonly object: string; readonly data: readonly unknown[] };
    expect(report.object).toBe('list');
    expect(report.data).toContainEqual(expect.objectContaining({ pool: 'chat', capacity: 4 }));
  });

  it('is for operators alone, and nothing a client sends changes a share', async () => {
    for (const path of ['', '?stream=true']) {
      const answer = await fetch(`${bulkhead.baseUrl}/admin/v1/fairness${path}`, {
        headers: { authorization: `Bearer ${keys.get('quiet')}` },
      });
      expect(answer.status).toBe(401);
    }
    expect((await chat('quiet', 5, { 'x-tenant-id': 'noisy' })).status).toBe(400);
    const weight = (tenant: string) => poolNow().then((pool) => pool?.tenants.find((each) => each.tenant === tenant));
    for (const header of ['x-priority', 'x-bulkhead-weight', 'x-llm-d-inference-fairness-id']) {
      expect((await chat('quiet', 5, { [header]: '1000000' })).status).toBe(200);
    }
    expect(await weight('quiet')).toMatchObject({ weight: 1 });
  });

  // Planted: a ticket without the session; a ticket without the conversation.
  it('lets a run and a conversation go on beside a script of the same key', async () => {
    const respond = (previous: string | null) =>
      fetch(`${bulkhead.baseUrl}/v1/responses`, {
        method: 'POST',
        headers: { authorization: `Bearer ${keys.get('quiet')}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'chat', input: 'Go on.', max_output_tokens: 16, previous_response_id: previous }),
      });
    const queueMsOf = async (asked: Promise<Response>) => {
      const answer = await asked;
      await answer.arrayBuffer();
      expect(answer.status).toBe(200);
      return Number(answer.headers.get('x-bulkhead-queue-ms'));
    };
    const begunRun = async () => {
      await queueMsOf(chat('quiet', 5, { 'x-session-id': 'run' }));
      return () => chat('quiet', 5, { 'x-session-id': 'run' });
    };
    const begunConversation = async () => {
      const { id } = (await (await respond(null)).json()) as { readonly id: string };
      return () => respond(id);
    };
    for (const begun of [begunRun, begunConversation]) {
      const next = await begun();
      const others = Array.from({ length: 60 }, () => queueMsOf(chat('quiet', 60)));
      await wait(150);
      const nextMs = await queueMsOf(next());
      const othersMs = (await Promise.all(others)).toSorted((left, right) => left - right);
      // In order of arrival it would wait about as long as the last of them.
      expect(nextMs).toBeLessThan((othersMs.at(-1) ?? 0) / 3);
    }
  });
});
