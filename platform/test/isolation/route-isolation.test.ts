/**
 * Every route of the table, as the wrong caller: a foreign id answers exactly as an absent one, a tenant's key opens no operator route and the admin
 * token no tenant route, and nothing can choose a tenant. The table is enumerated, so a new route with a new kind of id fails here until it has a case.
 * Faults that were planted and seen: a route that answers 403 for a foreign file; a route left out of the kinds below.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { surfaces } from '../../src/app/surfaces.ts';
import type { Route } from '../../src/gateway/route.ts';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

/** The factories only keep their parts for later, so the table can be listed without a server. */
const routes: readonly Route[] = surfaces({ path: {}, config: { tiers: {}, bounds: {} }, identity: {}, lifecycle: {} } as never);
const tenantRoutes = routes.filter((route) => route.auth === 'tenant');
const withIds = tenantRoutes.filter((route) => /:(?!modelId)/.test(route.path));

const absent: Readonly<Record<string, string>> = {
  storeId: 'vs_00000000000000000000000000',
  fileId: 'file-00000000000000000000000000',
  batchId: 'vsfb_00000000000000000000000000',
  responseId: 'resp_00000000000000000000000000',
};
const bodies: Readonly<Record<string, unknown>> = {
  'POST /v1/vector_stores/:storeId': { name: 'mine now' },
  'POST /v1/vector_stores/:storeId/search': { query: 'secret' },
  'POST /v1/vector_stores/:storeId/files': { file_id: absent['fileId'] },
  'POST /v1/vector_stores/:storeId/files/:fileId': { attributes: { taken: true } },
  'POST /v1/vector_stores/:storeId/file_batches': { file_ids: [absent['fileId']] },
};

/** What the body of each route can name, by the titles of the references below. */
const namedInBody: Readonly<Record<string, readonly string[]>> = {
  'POST /v1/chat/completions': [],
  'POST /v1/embeddings': [],
  'POST /v1/responses': ['a store in file search', 'a response to continue'],
  'POST /v1/files': [],
  'POST /v1/vector_stores': ['a file in a new store'],
  'POST /v1/vector_stores/:storeId': [],
  'POST /v1/vector_stores/:storeId/search': [],
  'POST /v1/vector_stores/:storeId/files': ['a file attached to one’s own store'],
  'POST /v1/vector_stores/:storeId/files/:fileId': [],
  'POST /v1/vector_stores/:storeId/file_batches': [
    'a file in a batch for one’s own store',
    'a described file in a batch for one’s own store',
  ],
  'POST /v1/vector_stores/:storeId/file_batches/:batchId/cancel': [],
};

let bulkhead: RunningBulkhead;
let owned: Readonly<Record<string, string>>;

beforeAll(async () => {
  bulkhead = await startBulkhead();
  const store = await asTenant('acme', 'POST', '/v1/vector_stores', { name: 'acme only' });
  const form = new FormData();
  form.set('purpose', 'assistants');
  form.set('file', new File(['the secret of acme'], 'secret.txt'));
  const upload = await fetch(`${bulkhead.baseUrl}/v1/files`, {
    method: 'POST',
    headers: { authorization: `Bearer ${bulkhead.tenant('acme').apiKey}` },
    body: form,
  });
  const file = (await upload.json()) as { readonly id: string };
  const storeId = idOf(store);
  const batch = await asTenant('acme', 'POST', `/v1/vector_stores/${storeId}/file_batches`, { file_ids: [file.id] });
  const response = await asTenant('acme', 'POST', '/v1/responses', { model: 'sim-fast', input: 'hello', max_output_tokens: 5 });
  owned = { storeId, fileId: file.id, batchId: idOf(batch), responseId: idOf(response) };
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
});

interface Answered {
  readonly status: number;
  readonly headers: readonly string[];
  readonly text: string;
}

async function send(
  credential: string,
  method: string,
  path: string,
  body?: unknown,
  extra: Readonly<Record<string, string>> = {},
): Promise<Answered> {
  const headers: Record<string, string> = { authorization: `Bearer ${credential}`, ...extra };
  if (body !== undefined) headers['content-type'] = 'application/json';
  const answer = await fetch(bulkhead.baseUrl + path, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) });
  return { status: answer.status, headers: [...answer.headers.keys()].toSorted(), text: await answer.text() };
}

function asTenant(tenant: string, method: string, path: string, body?: unknown): Promise<Answered> {
  return send(bulkhead.tenant(tenant).apiKey, method, path, body);
}

function idOf(answer: Answered): string {
  expect(answer.status).toBe(200);
  return (JSON.parse(answer.text) as { readonly id: string }).id;
}

/** Ids and the request's own id have one length each; masked, equal answers are equal. */
function masked({ status, headers, text }: Answered) {
  return { status, headers, text: text.replaceAll(/(vs_|file-|vsfb_|resp_|req_)[0-9a-z]{26}/g, '$1') };
}

function pathWith(route: Route, ids: Readonly<Record<string, string>>): string {
  return route.path.replaceAll(/:(\w+)/g, (_, name: string) => {
    const id = ids[name];
    if (id === undefined) throw new Error(`${route.path} has an id of a kind this test does not know: ${name}`);
    return id;
  });
}

describe('another tenant’s things', () => {
  it.each(withIds.map((route) => [`${route.method} ${route.path}`, route] as const))(
    '%s answers for them as for absent ones',
    async (name, route) => {
      const body = bodies[name];
      if (route.body === 'json') expect(body, 'a body for this route').toBeDefined();
      const foreign = await asTenant('globex', route.method, pathWith(route, owned), body);
      const nothing = await asTenant('globex', route.method, pathWith(route, absent), body);
      expect(foreign.status).toBe(404);
      expect(masked(foreign)).toEqual(masked(nothing));
      expect(foreign.text).not.toContain('secret of acme');
    },
  );

  it.each(tenantRoutes.filter((route) => route.body !== 'none').map((route) => `${route.method} ${route.path}`))(
    '%s is known to name things in its body, or not to',
    (name) => {
      expect(namedInBody[name], 'add the route to namedInBody, and what it names to the references below').toBeDefined();
      for (const title of namedInBody[name] ?? []) expect(references.map(([known]) => known)).toContain(title);
    },
  );

  type Reference = (ids: Readonly<Record<string, string>>) => { readonly path: string; readonly body: unknown };
  const references: readonly (readonly [string, Reference])[] = [
    [
      'a file attached to one’s own store',
      (ids) => ({ path: `/v1/vector_stores/${bulkhead.tenant('globex').vectorStoreId}/files`, body: { file_id: ids['fileId'] } }),
    ],
    [
      'a file in a batch for one’s own store',
      (ids) => ({
        path: `/v1/vector_stores/${bulkhead.tenant('globex').vectorStoreId}/file_batches`,
        body: { file_ids: [ids['fileId']] },
      }),
    ],
    [
      'a described file in a batch for one’s own store',
      (ids) => ({
        path: `/v1/vector_stores/${bulkhead.tenant('globex').vectorStoreId}/file_batches`,
        body: { files: [{ file_id: ids['fileId'] }] },
      }),
    ],
    ['a file in a new store', (ids) => ({ path: '/v1/vector_stores', body: { name: 'x', file_ids: [ids['fileId']] } })],
    [
      'a store in file search',
      (ids) => ({
        path: '/v1/responses',
        body: { model: 'sim-fast', input: 'secret?', tools: [{ type: 'file_search', vector_store_ids: [ids['storeId']] }] },
      }),
    ],
    [
      'a response to continue',
      (ids) => ({ path: '/v1/responses', body: { model: 'sim-fast', input: 'go on', previous_response_id: ids['responseId'] } }),
    ],
  ];
  it.each(references)('cannot be referred to: %s', async (_, make) => {
    const attempt = (ids: Readonly<Record<string, string>>) => asTenant('globex', 'POST', make(ids).path, make(ids).body);
    const foreign = await attempt(owned);
    expect(foreign.status).toBe(404);
    expect(masked(foreign)).toEqual(masked(await attempt(absent)));
  });

  it.each(['/v1/files', '/v1/vector_stores'])('are no cursor of %s', async (path) => {
    const cursor = path.endsWith('files') ? 'fileId' : 'storeId';
    const foreign = await asTenant('globex', 'GET', `${path}?after=${owned[cursor]}`);
    const nothing = await asTenant('globex', 'GET', `${path}?after=${absent[cursor]}`);
    expect(masked(foreign)).toEqual(masked(nothing));
    expect(foreign.status).toBe(400);
  });

  it('are all still there for their owner', async () => {
    for (const path of [`/v1/files/${owned['fileId']}`, `/v1/vector_stores/${owned['storeId']}`, `/v1/responses/${owned['responseId']}`]) {
      expect((await asTenant('acme', 'GET', path)).status).toBe(200);
    }
  });
});

describe('ids inside one’s own store', () => {
  it.each(withIds.filter((route) => /:storeId.*:/.test(route.path)).map((route) => [`${route.method} ${route.path}`, route] as const))(
    '%s answers for another tenant’s file or batch as for an absent one',
    async (name, route) => {
      const storeId = bulkhead.tenant('globex').vectorStoreId;
      const foreign = await asTenant('globex', route.method, pathWith(route, { ...owned, storeId }), bodies[name]);
      const nothing = await asTenant('globex', route.method, pathWith(route, { ...absent, storeId }), bodies[name]);
      expect(foreign.status).toBe(404);
      expect(masked(foreign)).toEqual(masked(nothing));
    },
  );
});

describe('another tenant’s things, through the operator’s routes', () => {
  /** Beside the tenant's own id; a new kind fails `pathWith`. */
  const nested = routes.filter((route) => route.auth === 'operator' && /:tenantId.*:/.test(route.path));
  it.each(nested.map((route) => [`${route.method} ${route.path}`, route] as const))(
    '%s looks inside the named tenant alone',
    async (_, route) => {
      const admin = bulkhead.quickstart().adminToken;
      const listed = await send(admin, 'GET', '/admin/v1/tenants/acme/keys');
      const [key] = (JSON.parse(listed.text) as { readonly data: readonly { readonly id: string }[] }).data;
      const foreign = await send(admin, route.method, pathWith(route, { tenantId: 'globex', keyId: key?.id ?? '' }));
      const nothing = await send(admin, route.method, pathWith(route, { tenantId: 'globex', keyId: 'x'.repeat(key?.id.length ?? 0) }));
      expect(foreign.status).toBe(404);
      expect(foreign.text.replace(key?.id ?? '', 'x'.repeat(key?.id.length ?? 0)).replace(/req_\w+/, '')).toBe(
        nothing.text.replace(/req_\w+/, ''),
      );
      expect((await asTenant('acme', 'GET', '/v1/models')).status).toBe(200);
    },
  );
});

describe('the wrong credential', () => {
  it.each(routes.filter((route) => route.auth === 'operator').map((route) => [`${route.method} ${route.path}`, route] as const))(
    '%s refuses tenants and strangers',
    async (_, route) => {
      const path = route.path.replace(':tenantId', 'acme').replace(/:\w+/, 'x');
      const body = route.body === 'json' ? {} : undefined;
      expect((await asTenant('acme', route.method, path, body)).status).toBe(401);
      expect((await send('', route.method, path, body)).status).toBe(401);
    },
  );

  it.each(tenantRoutes.map((route) => [`${route.method} ${route.path}`, route] as const))(
    '%s refuses the admin token, and any choice of a tenant',
    async (_, route) => {
      const path = pathWith(route, { ...absent, modelId: 'sim-fast' });
      const body = route.body === 'json' || route.body === 'optional-json' ? {} : undefined;
      expect((await send(bulkhead.quickstart().adminToken, route.method, path, body)).status).toBe(401);
      const { apiKey } = bulkhead.tenant('globex');
      expect((await send(apiKey, route.method, path, body, { 'x-tenant-id': 'acme' })).status).toBe(400);
      expect((await send(apiKey, route.method, `${path}?tenant_id=acme`, body)).status).toBe(400);
      if (body !== undefined) expect((await send(apiKey, route.method, path, { tenant_id: 'acme' })).status).toBe(400);
    },
  );

  it('is not needed for health, and shows no tenant on /metrics', async () => {
    await asTenant('acme', 'GET', '/v1/models');
    const open = await fetch(`${bulkhead.baseUrl}/metrics`);
    expect(open.status).toBe(200);
    expect(await open.text()).not.toMatch(/acme|globex|initech/);
    const full = await send(bulkhead.quickstart().adminToken, 'GET', '/metrics');
    expect(full.text).toContain('tenant="acme"');
  });
});

describe('routes that reach a provider', () => {
  it('are declared as spending', () => {
    const spending = routes.filter((route) => route.spends).map((route) => `${route.method} ${route.path}`);
    expect(spending.toSorted()).toEqual([
      'POST /v1/chat/completions',
      'POST /v1/embeddings',
      'POST /v1/responses',
      'POST /v1/vector_stores/:storeId/search',
    ]);
  });
});
