/** What a database's vector stores were made with is checked at the start: a change says so instead of mixing what cannot be compared. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const adminToken = 'admin-token-of-the-embedding-test';
const configured = (rest: string) => `
auth: { adminToken: ${adminToken} }
tiers: { test: { weight: 1 } }
providers: [ { id: sim, kind: simulated } ]
${rest}`;
const withModel = (dimensions: number, kind = 'embedding') =>
  configured(`embedding: { model: other }
models: [ { id: other, kind: ${kind}, dimensions: ${dimensions}, deployments: [ { provider: sim, model: other } ] } ]`);

async function makeStore(bulkhead: RunningBulkhead, tenant: string): Promise<void> {
  const send = async (path: string, credential: string, body: unknown) => {
    const headers = { authorization: `Bearer ${credential}`, 'content-type': 'application/json' };
    const answer = await fetch(bulkhead.baseUrl + path, { method: 'POST', headers, body: JSON.stringify(body) });
    expect(answer.ok).toBe(true);
    return (await answer.json()) as { readonly key: string };
  };
  await send('/admin/v1/tenants', adminToken, { id: tenant, tier: 'test' });
  const { key } = await send(`/admin/v1/tenants/${tenant}/keys`, adminToken, { name: 'k' });
  await send('/v1/vector_stores', key, { name: 'first' });
}

it('another embedding model is welcome until there is a store, and refused by a sentence afterwards; another language is welcome', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-embedding-'));
  const started = async (config: string, work: (bulkhead: RunningBulkhead) => Promise<void> = async () => {}) => {
    await using bulkhead = await startBulkhead({ dataDir, config });
    await work(bulkhead);
  };
  try {
    await started(withModel(768));
    await started(configured(''), (bulkhead) => makeStore(bulkhead, 'acme'));
    await expect(started(withModel(768))).rejects.toThrow(
      'The vector stores of this database were embedded by local-hash-384 with 384 dimensions; the configuration says other with 768.',
    );
    await started(configured('retrieval: { language: german }'), (bulkhead) => makeStore(bulkhead, 'globex'));
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});

it.each([
  ['retrieval.language: klingon is none of simple, arabic', configured('retrieval: { language: klingon }')],
  ['models.0.dimensions: vectors can have 384, 768, 1024, 1536, 3072 dimensions, not 500', withModel(500)],
  ['embedding.model: other is not of kind embedding', withModel(384, 'chat')],
])('refuses at the start: %s', async (sentence, config) => {
  await expect(startBulkhead({ config })).rejects.toThrow(sentence);
});
