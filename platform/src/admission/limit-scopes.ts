/**
 * Whom a request counts for: the tenant, and in it the team, the key, the user and the session, each where its policy says anything. The tenant and the
 * team come from the verified credential; whom a request names beside them can only divide what its credential has.
 */
import { LRUCache } from 'lru-cache';
import { type PeriodKind, periodAt } from '../primitives/calendar-period.ts';
import type { BudgetPolicy, ScopePolicy } from '../tenancy/tenant.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { LimitScope, LimitScopeName } from './limit-store.ts';

export interface Caller {
  /** Who acts inside the tenant. */
  readonly user: string;
  /** A conversation or a run of an agent, as the client names it. */
  readonly session?: string | undefined;
}

/** Users of a tenant that are counted apart; those beyond share a few places, so that nobody gains by minting names. */
const usersPerTenantMax = 2_000;
const sharedPlaces = 64;
/** A place is given away after this long without a request. */
const placeKeptMs = 600_000;
const tenantsMax = 10_000;

export class LimitScopes {
  readonly #usersOf = new LRUCache<string, LRUCache<string, number>>({ max: tenantsMax });

  /** Outermost first. `nowMs` of the wall clock: periods of budgets are calendar ones. */
  of({ tenantId, policy, principal }: TenantScope, caller: Caller, nowMs: number): readonly LimitScope[] {
    const tenantKey = keyOf('t', tenantId);
    const scopes: LimitScope[] = [];
    const add = (name: LimitScopeName, key: string, own: ScopePolicy | undefined) => {
      const { limits = {}, budget } = own ?? {};
      if (name !== 'tenant' && budget === undefined && isEmpty(limits)) return;
      scopes.push({ name, key, limits, budget: budget && budgetOf(budget, policy.timeZone, nowMs) });
    };
    add('tenant', tenantKey, policy);
    const { team, keyId, keyPolicy } = principal;
    if (team !== undefined) add('team', `${tenantKey}:${keyOf('g', team)}`, teamPolicyOf(policy, team));
    add('key', `${tenantKey}:${keyOf('k', keyId)}`, keyPolicy);
    if (policy.perUser === undefined && caller.session === undefined) return scopes;
    const userKey = `${tenantKey}:${keyOf('u', this.#placeOf(tenantId, caller.user, nowMs))}`;
    add('user', userKey, policy.perUser);
    if (caller.session !== undefined) add('session', `${userKey}:${keyOf('s', caller.session)}`, policy.perSession);
    return scopes;
  }

  /** The user's own name while there is room, and a shared place otherwise. */
  #placeOf(tenantId: string, user: string, nowMs: number): string {
    const users = this.#usersOf.get(tenantId) ?? new LRUCache<string, number>({ max: usersPerTenantMax });
    this.#usersOf.set(tenantId, users);
    if (!users.has(user) && users.size === usersPerTenantMax) {
      const [oldest] = users.rvalues();
      if (oldest !== undefined && nowMs - oldest < placeKeptMs) return `shared place ${hashOf(user) % sharedPlaces}`;
    }
    users.set(user, nowMs);
    return user;
  }
}

/** Own properties alone: a team may be called `constructor`. */
function teamPolicyOf(policy: TenantScope['policy'], team: string): ScopePolicy | undefined {
  return Object.hasOwn(policy.teams, team) ? policy.teams[team] : policy.perTeam;
}

function isEmpty(limits: NonNullable<ScopePolicy['limits']>): boolean {
  return Object.values(limits).every((limit) => limit === undefined);
}

function budgetOf({ limitNanoUsd, isHard, period }: BudgetPolicy, timeZone: string, nowMs: number): LimitScope['budget'] {
  return { limitNanoUsd, isHard, period: periodOf(period, timeZone, nowMs) };
}

function periodOf(kind: PeriodKind, timeZone: string, nowMs: number) {
  const { id, endsAtMs } = periodAt(kind, timeZone, nowMs);
  return { id, endsAtMs };
}

/** Length-prefixed: no two scopes can share a key, whatever their names contain. */
function keyOf(kind: string, name: string): string {
  return `${kind}:${name.length}.${name}`;
}

/** FNV-1a: which place somebody shares is no secret and no weapon. */
function hashOf(text: string): number {
  let hash = 2_166_136_261;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 16_777_619);
  return hash >>> 0;
}
