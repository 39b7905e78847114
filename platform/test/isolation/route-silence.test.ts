/**
 * Every route of the table, once with success and several times with failure, a canary in everything a caller can write: path, query, body, form,
 * file and its name, key names, idempotency key. Log, metrics and journal hold none of it, and no secret. A new route fails here until `successes` has it.
 * Faults that were planted and seen, both in server.ts: the request's target in its log line; the path in place of the route's pattern in the metrics.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { surfaces } from '../../src/app/surfaces.ts';
import type { Route } from '../../src/gateway/route.ts';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

const adminToken = 'admin-token-that-must-stay-secret';
const canary = 'qzcnry7halvorsenrebate';
const config = `
auth: { adminToken: ${adminToken} }
tiers: { test: { weight: 1 } }
logging: { level: debug }
providers:
  - { id: sim, kind: simulated, timeToFirstTokenMs: 0, tokensPerSecond: 1000000, concurrency: 8 }
models:
  - { id: sim-fast, deployments: [ { provider: sim, model: sim-fast } ] }
`;
/** The factories only keep their parts for later, so the table can be listed without a server. */
const routes: readonly Route[] = surfaces({ path: {}, config: { tiers: {}, bounds: {} }, identity: {}, lifecycle: {} } as never);
const nameOf = (route: Route) => `${route.method} ${route.path}`;

let bulkhead: RunningBulkhead;
let key = '';
let metrics = '';
/** Route -> statuses it gave. */
const seen = new Map<string, Set<number>>();
const ids: Record<string, string> = { tenantId: 'talker', modelId: 'sim-fast' };

type Body = Readonly<Record<string, unknown>> | FormData | undefined;

async function send(
  route: Route,
  path: string,
  body: Body,
  headers: Readonly<Record<string, string>> = {},
): Promise<Readonly<Record<string, unknown>>> {
  const credential = route.auth === 'tenant' ? key : adminToken;
  const answer = await fetch(bulkhead.baseUrl + path, {
    method: route.method,
    headers: {
      authorization: `Bearer ${credential}`,
      ...(body && !(body instanceof FormData) && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: body instanceof FormData ? body : JSON.stringify(body) }),
  });
  seen.set(nameOf(route), (seen.get(nameOf(route)) ?? new Set()).add(answer.status));
  const text = await answer.text();
  return text.startsWith('{') ? (JSON.parse(text) as Readonly<Record<string, unknown>>) : {};
}

const filled = (path: string, values: Readonly<Record<string, string>>) =>
  path.replaceAll(/:(\w+)/g, (_, name: string) => values[name] ?? canary);

function upload(purpose = 'assistants'): FormData {
  const form = new FormData();
  form.set('purpose', purpose);
  form.set('file', new File([`the ${canary} of the house`], `${canary}.md`));
  return form;
}

/** Body and what to remember of the answer, in an order in which each finds what it needs. */
type Success = readonly [route: string, body: () => Body, remember?: string];
const nothing = () => undefined;
const messages = [{ role: 'user', content: `tell ${canary}` }];
const store = '/v1/vector_stores/:storeId';
const tenant = '/admin/v1/tenants/:tenantId';
const successes: readonly Success[] = [
  ['POST /admin/v1/tenants', () => ({ id: 'talker', tier: 'test', name: canary })],
  [`POST ${tenant}/keys`, () => ({ name: canary }), 'keyId'],
  // Before the failures, one of which begins an audit that this one would have to wait for.
  ['POST /admin/v1/audits', () => ({ kind: 'smoke' }), 'auditId'],
  ['POST /v1/files', upload, 'fileId'],
  ['POST /v1/vector_stores', () => ({ name: canary, metadata: { note: canary } }), 'storeId'],
  [`POST ${store}/files`, () => ({ file_id: ids['fileId'], attributes: { note: canary } })],
  [`POST ${store}/file_batches`, () => ({ file_ids: [ids['fileId']] }), 'batchId'],
  ['POST /v1/responses', () => ({ model: 'sim-fast', input: canary, metadata: { note: canary } }), 'responseId'],
  ['POST /v1/chat/completions', () => ({ model: 'sim-fast', messages, user: canary, stream: true, max_tokens: 20 })],
  ['POST /v1/embeddings', () => ({ model: 'local-hash-384', input: canary })],
  [`POST ${store}/search`, () => ({ query: canary })],
  [store.replace('/v1', 'POST /v1'), () => ({ name: `new ${canary}` })],
  [`POST ${store}/files/:fileId`, () => ({ attributes: { note: canary } })],
  [`POST ${store}/file_batches/:batchId/cancel`, () => ({})],
  [`POST ${tenant}`, () => ({ name: `new ${canary}` })],
  [`POST ${tenant}/revocations`, () => ({ subject: canary })],
  ...['', '/:modelId'].map((path): Success => [`GET /v1/models${path}`, nothing]),
  ...['', '/:fileId', '/:fileId/content'].map((path): Success => [`GET /v1/files${path}`, nothing]),
  ...['', '/:storeId'].map((path): Success => [`GET /v1/vector_stores${path}`, nothing]),
  ...['files', 'files/:fileId', 'files/:fileId/content', 'file_batches/:batchId', 'file_batches/:batchId/files'].map(
    (path): Success => [`GET ${store}/${path}`, nothing],
  ),
  ...['', '/input_items'].map((path): Success => [`GET /v1/responses/:responseId${path}`, nothing]),
  [`POST ${tenant}/move`, () => ({ to: 'siloed' })],
  [`POST ${tenant}/placement`, () => ({ to: 'automatic' })],
  ...['', '/keys', '/usage', '/move', '/placement', '/embedding'].map((path): Success => [`GET ${tenant}${path}`, nothing]),
  [`POST ${tenant}/data-keys`, nothing],
  [`GET ${tenant}/data-keys`, nothing],
  ['POST /admin/v1/at-rest/rewrap', () => ({ dry_run: true })],
  ['POST /admin/v1/deployments', () => ({ id: 'sim/sim-fast', to: 'auto' })],
  ...['at-rest', 'tenants', 'usage', 'fairness', 'prices', 'deployments'].map((path): Success => [`GET /admin/v1/${path}`, nothing]),
  ...['/livez', '/readyz', '/metrics', '/console', '/console/console.css', '/console/console.js'].map(
    (path): Success => [`GET ${path}`, nothing],
  ),
  [`DELETE ${store}/files/:fileId`, nothing],
  [`DELETE ${store}`, nothing],
  ['DELETE /v1/files/:fileId', nothing],
  ['DELETE /v1/responses/:responseId', nothing],
  ...['', '/:auditId'].map((path): Success => [`GET /admin/v1/audits${path}`, nothing]),
  [`POST ${tenant}/suspend`, () => ({})],
  [`POST ${tenant}/resume`, () => ({})],
  [`DELETE ${tenant}/keys/:keyId`, nothing],
  [`POST ${tenant}/suspend`, () => ({})],
  [`POST ${tenant}/export`, nothing],
  [`GET ${tenant}/export`, nothing, 'export'],
  [`GET ${tenant}/export/archive`, nothing],
  ['POST /admin/v1/imports', () => ({ file: `${ids['tenantId']}.tar`, as: 'listener' })],
  [`DELETE ${tenant}`, nothing],
  [`GET ${tenant}/erasure`, nothing],
  ...['receipts', 'signing-key'].map((path): Success => [`GET /admin/v1/${path}`, nothing]),
];

/** Each with the canary somewhere else. Runs before the successes that end things, on a tenant and a key that exist. */
async function fail(route: Route): Promise<void> {
  const json: Body =
    route.body === 'none'
      ? undefined
      : { [canary]: canary, model: canary, name: { canary }, query: [canary], input: canary, file_ids: canary };
  const body = route.body === 'multipart' ? upload(canary) : json;
  const wrong = { tenantId: canary, keyId: canary };
  await send(route, filled(route.path, wrong), body);
  await send(route, `${filled(route.path, wrong)}?after=${canary}&limit=${canary}&group_by=${canary}&x=${canary}`, body);
  await send(route, `${filled(route.path, wrong)}/${canary}`, body);
  await send(route, filled(route.path, wrong), body, { authorization: `Bearer ${canary}` });
  await send(route, filled(route.path, wrong), body, { 'x-tenant-id': canary, 'idempotency-key': canary });
  if (route.method !== 'GET') {
    await send(route, filled(route.path, wrong), body, { 'idempotency-key': canary });
    await send(route, filled(route.path, wrong), undefined, { 'content-type': canary });
  }
}

/** What runs in the background: a move, after which the tenant may be erased, and an export. */
async function untilCompleted(part: 'move' | 'export'): Promise<void> {
  const path = `/admin/v1/tenants/${ids['tenantId']}/${part}`;
  for (;;) {
    const answer = await fetch(bulkhead.baseUrl + path, { headers: { authorization: `Bearer ${adminToken}` } });
    const { status } = (await answer.json()) as { readonly status: string };
    if (status === 'completed') return;
    if (!answer.ok || status === 'failed') throw new Error(`the ${part} ended with ${answer.status} ${status}`);
    await setTimeout(100);
  }
}

beforeAll(async () => {
  bulkhead = await startBulkhead({ config });
  const byName = new Map(routes.map((route) => [nameOf(route), route]));
  for (const [name, body, remember] of successes) {
    const route = byName.get(name);
    if (route === undefined) throw new Error(`there is no route ${name}`);
    if (name === `DELETE ${store}/files/:fileId`) for (const each of routes) await fail(each);
    if (name === `POST ${tenant}/export`) await untilCompleted('move');
    if (name === `GET ${tenant}/export/archive`) await untilCompleted('export');
    const answer = await send(route, filled(route.path, ids), body());
    if (remember !== undefined) ids[remember] = String(answer['id']);
    if (remember === 'keyId') key = String(answer['key']);
  }
  await setTimeout(200);
  metrics = await (await fetch(`${bulkhead.baseUrl}/metrics`, { headers: { authorization: `Bearer ${adminToken}` } })).text();
}, 240_000);
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
});

function expectSilence(text: string): void {
  const secrets = { 'the key': key, "the key's secret": key.slice(17), 'the admin token': adminToken, 'the canary': canary };
  for (const [name, secret] of Object.entries(secrets)) {
    const at = text.indexOf(secret);
    expect(at, `${name} in: ${text.slice(Math.max(0, at - 200), at + 60)}`).toBe(-1);
  }
}

describe('every route', () => {
  it.each(routes.map((route) => [nameOf(route), route] as const))('%s succeeded and was refused', (name, route) => {
    const statuses = [...(seen.get(name) ?? [])];
    expect(
      statuses.some((status) => status < 300),
      `a success among ${statuses.join(' ')}`,
    ).toBe(true);
    // Open routes take anything; the rest was tried with what must not pass.
    if (route.auth !== 'none')
      expect(
        statuses.some((status) => status >= 400),
        `a refusal among ${statuses.join(' ')}`,
      ).toBe(true);
    expect(statuses.filter((status) => status >= 500)).toEqual([]);
  });

  it('is in the log by its pattern, with no secret and no content', () => {
    const log = bulkhead.log();
    for (const route of routes) expect(log).toContain(`"route":"${route.path}"`);
    expectSilence(log);
    for (const line of log.trim().split('\n')) expect(() => JSON.parse(line)).not.toThrow();
  });

  it('is in the metrics by its pattern, with no secret, no content, and labels that nobody can invent', () => {
    for (const route of routes) expect(metrics).toContain(`route="${route.path}",method="${route.method}"`);
    expectSilence(metrics);
    const labels = new Set([...metrics.matchAll(/(\w+)="/g)].map((match) => String(match[1])));
    expect([...labels].toSorted()).toEqual([
      'code',
      'deployment',
      'le',
      'method',
      'model',
      'operation',
      'outcome',
      'route',
      'status',
      'tenant',
      'tier',
      'type',
    ]);
    const deployments = new Set([...metrics.matchAll(/deployment="([^"]*)"/g)].map((match) => String(match[1])));
    expect([...deployments].toSorted()).toEqual(['local/local-hash-384', 'sim/sim-fast']);
    // The audit that was begun names its own tenants.
    const named = new Set([...metrics.matchAll(/(?:tenant|model)="(?!canary-\d)([^"]*)"/g)].map((match) => String(match[1])));
    expect([...named].toSorted()).toEqual(['local-hash-384', 'sim-fast', 'talker']);
  });

  it('left nothing in the journal', async () => {
    await bulkhead.stop('SIGKILL');
    const folder = join(bulkhead.dataDir, 'journal');
    for (const name of readdirSync(folder)) expectSilence(readFileSync(join(folder, name), 'utf8'));
  });
});
