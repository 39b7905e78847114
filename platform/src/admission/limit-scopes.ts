/**
 * Whom a request counts for: the tenant, and in it the team, the key, the user and the session, each where its policy says anything. The tenant and the
 * team come from the verified credential; whom a request names beside them can only divide what its credential has.
 */
import { LRUCache } from 'lru-cache';
import { type PeriodKind, periodAt } from '../primitives/calendar-period.ts';
import { fnvHashOf } from '../primitives/fnv-hash.ts';
import type { BudgetPolicy, LimitPolicy, ScopePolicy, SessionPolicy } from '../tenancy/tenant.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { LimitScope, LimitScopeName, ScopeBudget } from './limit-store.ts';

export interface Caller {
  /** Who acts inside the tenant. */
  readonly user: string;
  /** A conversation or a run of an agent, as the client names it. */
  readonly session?: string | undefined;
}

type Place = Pick<LimitScope, 'key' | 'member'>;

/** Users of a tenant that are counted apart; those beyond share a few places, so that nobody gains by minting names. */
const usersPerTenantMax = 2_000;
const sharedPlaces = 64;
/** A place is given away after this long without a request. */
const placeKeptMs = 600_000;
const tenantsMax = 10_000;
const sessionKeptMs = 3_600_000;

export class LimitScopes {
  readonly #usersOf = new LRUCache<string, LRUCache<string, number>>({ max: tenantsMax });

  /** Outermost first. `nowMs` of the wall clock: periods of budgets are calendar ones. */
  of({ tenantId, policy, principal }: TenantScope, caller: Caller, nowMs: number): readonly LimitScope[] {
    const tenantKey = keyOf('t', tenantId);
    const scopes: LimitScope[] = [];
    const put = (scope: LimitScope) => {
      if (scope.name === 'tenant' || scope.budget !== undefined || !isEmpty(scope.limits)) scopes.push(scope);
    };
    const add = (name: LimitScopeName, place: Place, { limits = {}, budget }: ScopePolicy = {}) =>
      put({ name, ...place, limits, budget: budget && budgetOf(budget, policy.timeZone, nowMs) });
    add('tenant', { key: tenantKey }, policy);
    const { team, keyId, keyPolicy } = principal;
    if (team !== undefined) add('team', { key: `${tenantKey}:${keyOf('g', team)}`, member: team }, teamPolicyOf(policy, team));
    add('key', { key: `${tenantKey}:${keyOf('k', keyId)}`, member: keyId }, keyPolicy);
    if (policy.perUser === undefined && caller.session === undefined) return scopes;
    const user = this.#placeOf(tenantId, caller.user, nowMs);
    const userKey = `${tenantKey}:${keyOf('u', user)}`;
    add('user', { key: userKey, member: user }, policy.perUser);
    if (caller.session === undefined) return scopes;
    const { limits, costMaxNanoUsd }: SessionPolicy = policy.perSession ?? {};
    const budget = sessionBudget(costMaxNanoUsd, nowMs);
    put({ name: 'session', key: `${userKey}:${keyOf('s', caller.session)}`, member: caller.session, limits: limits ?? {}, budget });
    return scopes;
  }

  /** The user's own name while there is room, and a shared place otherwise. */
  #placeOf(tenantId: string, user: string, nowMs: number): string {
    const users = this.#usersOf.get(tenantId) ?? new LRUCache<string, number>({ max: usersPerTenantMax });
    this.#usersOf.set(tenantId, users);
    if (!users.has(user) && users.size === usersPerTenantMax) {
      const [oldest] = users.rvalues();
      if (oldest !== undefined && nowMs - oldest < placeKeptMs) return `shared place ${fnvHashOf(user) % sharedPlaces}`;
    }
    users.set(user, nowMs);
    return user;
  }
}

/** The limits that a request of this credential counts for, in a session or in none. */
export function limitsOver({ policy, principal }: TenantScope, session: string | undefined): readonly LimitPolicy[] {
  const { team, keyPolicy } = principal;
  const over = [
    policy.limits,
    team === undefined ? undefined : teamPolicyOf(policy, team)?.limits,
    keyPolicy?.limits,
    policy.perUser?.limits,
    session === undefined ? undefined : policy.perSession?.limits,
  ];
  return over.filter((limits) => limits !== undefined);
}

/** Own properties alone: a team may be called `constructor`. */
function teamPolicyOf(policy: TenantScope['policy'], team: string): ScopePolicy | undefined {
  return Object.hasOwn(policy.teams, team) ? policy.teams[team] : policy.perTeam;
}

function isEmpty(limits: NonNullable<ScopePolicy['limits']>): boolean {
  return Object.values(limits).every((limit) => limit === undefined);
}

function budgetOf({ limitNanoUsd, isHard, period }: BudgetPolicy, timeZone: string, nowMs: number): LimitScope['budget'] {
  return { limitNanoUsd, isHard, isKept: true, period: periodOf(period, timeZone, nowMs) };
}

/** A session costs what it costs until it is forgotten; the ledger knows nothing of it. */
function sessionBudget(limitNanoUsd: number | undefined, nowMs: number): ScopeBudget | undefined {
  if (limitNanoUsd === undefined) return undefined;
  return { limitNanoUsd, isHard: true, isKept: false, period: { id: 'session', endsAtMs: nowMs + sessionKeptMs } };
}

function periodOf(kind: PeriodKind, timeZone: string, nowMs: number) {
  const { id, endsAtMs } = periodAt(kind, timeZone, nowMs);
  return { id, endsAtMs };
}

/** Length-prefixed: no two scopes can share a key, whatever their names contain. */
function keyOf(kind: string, name: string): string {
  return `${kind}:${name.length}.${name}`;
}
