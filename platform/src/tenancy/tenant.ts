import type { TenantId } from '../primitives/ids.ts';

export type TenantState = 'active' | 'suspended' | 'deleting';
export type TenantIsolation = 'pooled' | 'siloed';

/** Rates are per minute; `undefined` means no such limit. All values are whole and at least 1. */
export interface LimitPolicy {
  readonly requestsPerMinute?: number | undefined;
  readonly tokensPerMinute?: number | undefined;
  readonly concurrency?: number | undefined;
}

/** What a tier grants. Tier names are configuration. */
export interface TierPolicy {
  readonly name: string;
  /** Share of a saturated pool relative to other tenants, greater than 0. */
  readonly weight: number;
  readonly limits: LimitPolicy;
  /** Public model ids this tier may use; `undefined` means all. */
  readonly models?: readonly string[] | undefined;
}

/** A tenant's own deviations from its tier. */
export interface TenantOverrides {
  readonly weight?: number | undefined;
  readonly limits?: LimitPolicy | undefined;
  readonly models?: readonly string[] | undefined;
}

export interface Tenant {
  readonly id: TenantId;
  readonly name: string;
  readonly tier: string;
  readonly state: TenantState;
  readonly isolation: TenantIsolation;
  readonly overrides: TenantOverrides;
  readonly createdAtMs: number;
}

/** The tier's policy with the tenant's own deviations laid over it. */
export function effectivePolicy(tenant: Tenant, tier: TierPolicy): TierPolicy {
  return {
    name: tier.name,
    weight: tenant.overrides.weight ?? tier.weight,
    limits: { ...tier.limits, ...tenant.overrides.limits },
    models: tenant.overrides.models ?? tier.models,
  };
}
