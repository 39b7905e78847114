import type { PeriodKind } from '../primitives/calendar-period.ts';
import type { TenantId } from '../primitives/ids.ts';

export type TenantState = 'active' | 'suspended' | 'deleting';
export type TenantIsolation = 'pooled' | 'siloed';

/** Rates are per minute; `undefined` means no such limit. All values are whole and at least 1. */
export interface LimitPolicy {
  readonly requestsPerMinute?: number | undefined;
  /** Input and output together. */
  readonly tokensPerMinute?: number | undefined;
  readonly inputTokensPerMinute?: number | undefined;
  readonly outputTokensPerMinute?: number | undefined;
  readonly concurrency?: number | undefined;
}

/** Money for each calendar period of the tenant's time zone. */
export interface BudgetPolicy {
  /** Whole nano-dollars, below 2^53 (nine million dollars). */
  readonly limitNanoUsd: number;
  readonly period: PeriodKind;
  /** False: what is above it is served and reported. */
  readonly isHard: boolean;
}

/** What one team, key, user or session of a tenant may use, beside the limits of the tenant. */
export interface ScopePolicy {
  readonly limits?: LimitPolicy | undefined;
  readonly budget?: BudgetPolicy | undefined;
}

/** Team names travel into keys of limits and ledgers. */
export function isTeamName(value: unknown): value is string {
  return typeof value === 'string' && /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(value);
}

/** A session is a conversation or a run of an agent; it has no calendar. */
export interface SessionPolicy {
  readonly limits?: LimitPolicy | undefined;
  /** Nano-dollars of the whole session. */
  readonly costMaxNanoUsd?: number | undefined;
  readonly callsMax?: number | undefined;
  readonly durationMaxMs?: number | undefined;
}

/** For each member of a kind. */
export interface ScopePolicies {
  readonly perTeam?: ScopePolicy | undefined;
  readonly perUser?: ScopePolicy | undefined;
  readonly perSession?: SessionPolicy | undefined;
}

/** What a tier grants. Tier names are configuration. */
export interface TierPolicy extends ScopePolicies {
  readonly name: string;
  /** Share of a saturated pool relative to other tenants, greater than 0. */
  readonly weight: number;
  readonly limits: LimitPolicy;
  readonly budget?: BudgetPolicy | undefined;
  /** Public model ids this tier may use; `undefined` means all. */
  readonly models?: readonly string[] | undefined;
}

/** A tenant's own deviations from its tier. */
export interface TenantOverrides extends ScopePolicies {
  readonly weight?: number | undefined;
  readonly limits?: LimitPolicy | undefined;
  readonly budget?: BudgetPolicy | undefined;
  readonly models?: readonly string[] | undefined;
  /** Of single teams, by name; the others are held to `perTeam`. */
  readonly teams?: Readonly<Record<string, ScopePolicy>> | undefined;
  /** IANA name: when its days, weeks and months begin. UTC when absent. */
  readonly timeZone?: string | undefined;
}

export interface TenantPolicy extends TierPolicy {
  readonly teams: Readonly<Record<string, ScopePolicy>>;
  readonly timeZone: string;
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
export function effectivePolicy({ overrides }: Tenant, tier: TierPolicy): TenantPolicy {
  return {
    name: tier.name,
    weight: overrides.weight ?? tier.weight,
    limits: { ...tier.limits, ...overrides.limits },
    budget: overrides.budget ?? tier.budget,
    models: overrides.models ?? tier.models,
    perTeam: overrides.perTeam ?? tier.perTeam,
    perUser: overrides.perUser ?? tier.perUser,
    perSession: overrides.perSession ?? tier.perSession,
    teams: overrides.teams ?? {},
    timeZone: overrides.timeZone ?? 'UTC',
  };
}
