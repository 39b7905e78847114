/** Limits as the control plane reads and writes them: snake_case, money in dollars. `null` clears what a tenant was given beside its tier. */
import { z } from 'zod';
import { isTimeZone } from '../primitives/calendar-period.ts';
import { formatUsd, nanoUsd } from '../primitives/money.ts';
import {
  type BudgetPolicy,
  isTeamName,
  type LimitPolicy,
  type ScopePolicy,
  type SessionPolicy,
  type TenantOverrides,
} from '../tenancy/tenant.ts';

const positiveInt = z.number().int().min(1).max(1_000_000_000);
export const limitsSchema = z.strictObject({
  requests_per_minute: positiveInt.nullish(),
  tokens_per_minute: positiveInt.nullish(),
  input_tokens_per_minute: positiveInt.nullish(),
  output_tokens_per_minute: positiveInt.nullish(),
  concurrency: positiveInt.nullish(),
});
export const budgetSchema = z.strictObject({
  usd: z.number().min(0.000_001).max(9_000_000),
  period: z.enum(['day', 'week', 'month']).default('month'),
  on_exhausted: z.enum(['refuse', 'warn']).default('refuse'),
});
export const teamName = z.string().refine(isTeamName, 'must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$');
const scopeSchema = z.strictObject({ limits: limitsSchema.nullish(), budget: budgetSchema.nullish() });
const sessionSchema = z.strictObject({
  limits: limitsSchema.nullish(),
  usd_max: z.number().min(0.000_001).max(9_000_000).nullish(),
  calls_max: positiveInt.nullish(),
  duration_max_ms: positiveInt.nullish(),
});
const teamsMax = 1_000;

export const overridesSchema = {
  weight: z.number().positive().max(1_000_000).nullish(),
  limits: limitsSchema.nullish(),
  budget: budgetSchema.nullish(),
  models: z.array(z.string().min(1).max(128)).max(1_000).nullish(),
  per_team: scopeSchema.nullish(),
  per_user: scopeSchema.nullish(),
  per_session: sessionSchema.nullish(),
  teams: z
    .record(teamName, scopeSchema)
    .refine((teams) => Object.keys(teams).length <= teamsMax, `at most ${teamsMax}`)
    .nullish(),
  time_zone: z.string().refine(isTimeZone, 'must be an IANA time zone, for example Europe/Berlin').nullish(),
};

const overrideFields = z.object(overridesSchema);
type OverrideFields = Partial<z.output<typeof overrideFields>>;
type LimitFields = z.output<typeof limitsSchema>;

/** An absent field leaves an override as it was. */
export function overridesOf(body: OverrideFields): TenantOverrides {
  return {
    ...(body.weight !== undefined && { weight: body.weight ?? undefined }),
    ...(body.limits !== undefined && { limits: body.limits === null ? undefined : limitsOf(body.limits) }),
    ...(body.budget !== undefined && { budget: body.budget === null ? undefined : budgetOf(body.budget) }),
    ...(body.models !== undefined && { models: body.models ?? undefined }),
    ...(body.per_team !== undefined && { perTeam: scopeOf(body.per_team) }),
    ...(body.per_user !== undefined && { perUser: scopeOf(body.per_user) }),
    ...(body.per_session !== undefined && { perSession: sessionOf(body.per_session) }),
    ...(body.teams !== undefined && { teams: body.teams === null ? undefined : teamsOf(body.teams) }),
    ...(body.time_zone !== undefined && { timeZone: body.time_zone ?? undefined }),
  };
}

export function limitsOf(limits: LimitFields | null | undefined): LimitPolicy {
  return {
    ...(limits?.requests_per_minute && { requestsPerMinute: limits.requests_per_minute }),
    ...(limits?.tokens_per_minute && { tokensPerMinute: limits.tokens_per_minute }),
    ...(limits?.input_tokens_per_minute && { inputTokensPerMinute: limits.input_tokens_per_minute }),
    ...(limits?.output_tokens_per_minute && { outputTokensPerMinute: limits.output_tokens_per_minute }),
    ...(limits?.concurrency && { concurrency: limits.concurrency }),
  };
}

export function budgetOf({ usd, period, on_exhausted: onExhausted }: z.output<typeof budgetSchema>): BudgetPolicy {
  return { limitNanoUsd: Math.round(usd * 1e9), period, isHard: onExhausted === 'refuse' };
}

export function overridesShape(overrides: TenantOverrides) {
  return {
    weight: overrides.weight ?? null,
    limits: limitsShape(overrides.limits ?? {}),
    budget: budgetShape(overrides.budget),
    models: overrides.models ?? null,
    per_team: scopeShape(overrides.perTeam),
    per_user: scopeShape(overrides.perUser),
    per_session: sessionShape(overrides.perSession),
    teams: Object.fromEntries(Object.entries(overrides.teams ?? {}).map(([name, policy]) => [name, scopeShape(policy)])),
    time_zone: overrides.timeZone ?? null,
  };
}

export function limitsShape(limits: LimitPolicy) {
  return {
    requests_per_minute: limits.requestsPerMinute ?? null,
    tokens_per_minute: limits.tokensPerMinute ?? null,
    input_tokens_per_minute: limits.inputTokensPerMinute ?? null,
    output_tokens_per_minute: limits.outputTokensPerMinute ?? null,
    concurrency: limits.concurrency ?? null,
  };
}

export function budgetShape(budget: BudgetPolicy | undefined) {
  if (budget === undefined) return null;
  const { limitNanoUsd, period, isHard } = budget;
  return { usd: formatUsd(nanoUsd(BigInt(limitNanoUsd))), period, on_exhausted: isHard ? 'refuse' : 'warn' };
}

function scopeShape(policy: ScopePolicy | undefined) {
  return policy === undefined ? null : { limits: limitsShape(policy.limits ?? {}), budget: budgetShape(policy.budget) };
}

function scopeOf(policy: z.output<typeof scopeSchema> | null): ScopePolicy | undefined {
  return policy === null ? undefined : { limits: limitsOf(policy.limits), ...(policy.budget && { budget: budgetOf(policy.budget) }) };
}

function teamsOf(teams: Readonly<Record<string, z.output<typeof scopeSchema>>>): Readonly<Record<string, ScopePolicy>> {
  return Object.fromEntries(Object.entries(teams).map(([name, policy]) => [name, scopeOf(policy) ?? {}]));
}

function sessionOf(policy: z.output<typeof sessionSchema> | null): SessionPolicy | undefined {
  if (policy === null) return undefined;
  const { limits, usd_max: usdMax, calls_max: callsMax, duration_max_ms: durationMaxMs } = policy;
  return {
    limits: limitsOf(limits),
    ...(usdMax && { costMaxNanoUsd: Math.round(usdMax * 1e9) }),
    ...(callsMax && { callsMax }),
    ...(durationMaxMs && { durationMaxMs }),
  };
}

function sessionShape(policy: SessionPolicy | undefined) {
  if (policy === undefined) return null;
  const { limits = {}, costMaxNanoUsd, callsMax, durationMaxMs } = policy;
  return {
    limits: limitsShape(limits),
    usd_max: costMaxNanoUsd === undefined ? null : formatUsd(nanoUsd(BigInt(costMaxNanoUsd))),
    calls_max: callsMax ?? null,
    duration_max_ms: durationMaxMs ?? null,
  };
}
