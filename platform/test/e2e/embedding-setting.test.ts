/** A change of the configured embedding model embeds the stores anew, beside their searches; a model that stores still need must be there. */
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

/** A tenant's client of one process: what a key can do, and what the operator is told. */
class Tenant {
  readonly #bulkhead: RunningBulkhead;
  readonly #key: string;

  constructor(bulkhead: RunningBulkhead, key: string) {
    this.#bulkhead = bulkhead;
    this.#key = key;
  }

  async makeStore(texts: readonly string[]): Promise<string> {
    const { id } = await this.#send<{ id: string }>('/v1/vector_stores', { name: 'first' });
    for (const text of texts) {
      const form = new FormData();
      form.set('purpose', 'assistants');
      form.set('file', new Blob([text]), 'text.txt');
      const file = await this.#send<{ id: string }>('/v1/files', form);
      await this.#send(`/v1/vector_stores/${id}/files`, { file_id: file.id });
    }
    await until(async () => (await this.#send<{ status: string }>(`/v1/vector_stores/${id}`)).status === 'completed');
    return id;
  }

  async search(storeId: string, query: string): Promise<readonly string[]> {
    const page = await this.#send<{ data: { content: { text: string }[] }[] }>(`/v1/vector_stores/${storeId}/search`, { query });
    return page.data.map((item) => item.content[0]?.text ?? '');
  }

  #send<Answer>(path: string, body?: unknown): Promise<Answer> {
    return send<Answer>(this.#bulkhead, path, { credential: this.#key, body });
  }
}

async function send<Answer>(
  bulkhead: RunningBulkhead,
  path: string,
  { credential = adminToken, body }: { readonly credential?: string; readonly body?: unknown } = {},
): Promise<Answer> {
  const isForm = body instanceof FormData;
  const headers = { authorization: `Bearer ${credential}`, ...(!isForm && { 'content-type': 'application/json' }) };
  const sent = isForm ? body : JSON.stringify(body);
  const answer = await fetch(bulkhead.baseUrl + path, {
    method: body === undefined ? 'GET' : 'POST',
    headers,
    ...(body !== undefined && { body: sent }),
  });
  expect(answer.status, path).toBeLessThan(300);
  return (await answer.json()) as Answer;
}

async function addTenant(bulkhead: RunningBulkhead, id: string): Promise<string> {
  await send(bulkhead, '/admin/v1/tenants', { body: { id, tier: 'test' } });
  return (await send<{ key: string }>(bulkhead, `/admin/v1/tenants/${id}/keys`, { body: { name: 'k' } })).key;
}

const embeddingOf = async (bulkhead: RunningBulkhead, tenant: string) =>
  (await send<{ data: unknown }>(bulkhead, `/admin/v1/tenants/${tenant}/embedding`)).data;

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await new Promise((resolve) => setTimeout(resolve, 50));
}

it('a store follows the configured model, is searched all the while, and names the model that is missing', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'bulkhead-embedding-'));
  const started = async (config: string, work: (bulkhead: RunningBulkhead) => Promise<void> = async () => {}) => {
    await using bulkhead = await startBulkhead({ dataDir, config });
    await work(bulkhead);
  };
  const texts = ['The landlord repairs the roof.', 'The tenant pays the rent.'];
  let [key, storeId] = ['', ''];
  try {
    await started(configured(''), async (bulkhead) => {
      key = await addTenant(bulkhead, 'acme');
      storeId = await new Tenant(bulkhead, key).makeStore(texts);
      await addTenant(bulkhead, 'globex');
      expect(await embeddingOf(bulkhead, 'acme')).toEqual([
        { model: 'local-hash-384', dimensions: 384, vector_stores: 1, building: null, fault: null },
      ]);
      expect(await embeddingOf(bulkhead, 'globex')).toEqual([]);
    });
    // The simulated provider answers 384 numbers, whatever the configuration says of it.
    await started(withModel(768), async (bulkhead) => {
      await until(async () => {
        const [stores] = (await embeddingOf(bulkhead, 'acme')) as { model: string; fault: string | null }[];
        expect(stores?.model).toBe('local-hash-384');
        return stores?.fault === 'embedding_failed';
      });
      expect(await new Tenant(bulkhead, key).search(storeId, 'roof')).toHaveLength(2);
      // A new store is to be embedded by that model: what its question was embedded to does not fit, which is the model's fault and not a bug's.
      const empty = await new Tenant(bulkhead, key).makeStore([]);
      const refused = await fetch(`${bulkhead.baseUrl}/v1/vector_stores/${empty}/search`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: JSON.stringify({ query: 'roof' }),
      });
      expect(refused.status).toBe(502);
      expect(await refused.json()).toMatchObject({ error: { code: 'embedding_failed' } });
      await fetch(`${bulkhead.baseUrl}/v1/vector_stores/${empty}`, { method: 'DELETE', headers: { authorization: `Bearer ${key}` } });
      expect(bulkhead.log()).toContain('a vector store could not be embedded anew and serves as it is');
    });
    await started(withModel(384), async (bulkhead) => {
      const acme = new Tenant(bulkhead, key);
      const found = async () => (await acme.search(storeId, 'who repairs the roof')).toSorted();
      expect(await found()).toEqual(texts.toSorted());
      await until(async () => {
        expect(await found()).toEqual(texts.toSorted());
        const [stores] = (await embeddingOf(bulkhead, 'acme')) as { model: string; building: unknown }[];
        return stores?.model === 'other' && stores.building === null;
      });
      expect(await found()).toEqual(texts.toSorted());
      expect((await new Tenant(bulkhead, key).search(await acme.makeStore(['Another text.']), 'another')).length).toBe(1);
    });
    await expect(started(configured(''))).rejects.toThrow(
      'Vector stores of this database are embedded by other with 384 dimensions, which the configuration does not have.',
    );
    await expect(started(withModel(1_024))).rejects.toThrow('embedded by other with 384 dimensions');
    await started(withModel(384).replace('embedding: { model: other }', 'retrieval: { language: german }'), async (bulkhead) => {
      expect((await new Tenant(bulkhead, key).search(storeId, 'rent')).length).toBe(2);
      await until(async () => {
        const stores = (await embeddingOf(bulkhead, 'acme')) as { model: string }[];
        return stores.every(({ model }) => model === 'local-hash-384');
      });
    });
    await started(configured(''));
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}, 300_000);

it.each([
  ['retrieval.language: klingon is none of simple, arabic', configured('retrieval: { language: klingon }')],
  ['models.0.dimensions: vectors can have 384, 768, 1024, 1536, 3072 dimensions, not 500', withModel(500)],
  ['embedding.model: other is not of kind embedding', withModel(384, 'chat')],
])('refuses at the start: %s', async (sentence, config) => {
  await expect(startBulkhead({ config })).rejects.toThrow(sentence);
});
