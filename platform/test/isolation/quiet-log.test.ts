/** Nothing a tenant said, stored or proved itself with reaches the log, the journal or the metrics, at the noisiest level. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const adminToken = 'admin-token-that-must-stay-secret';
const canary = 'qzcnry7halvorsenrebate';
const config = `
auth: { adminToken: ${adminToken} }
tiers: { test: { weight: 1 } }
logging: { level: debug }
providers:
  - { id: sim, kind: simulated, timeToFirstTokenMs: 0, tokensPerSecond: 1000000, concurrency: 8 }
  - { id: gone, kind: openai-compatible, baseUrl: "http://127.0.0.1:9/v1", apiKey: provider-key-that-must-stay-secret }
models:
  - { id: sim-fast, deployments: [ { provider: sim, model: sim-fast } ] }
  - { id: gone, deployments: [ { provider: gone, model: gone } ] }
`;

let bulkhead: RunningBulkhead;
let key = '';
const answers: number[] = [];

async function send(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<string> {
  const answer = await fetch(bulkhead.baseUrl + path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${key}`, ...(body instanceof FormData ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body !== undefined && { body: body instanceof FormData ? body : JSON.stringify(body) }),
  });
  answers.push(answer.status);
  return answer.text();
}

beforeAll(async () => {
  bulkhead = await startBulkhead({ config });
  const admin = { authorization: `Bearer ${adminToken}` };
  await send('/admin/v1/tenants', { id: 'talker', tier: 'test' }, admin);
  const created = JSON.parse(await send('/admin/v1/tenants/talker/keys', { name: canary }, admin)) as { readonly key: string };
  key = created.key;
  const chat = (model: string, stream: boolean) => ({
    model,
    stream,
    user: canary,
    messages: [{ role: 'user', content: `tell ${canary}` }],
    max_tokens: 20,
  });
  await send('/v1/chat/completions', chat('sim-fast', false), { 'x-client-request-id': 'client-1' });
  await send('/v1/chat/completions', chat('sim-fast', true));
  await send('/v1/chat/completions', chat('gone', false));
  await send('/v1/chat/completions', { model: canary, messages: [] });
  await send(`/v1/models?api_key=${key}`);
  // Every 62nd key ends with any one letter.
  await send('/v1/models', undefined, { authorization: `Bearer ${key.slice(0, -1)}${key.endsWith('x') ? 'y' : 'x'}` });
  await send('/v1/embeddings', { model: 'local-hash-384', input: canary });
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File([`the ${canary} of the house`], `${canary}.pdf`));
  const file = JSON.parse(await send('/v1/files', form)) as { readonly id: string };
  await send('/v1/vector_stores', { name: canary, file_ids: [file.id] });
  await send('/v1/responses', { model: 'sim-fast', input: canary, metadata: { note: canary } });
  const store = JSON.parse(await send('/v1/vector_stores')) as { readonly data: readonly { readonly id: string }[] };
  const status = async () => (JSON.parse(await send(`/v1/vector_stores/${store.data[0]?.id}`)) as { readonly status: string }).status;
  while ((await status()) !== 'completed') await setTimeout(50);
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
});

const secrets = () => ({
  'the key': key,
  "the key's secret": key.slice(17),
  'the admin token': adminToken,
  "the provider's key": 'provider-key-that-must-stay-secret',
  'the canary': canary,
});

function expectSilence(text: string): void {
  for (const [name, secret] of Object.entries(secrets())) expect(text.includes(secret), name).toBe(false);
}

describe('after a noisy day', () => {
  it('everything was really tried: successes and every kind of refusal', () => {
    expect(new Set(answers)).toEqual(new Set([200, 201, 400, 401, 502]));
  });

  it('the log has a line for every request and no secret, no content', () => {
    const log = bulkhead.log();
    expect(log).toContain('"msg":"answered"');
    expect(log).toContain('client-1');
    expect(log).toContain('talker');
    expectSilence(log);
    for (const line of log.trim().split('\n')) expect(() => JSON.parse(line)).not.toThrow();
  });

  it('the journal has counts and no content', async () => {
    await bulkhead.stop('SIGKILL');
    const folder = join(bulkhead.dataDir, 'journal');
    for (const name of readdirSync(folder)) expectSilence(readFileSync(join(folder, name), 'utf8'));
  });
});
