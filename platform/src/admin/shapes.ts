/** The control plane's JSON: snake_case, times in whole seconds, money as decimal strings of dollars and integer nano-dollars. */
import { formatUsd } from '../primitives/money.ts';
import type { Tenant } from '../tenancy/tenant.ts';
import type { ApiKeyRecord } from '../tenancy/tenant-directory.ts';
import type { UsageRow } from '../tenancy/usage.ts';
import { budgetShape, limitsShape, overridesShape } from './limit-fields.ts';

export function tenantShape(tenant: Tenant) {
  return {
    id: tenant.id,
    object: 'tenant',
    name: tenant.name,
    tier: tenant.tier,
    state: tenant.state,
    isolation: tenant.isolation,
    ...overridesShape(tenant.overrides),
    created_at: Math.floor(tenant.createdAtMs / 1_000),
  };
}

export function apiKeyShape(key: ApiKeyRecord) {
  return {
    id: key.id,
    object: 'api_key',
    tenant: key.tenantId,
    name: key.name,
    environment: key.environment,
    last_four: key.lastFour,
    team: key.team ?? null,
    limits: limitsShape(key.limits),
    budget: budgetShape(key.budget),
    created_at: Math.floor(key.createdAtMs / 1_000),
    expires_at: secondsOrNull(key.expiresAtMs),
    revoked_at: secondsOrNull(key.revokedAtMs),
  };
}

export function usageShape(row: UsageRow) {
  return {
    object: 'usage',
    tenant: row.tenantId,
    ...(row.model !== undefined && { model: row.model }),
    ...(row.keyId !== undefined && { key: row.keyId }),
    ...(row.day !== undefined && { day: row.day }),
    ...(row.endpoint !== undefined && { endpoint: row.endpoint }),
    requests: row.requests,
    input_tokens: row.inputTokens,
    cached_input_tokens: row.cachedInputTokens,
    output_tokens: row.outputTokens,
    cost_usd: formatUsd(row.cost),
    cost_nano_usd: row.cost.toString(),
    unpriced_requests: row.unpricedRequests,
    estimated_requests: row.estimatedRequests,
  };
}

function secondsOrNull(timeMs: number | undefined): number | null {
  return timeMs === undefined ? null : Math.floor(timeMs / 1_000);
}
