/** `/admin/v1/tenants`: who the tenants are and which keys they hold. */
import { z } from 'zod';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { validateBody } from '../gateway/validate.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Tenant } from '../tenancy/tenant.ts';
import type { ApiKeyRecord, TenantRegistry } from '../tenancy/tenant-directory.ts';
import { type GiveDatabase, givenDatabaseOf, givenDatabaseSchema } from './given-database.ts';
import { budgetOf, budgetSchema, limitsOf, limitsSchema, overridesOf, overridesSchema, teamName } from './limit-fields.ts';
import { apiKeyShape, tenantShape } from './shapes.ts';

/** Port: makes a key's text and the record that may be kept of it. `auth/` implements it. */
export interface ApiKeyIssuer {
  issue(key: {
    readonly tenantId: TenantId;
    readonly name: string;
    readonly environment: 'live' | 'test';
    readonly limits: ApiKeyRecord['limits'];
    readonly budget?: ApiKeyRecord['budget'];
    readonly team?: ApiKeyRecord['team'];
    readonly expiresAtMs: number | undefined;
  }): { readonly key: string; readonly record: Omit<ApiKeyRecord, 'createdAtMs' | 'revokedAtMs'> };
}

export interface TenantRouteParts {
  readonly operator: OperatorScope;
  readonly registry: TenantRegistry;
  readonly keys: ApiKeyIssuer;
  readonly tierNames: ReadonlySet<string>;
  /** Makes the database of a tenant that was created siloed. */
  readonly settle: (tenantId: TenantId) => Promise<void>;
  readonly giveDatabase: GiveDatabase;
  readonly nowMs: () => number;
}

const newTenantSchema = z.strictObject({
  id: z.string(),
  name: z.string().min(1).max(256).optional(),
  tier: z.string().max(32).optional(),
  isolation: z.enum(['pooled', 'siloed']).optional(),
  ...givenDatabaseSchema,
  ...overridesSchema,
});
const tenantChangesSchema = z.strictObject({
  name: z.string().min(1).max(256).optional(),
  tier: z.string().max(32).optional(),
  ...overridesSchema,
});
const newKeySchema = z.strictObject({
  name: z.string().min(1).max(256),
  environment: z.enum(['live', 'test']).optional(),
  limits: limitsSchema.nullish(),
  budget: budgetSchema.nullish(),
  team: teamName.optional(),
  expires_in_seconds: z.number().int().min(1).max(315_360_000).optional(),
});
const revocationSchema = z.strictObject({ subject: z.string().min(1).max(256).optional() });

const base = '/admin/v1/tenants';

/** The routes, bound to what they need. */
export function tenantRoutes(parts: TenantRouteParts): readonly OperatorRoute[] {
  const route = (
    method: OperatorRoute['method'],
    path: string,
    body: OperatorRoute['body'],
    handle: OperatorRoute['handle'],
  ): OperatorRoute => ({
    auth: 'operator',
    spends: false,
    method,
    path: base + path,
    body,
    handle,
  });
  return [
    route('POST', '', 'json', (exchange) => createTenant(parts, exchange)),
    route('GET', '', 'none', (exchange) => listTenants(parts, exchange)),
    route('GET', '/:tenantId', 'none', async (exchange) => ok(tenantShape(await requireTenant(parts, exchange)))),
    route('POST', '/:tenantId', 'json', (exchange) => updateTenant(parts, exchange)),
    route('POST', '/:tenantId/suspend', 'optional-json', (exchange) => changeState(parts, exchange, 'suspended')),
    route('POST', '/:tenantId/resume', 'optional-json', (exchange) => changeState(parts, exchange, 'active')),
    route('POST', '/:tenantId/keys', 'json', (exchange) => createKey(parts, exchange)),
    route('GET', '/:tenantId/keys', 'none', (exchange) => listKeys(parts, exchange)),
    route('DELETE', '/:tenantId/keys/:keyId', 'none', (exchange) => revokeKey(parts, exchange)),
    route('POST', '/:tenantId/revocations', 'optional-json', (exchange) => revokeTokens(parts, exchange)),
  ];
}

async function createTenant(parts: TenantRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const body = validateBody(newTenantSchema, exchange.body);
  const id = parseTenantId(body.id);
  if (id === undefined) throw new BulkheadError('invalid_value', 'must match ^[a-z0-9][a-z0-9-]{1,62}$', { param: 'id' });
  const isolation = body.isolation ?? 'pooled';
  const given = givenDatabaseOf(body, isolation);
  const tenant = await parts.registry.create(parts.operator, {
    id,
    name: body.name ?? id,
    tier: requireTier(parts, body.tier ?? 'free'),
    isolation,
    overrides: overridesOf(body),
  });
  if (given !== undefined) await parts.giveDatabase(tenant.id, given);
  if (isolation === 'siloed') await parts.settle(tenant.id);
  return { kind: 'json', status: 201, body: tenantShape(tenant) };
}

async function listTenants(parts: TenantRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const limit = Math.min(Math.max(Number(exchange.query.get('limit') ?? 100) || 100, 1), 1_000);
  const page = await parts.registry.list(parts.operator, { limit, after: exchange.query.get('after') ?? undefined });
  return ok({ object: 'list', data: page.items.map(tenantShape), ...edges(page.items), has_more: page.hasMore });
}

async function updateTenant(parts: TenantRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const body = validateBody(tenantChangesSchema, exchange.body);
  const before = await requireTenant(parts, exchange);
  const after = await parts.registry.update(parts.operator, before.id, {
    name: body.name,
    tier: body.tier === undefined ? undefined : requireTier(parts, body.tier),
    overrides: { ...before.overrides, ...overridesOf(body) },
  });
  return ok(tenantShape(after ?? before));
}

async function changeState(parts: TenantRouteParts, exchange: Exchange, state: 'active' | 'suspended'): Promise<JsonAnswer> {
  const tenant = await requireTenant(parts, exchange);
  refuseDeleting(tenant);
  const changed = await parts.registry.update(parts.operator, tenant.id, { state });
  return ok(tenantShape(changed ?? tenant));
}

async function createKey(parts: TenantRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const body = validateBody(newKeySchema, exchange.body);
  const tenant = await requireTenant(parts, exchange);
  refuseDeleting(tenant);
  const expiresAtMs = body.expires_in_seconds === undefined ? undefined : parts.nowMs() + body.expires_in_seconds * 1_000;
  const issued = parts.keys.issue({
    tenantId: tenant.id,
    name: body.name,
    environment: body.environment ?? 'live',
    limits: limitsOf(body.limits),
    budget: body.budget ? budgetOf(body.budget) : undefined,
    team: body.team,
    expiresAtMs,
  });
  const record = await parts.registry.createApiKey(parts.operator, issued.record);
  return { kind: 'json', status: 201, body: { ...apiKeyShape(record), key: issued.key } };
}

async function listKeys(parts: TenantRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const tenant = await requireTenant(parts, exchange);
  const keys = await parts.registry.listApiKeys(parts.operator, tenant.id);
  return ok({ object: 'list', data: keys.map(apiKeyShape), ...edges(keys), has_more: false });
}

async function revokeKey(parts: TenantRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const tenant = await requireTenant(parts, exchange);
  const keyId = exchange.params['keyId'] ?? '';
  const revoked = await parts.registry.revokeApiKey(parts.operator, tenant.id, keyId);
  if (!revoked) throw new BulkheadError('not_found', `there is no live key ${quoteInput(keyId)}`);
  return ok({ id: keyId, object: 'api_key', revoked: true });
}

async function revokeTokens(parts: TenantRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const body = validateBody(revocationSchema, exchange.body);
  const tenant = await requireTenant(parts, exchange);
  await parts.registry.revokeSubject(parts.operator, tenant.id, body.subject);
  return ok({ object: 'revocation', tenant: tenant.id, subject: body.subject ?? null });
}

async function requireTenant(parts: TenantRouteParts, exchange: Exchange): Promise<Tenant> {
  const text = exchange.params['tenantId'] ?? '';
  const id = parseTenantId(text);
  const tenant = id === undefined ? undefined : await parts.registry.find(id);
  if (tenant === undefined) throw new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
  return tenant;
}

/** What is being erased is neither brought back nor given keys. */
function refuseDeleting({ state }: Tenant): void {
  if (state === 'deleting') throw new BulkheadError('not_ready', 'This tenant is being erased.');
}

function requireTier(parts: TenantRouteParts, tier: string): string {
  if (!parts.tierNames.has(tier)) {
    throw new BulkheadError('invalid_value', `there is no tier ${quoteInput(tier)}; tiers are ${[...parts.tierNames].join(', ')}`, {
      param: 'tier',
    });
  }
  return tier;
}

function edges(items: readonly { readonly id: string }[]) {
  return { first_id: items[0]?.id ?? null, last_id: items.at(-1)?.id ?? null };
}

function ok(body: unknown): JsonAnswer {
  return { kind: 'json', status: 200, body };
}
