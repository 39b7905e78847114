/** What lies on the disk of an embedded installation: a sentence that was uploaded, indexed, said and answered is in no file of it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startBulkhead } from '../support/running-bulkhead.ts';

const adminToken = 'an-admin-token-for-tests';
const sentence = 'the qzwalnut desk of the qzharbour master';
const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-at-rest-'));
const config = (atRest = '') => `
auth: { adminToken: ${adminToken} }
tiers: { test: { weight: 1 } }
providers: [ { id: sim, kind: simulated, timeToFirstTokenMs: 0, tokensPerSecond: 1000000 } ]
models: [ { id: sim-fast, deployments: [ { provider: sim, model: sim-fast } ] } ]
${atRest}
`;
let key = '';
let responseId = '';

async function send(baseUrl: string, path: string, body?: unknown, headers: Record<string, string> = {}) {
  const answer = await fetch(baseUrl + path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${key}`, ...(body instanceof FormData ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body !== undefined && { body: body instanceof FormData ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${text}`);
  return JSON.parse(text) as Record<string, unknown>;
}

function filesWith(text: string): readonly string[] {
  return readdirSync(dataDir, { recursive: true })
    .map((name) => join(dataDir, String(name)))
    .filter((path) => statSync(path).isFile() && readFileSync(path).includes(text));
}

beforeAll(async () => {
  await using bulkhead = await startBulkhead({ dataDir, config: config() });
  const { baseUrl } = bulkhead;
  const admin = { authorization: `Bearer ${adminToken}` };
  await send(baseUrl, '/admin/v1/tenants', { id: 'talker', tier: 'test' }, admin);
  key = String((await send(baseUrl, '/admin/v1/tenants/talker/keys', { name: 'test' }, admin))['key']);
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File([`They met at ${sentence} after the storm.`], 'a.txt'));
  const file = await send(baseUrl, '/v1/files', form);
  const store = await send(baseUrl, '/v1/vector_stores', { name: 'store', file_ids: [file['id']] });
  while ((await send(baseUrl, `/v1/vector_stores/${String(store['id'])}`))['status'] !== 'completed') await wait(50);
  const asked = { model: 'sim-fast', input: `what stands at ${sentence}` };
  responseId = String((await send(baseUrl, '/v1/responses', asked, { 'idempotency-key': 'once' }))['id']);
  const found = await send(baseUrl, `/v1/vector_stores/${String(store['id'])}/search`, { query: 'qzwalnut' });
  expect(JSON.stringify(found)).toContain(sentence);
  expect(JSON.stringify(await send(baseUrl, `/v1/responses/${responseId}/input_items`))).toContain(sentence);
});
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

it('is searched for where it would be: the words of full-text search are found', () => {
  expect(filesWith('qzwalnut').length).toBeGreaterThan(0);
});

it('holds the sentence in no file', () => {
  expect(filesWith(sentence)).toEqual([]);
});

it('holds no key that anybody but its owner may read', () => {
  expect(statSync(join(dataDir, 'at-rest.key')).mode & 0o777).toBe(0o600);
});

it('does not start with another master key, says what to do, and starts with the right one', async () => {
  const kept = readFileSync(join(dataDir, 'at-rest.key'), 'utf8');
  writeFileSync(join(dataDir, 'at-rest.key'), `${Buffer.alloc(32, 1).toString('base64')}\n`);
  await expect(startBulkhead({ dataDir, config: config() })).rejects.toThrow(
    /encrypted under the master key local:[0-9a-f]{16}.*Put that key back/s,
  );
  writeFileSync(join(dataDir, 'at-rest.key'), 'not a key');
  await expect(startBulkhead({ dataDir, config: config() })).rejects.toThrow('openssl rand -base64 32');
  writeFileSync(join(dataDir, 'at-rest.key'), kept);
  await using bulkhead = await startBulkhead({ dataDir, config: config(`atRest: { key: "${kept.trim()}" }`) });
  expect(JSON.stringify(await send(bulkhead.baseUrl, `/v1/responses/${responseId}/input_items`))).toContain(sentence);
});
