/** The HTTP edge over a tiny route table, with tenants that exist in memory only. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { SpoolFolder } from '../../../src/adapters/spool-folder/spool-folder.ts';
import { credentialOf, refuseTenantSelection } from '../../../src/auth/credentials.ts';
import { BulkheadError } from '../../../src/errors/bulkhead-error.ts';
import type { EventWriter, TenantExchange } from '../../../src/gateway/exchange.ts';
import type { Route } from '../../../src/gateway/route.ts';
import { createGateway, type Gateway, type GatewayParts } from '../../../src/gateway/server.ts';
import { systemClock } from '../../../src/primitives/clock.ts';
import { parseTenantId, systemIds } from '../../../src/primitives/ids.ts';
import type { LogFields, Logger } from '../../../src/telemetry/logger.ts';
import type { IdempotencyCabinet, IdempotencyClaim, TenantCapabilities } from '../../../src/tenancy/capabilities.ts';
import { mintPrincipal } from '../../../src/tenancy/mint-principal.ts';
import { openTenantScope, type TenantScope } from '../../../src/tenancy/tenant-scope.ts';
import type { UploadSpool } from '../../../src/tenancy/upload-spool.ts';

export const secret = 'bh_live_secret-of-acme';
export const otherSecret = 'bh_live_secret-of-globex';
export const adminSecret = 'admin-secret';

export interface TestEdge extends AsyncDisposable {
  readonly gateway: Gateway;
  readonly port: number;
  readonly url: string;
  /** Every log record so far. */
  readonly log: readonly (LogFields & { readonly message: string })[];
  readonly acme: FakeCabinet;
}

export interface EdgeOptions {
  readonly routes?: readonly Route[];
  readonly bounds?: Partial<GatewayParts['bounds']>;
  readonly allowedHosts?: readonly string[];
  readonly spool?: UploadSpool;
}

const testBounds: GatewayParts['bounds'] = {
  bodyBytesMax: 1_048_576,
  uploadBytesMax: 1_048_576,
  uploadTimeoutMs: 10_000,
  spoolBytesMax: 16_777_216,
  bodyBytesInFlightMax: 16_777_216,
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 10_000,
  streamDurationMaxMs: 60_000,
  streamBacklogBytesMax: 262_144,
  shutdownGraceMs: 5_000,
};

export async function startEdge(options: EdgeOptions = {}): Promise<TestEdge> {
  const log: (LogFields & { readonly message: string })[] = [];
  const record = (fields: LogFields, message: string) => void log.push({ ...fields, message });
  const logger: Logger = { debug: record, info: record, warn: record, error: record };
  const acme = new FakeCabinet();
  const scopes = new Map([
    [secret, scopeOf('acme', acme)],
    [otherSecret, scopeOf('globex', new FakeCabinet())],
  ]);
  const directory = mkdtempSync(join(tmpdir(), 'bulkhead-spool-'));
  const gateway = createGateway({
    spool: options.spool ?? new SpoolFolder({ directory }),
    routes: [...basicRoutes, ...(options.routes ?? [])],
    bounds: { ...testBounds, ...options.bounds },
    authenticate: {
      tenant({ headers, rawHeaders, query }) {
        refuseTenantSelection(headers, query);
        const scope = scopes.get(credentialOf(headers, rawHeaders));
        if (scope === undefined) throw new BulkheadError('invalid_api_key', 'The API key is not valid.');
        return scope;
      },
      operator: (headers) => headers.authorization === `Bearer ${adminSecret}`,
    },
    clock: systemClock,
    ids: systemIds,
    logger,
    allowedHosts: options.allowedHosts,
  });
  const { port, url } = await gateway.listen({ host: '127.0.0.1', port: 0 });
  return {
    gateway,
    port,
    url,
    log,
    acme,
    async [Symbol.asyncDispose]() {
      await gateway.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

const facts = { spends: false } as const;

/** Echoes, so that a test sees what arrived. */
// biome-ignore format: a table
const basicRoutes: readonly Route[] = [
  {
    ...facts,
    auth: 'none',
    method: 'GET',
    path: '/livez',
    body: 'none',
    handle: async () => ({ kind: 'json', status: 200, body: { status: 'ok' } }),
  },
  { ...facts, auth: 'tenant', method: 'POST', path: '/v1/echo', body: 'json', handle: async (exchange) => echo(exchange) },
  { ...facts, auth: 'tenant', method: 'POST', path: '/v1/maybe', body: 'optional-json', handle: async (exchange) => echo(exchange) },
  { ...facts, auth: 'tenant', method: 'GET', path: '/v1/echo/:id', body: 'none', handle: async (exchange) => echo(exchange) },
  { ...facts, auth: 'tenant', method: 'DELETE', path: '/v1/echo/:id', body: 'none', handle: async (exchange) => echo(exchange) },
  {
    ...facts,
    auth: 'tenant',
    method: 'POST',
    path: '/v1/files',
    body: 'multipart',
    handle: async ({ upload }) => ({
      kind: 'json',
      status: 200,
      body: { fields: upload?.fields, filename: upload?.file?.filename, type: upload?.file?.contentType, bytes: upload?.file?.body.bytes },
    }),
  },
  {
    ...facts,
    auth: 'operator',
    method: 'POST',
    path: '/admin/v1/echo',
    body: 'json',
    handle: async (exchange) => ({ kind: 'json', status: 200, body: exchange.body }),
  },
];

async function echo({ scope, params, body }: TenantExchange) {
  return { kind: 'json', status: 200, body: { tenant: scope.tenantId, params, body } } as const;
}

/** A tenant POST route that streams what `run` sends. */
export function streamRoute(path: string, run: (writer: EventWriter, exchange: TenantExchange) => Promise<void>): Route {
  return {
    ...facts,
    auth: 'tenant',
    method: 'POST',
    path,
    body: 'json',
    handle: async (exchange) => ({ kind: 'events', run: (writer) => run(writer, exchange) }),
  };
}

export function tenantPost(path: string, handle: (exchange: TenantExchange) => Promise<unknown>): Route {
  return {
    ...facts,
    auth: 'tenant',
    method: 'POST',
    path,
    body: 'json',
    handle: async (exchange) => ({ kind: 'json', status: 200, body: await handle(exchange) }),
  };
}

function scopeOf(name: string, idempotency: IdempotencyCabinet): TenantScope {
  const tenantId = parseTenantId(name);
  if (tenantId === undefined) throw new Error('not a tenant id');
  const principal = mintPrincipal({ tenantId, kind: 'api-key', user: 'user', keyId: `key_${name}` });
  const tenant = { id: tenantId, name, tier: 'pro', state: 'active', isolation: 'pooled', overrides: {}, createdAtMs: 0 } as const;
  // The edge touches no other capability.
  const capabilities = { idempotency } as TenantCapabilities;
  return openTenantScope(principal, tenant, { name: 'pro', weight: 1, limits: {} }, { bind: () => capabilities });
}

type Kept = { readonly hash: string; answer?: { readonly status: number; readonly body: string } };

export class FakeCabinet implements IdempotencyCabinet {
  readonly kept = new Map<string, Kept>();

  async claim(route: string, key: string, bodySha256: string): Promise<IdempotencyClaim> {
    const known = this.kept.get(`${route} ${key}`);
    if (known === undefined) {
      this.kept.set(`${route} ${key}`, { hash: bodySha256 });
      return { kind: 'claimed' };
    }
    if (known.hash !== bodySha256) return { kind: 'mismatch' };
    return known.answer === undefined ? { kind: 'running' } : { kind: 'done', ...known.answer };
  }

  async complete(route: string, key: string, answer: { readonly status: number; readonly body: string }): Promise<void> {
    const known = this.kept.get(`${route} ${key}`);
    if (known !== undefined) known.answer = answer;
  }

  async release(route: string, key: string): Promise<void> {
    this.kept.delete(`${route} ${key}`);
  }
}

export interface ExpectedError {
  readonly status: number;
  readonly code: string;
  readonly param?: string | null;
}

/** The exact status and code, the four keys and the request id, and nothing of the secrets. */
export function expectError(
  answer: { readonly status: number; readonly headers: Readonly<Record<string, unknown>>; readonly body: string },
  expected: ExpectedError,
): void {
  expect({ status: answer.status, body: answer.body }).toMatchObject({ status: expected.status });
  const { error } = JSON.parse(answer.body) as { readonly error: Record<string, unknown> };
  expect(error['code']).toBe(expected.code);
  expect(Object.keys(error)).toEqual(expect.arrayContaining(['message', 'type', 'param', 'code', 'request_id']));
  if (expected.param !== undefined) expect(error['param']).toBe(expected.param);
  expect(answer.headers['x-request-id']).toMatch(/^req_[0-9a-z]{26}$/);
  expect(error['request_id']).toBe(answer.headers['x-request-id']);
  expect(String(error['message']).length).toBeLessThan(400);
  for (const word of [secret, otherSecret, adminSecret, 'FST_', 'HPE_', 'node:', '    at ']) expect(answer.body).not.toContain(word);
}
