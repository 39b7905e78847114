/** Whom a request counts for: tenant, team, key, user and session, each with its own limits and money. */
import { describe, expect, it } from 'vitest';
import { MemoryLimitStore } from '../../src/adapters/memory/limit-store.ts';
import { createAdmission, type Demand } from '../../src/admission/admit.ts';
import { createOutputEstimates } from '../../src/admission/estimate.ts';
import { type Caller, LimitScopes } from '../../src/admission/limit-scopes.ts';
import type { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { countingIds } from '../../src/primitives/ids.ts';
import { callerOf } from '../../src/request-path/caller-of.ts';
import type { TenantCapabilities } from '../../src/tenancy/capabilities.ts';
import { mintPrincipal } from '../../src/tenancy/mint-principal.ts';
import type { PrincipalFacts } from '../../src/tenancy/principal.ts';
import type { BudgetPolicy, LimitPolicy, TenantOverrides, TierPolicy } from '../../src/tenancy/tenant.ts';
import { openTenantScope, type TenantScope } from '../../src/tenancy/tenant-scope.ts';
import { tenantId } from '../support/embedded-database.ts';

interface Facts {
  readonly tenant?: string;
  readonly tier?: Partial<TierPolicy>;
  readonly overrides?: TenantOverrides;
  readonly principal?: Partial<PrincipalFacts>;
}

function scopeOf({ tenant = 'acme', tier, overrides = {}, principal }: Facts): TenantScope {
  const who = mintPrincipal({ tenantId: tenantId(tenant), kind: 'api-key', user: 'key:k1', keyId: 'k1', ...principal });
  const record = { id: who.tenantId, name: tenant, tier: 'free', state: 'active', isolation: 'pooled', overrides, createdAtMs: 0 } as const;
  return openTenantScope(who, record, { name: 'free', weight: 1, limits: {}, ...tier }, { bind: () => ({}) as TenantCapabilities });
}

function openAdmission() {
  const clock = new ManualClock(Date.UTC(2026, 10, 27, 12));
  const store = new MemoryLimitStore(clock);
  const admission = createAdmission({ store, clock, ids: countingIds(), leaseMs: 30_000 });
  const admit = (scope: TenantScope, caller: Partial<Caller> = {}, demand: Partial<Demand> = {}) =>
    admission.admit({
      scope,
      caller: { user: 'ann', ...caller },
      inputTokens: 10,
      output: { tokens: 10, isDemanded: true, tokensMax: 10 },
      costOf: (input, output) => 1_000 * (input + 4 * output),
      ...demand,
    });
  return { clock, store, admission, admit };
}

const refusalOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: BulkheadError) => ({ code: error.code, limit: error.details?.['limit'], retryAfterMs: error.retryAfterMs }),
  );
const dollars = (usd: number, changes: Partial<BudgetPolicy> = {}): BudgetPolicy => ({
  limitNanoUsd: usd * 1e9,
  period: 'month',
  isHard: true,
  ...changes,
});

describe('the tree of limits', () => {
  it('has five levels, and each can be the one that binds', async () => {
    const levels: readonly [string, Facts, Partial<Caller>][] = [
      ['tenant', { tier: { limits: { requestsPerMinute: 1 } } }, {}],
      ['team', { tier: { perTeam: { limits: { requestsPerMinute: 1 } } }, principal: { team: 'red' } }, {}],
      ['key', { principal: { keyPolicy: { limits: { requestsPerMinute: 1 } } } }, {}],
      ['user', { tier: { perUser: { limits: { requestsPerMinute: 1 } } } }, {}],
      ['session', { tier: { perSession: { limits: { requestsPerMinute: 1 } } } }, { session: 's1' }],
    ];
    for (const [level, facts, caller] of levels) {
      const { admit } = openAdmission();
      const scope = scopeOf(facts);
      await admit(scope, caller);
      expect(await refusalOf(admit(scope, caller))).toEqual({
        code: 'rate_limit_exceeded',
        limit: `${level}.requests`,
        retryAfterMs: 60_000,
      });
    }
  });

  it('holds each member of a level by itself, inside what the level above it leaves', async () => {
    const { admit } = openAdmission();
    const scope = scopeOf({ tier: { limits: { concurrency: 3 }, perUser: { limits: { concurrency: 2 } } } });
    await admit(scope, { user: 'ann' });
    await admit(scope, { user: 'ann' });
    expect(await refusalOf(admit(scope, { user: 'ann' }))).toMatchObject({ limit: 'user.concurrency' });
    await admit(scope, { user: 'bob' });
    expect(await refusalOf(admit(scope, { user: 'carol' }))).toMatchObject({ limit: 'tenant.concurrency' });
  });

  it('gives a named team its own policy and every other one the usual', async () => {
    const { admit } = openAdmission();
    const overrides = { perTeam: { limits: { concurrency: 1 } }, teams: { red: { limits: { concurrency: 2 } } } };
    const of = (team: string) => scopeOf({ overrides, principal: { team } });
    for (let count = 0; count < 2; count++) await admit(of('red'));
    expect(await refusalOf(admit(of('red')))).toMatchObject({ limit: 'team.concurrency' });
    for (const team of ['blue', 'constructor']) {
      await admit(of(team));
      expect(await refusalOf(admit(of(team)))).toMatchObject({ limit: 'team.concurrency' });
    }
  });

  it('counts input and output apart', async () => {
    const { admit } = openAdmission();
    const scope = scopeOf({ tier: { limits: { inputTokensPerMinute: 100, outputTokensPerMinute: 25 } } });
    await admit(scope);
    await admit(scope);
    expect(await refusalOf(admit(scope))).toMatchObject({ limit: 'tenant.output_tokens' });
    const short = { inputTokens: 81, output: { tokens: 0, isDemanded: true, tokensMax: 0 } };
    expect(await refusalOf(admit(scope, {}, short))).toMatchObject({ limit: 'tenant.input_tokens' });
    expect(await refusalOf(admit(scope, {}, { ...short, inputTokens: 101 }))).toMatchObject({ code: 'request_too_large_for_limit' });
  });

  // Planted: keys without the tenant; names put together without their lengths.
  it('never counts two tenants, or two members, together, whatever their names are made of', () => {
    const tier = {
      perUser: { limits: { concurrency: 1 } },
      perSession: { limits: { concurrency: 1 } },
      perTeam: { limits: { concurrency: 1 } },
    };
    const scopes = new LimitScopes();
    const keys: string[] = [];
    for (const tenant of ['acme', 'acme-2', 'acme-u']) {
      for (const team of ['red', 'red.k', 'g-1.red']) {
        for (const user of ['ann', 'ann:s:1.x', ':u:3.ann', '']) {
          for (const session of ['1', '1:u:3.ann', undefined]) {
            const keyPolicy = { limits: { concurrency: 1 } };
            const scope = scopeOf({ tenant, tier, principal: { team, keyPolicy } });
            keys.push(
              scopes
                .of(scope, { user, session }, 0)
                .map(({ key }) => key)
                .join('\n'),
            );
          }
        }
      }
    }
    expect(new Set(keys).size).toBe(keys.length);
    expect(keys.flatMap((text) => text.split('\n')).every((key) => /^t:\d+\.acme/.test(key))).toBe(true);
    expect(keys.every((text, index) => text.startsWith(`t:${['acme', 'acme-2', 'acme-u'][Math.floor(index / 36)]?.length}.`))).toBe(true);
  });

  // Planted: a place for every name.
  it('gives a tenant that mints users no more than 2,064 places', async () => {
    const scopes = new LimitScopes();
    const scope = scopeOf({ tier: { perUser: { limits: { requestsPerMinute: 1 } } } });
    const userKey = (user: string, nowMs: number) => scopes.of(scope, { user }, nowMs).find(({ name }) => name === 'user')?.key;
    const keys = new Set<string | undefined>();
    for (let index = 0; index < 20_000; index++) keys.add(userKey(`user ${index}`, index));
    expect(keys.size).toBe(2_064);
    // Whoever was there keeps the place, and one that nobody uses any more is given away.
    expect(userKey('user 1', 20_000)).toBe('t:4.acme:u:6.user 1');
    expect(userKey('late', 20_000)).toContain('shared place');
    expect(userKey('late', 700_000)).toBe('t:4.acme:u:4.late');
  });
});

describe('what is set aside for an answer of unknown length', () => {
  // Planted: without the team's, and without the session's.
  it('is at most a quarter of the least token limit of any level that the request counts for', () => {
    const own = (limit: LimitPolicy) => ({ limits: limit });
    const levels: readonly [string, Facts, string | undefined, number][] = [
      ['tenant', { tier: own({ tokensPerMinute: 400 }) }, undefined, 100],
      ['any team', { tier: { perTeam: own({ tokensPerMinute: 400 }) }, principal: { team: 'red' } }, undefined, 100],
      ['a named team', { overrides: { teams: { red: own({ outputTokensPerMinute: 80 }) } }, principal: { team: 'red' } }, undefined, 20],
      ['another team', { overrides: { teams: { blue: own({ tokensPerMinute: 4 }) } }, principal: { team: 'red' } }, undefined, 615],
      ['key', { principal: { keyPolicy: own({ tokensPerMinute: 200 }) } }, undefined, 50],
      ['user', { tier: { perUser: own({ tokensPerMinute: 100 }) } }, undefined, 25],
      ['session', { tier: { perSession: own({ outputTokensPerMinute: 40 }) } }, 's1', 10],
      ['no session', { tier: { perSession: own({ outputTokensPerMinute: 40 }) } }, undefined, 615],
      ['least of two', { tier: { ...own({ tokensPerMinute: 400 }), perUser: own({ outputTokensPerMinute: 8 }) } }, undefined, 2],
    ];
    for (const [level, facts, session, tokens] of levels) {
      const demand = { scope: scopeOf(facts), session, body: { model: 'm' }, outputTokensMax: 16_384 };
      expect([level, createOutputEstimates().reserve(demand).tokens]).toEqual([level, tokens]);
    }
  });
});

describe('who acts', () => {
  const callOf = (principal: Partial<PrincipalFacts>, body: Readonly<Record<string, unknown>>) =>
    callerOf({ scope: scopeOf({ principal }), body, sessionId: undefined }).user;

  // Planted: a name without its key; a name that beats the token's user.
  it('is whom a key names, in the key’s own name space, and never anybody but the token’s user', () => {
    expect(callOf({}, {})).toBe('key:k1');
    expect(callOf({}, { user: 'ann' })).toBe('key:k1:ann');
    expect(callOf({}, { user: 'old', safety_identifier: 'ann' })).toBe('key:k1:ann');
    expect(callOf({}, { user: '' })).toBe('key:k1');
    expect(callOf({ kind: 'jwt', user: 'ann' }, { user: 'bob', safety_identifier: 'bob' })).toBe('ann');
  });
});

describe('a budget', () => {
  it('is set aside for the longest answer, and what a call did not cost comes back', async () => {
    const { admit } = openAdmission();
    const scope = scopeOf({ tier: { budget: dollars(0.000_1) } });
    // 10 in and 10 out cost 50 µUSD; the longest answer 90.
    const long = { output: { tokens: 10, isDemanded: false, tokensMax: 20 } };
    const first = await admit(scope, {}, long);
    expect(await refusalOf(admit(scope, {}, long))).toEqual({ code: 'budget_reserved', limit: 'tenant.budget', retryAfterMs: 1_000 });
    first.settle({ inputTokens: 10, outputTokens: 5, costNanoUsd: 30_000 });
    expect(await refusalOf(admit(scope, {}, long))).toMatchObject({ code: 'budget_exceeded', retryAfterMs: undefined });
    const second = await admit(scope);
    second.release();
    await admit(scope);
  });

  it('says what is left, what the request may cost, when the period ends, and tells robots to stop', async () => {
    const { admit } = openAdmission();
    const scope = scopeOf({ overrides: { budget: dollars(0.000_04), timeZone: 'Pacific/Auckland' } });
    const error = await admit(scope).catch((reason: BulkheadError) => reason);
    expect(error).toMatchObject({
      code: 'budget_exceeded',
      rule: { status: 429, type: 'insufficient_quota', shouldRetry: false },
      details: {
        limit: 'tenant.budget',
        scope: 'tenant',
        limit_value: 40,
        used: 0,
        limit_usd: '0.000040000',
        requested_usd: '0.000050000',
      },
    });
    // Midnight of the first of December there: eleven in the morning of the thirtieth in UTC.
    expect((error as BulkheadError).details?.['reset_ms']).toBe(Date.UTC(2026, 10, 30, 11) - Date.UTC(2026, 10, 27, 12));
    expect((error as BulkheadError).message).toContain('max_tokens');
  });

  it('begins anew with the period, in the tenant’s own time zone', async () => {
    const { admit, clock } = openAdmission();
    const scope = scopeOf({ overrides: { budget: dollars(0.000_05, { period: 'day' }), timeZone: 'America/New_York' } });
    const call = await admit(scope);
    call.settle({ inputTokens: 10, outputTokens: 10, costNanoUsd: 50_000 });
    clock.advance(17 * 3_600_000 - 1);
    expect(await refusalOf(admit(scope))).toMatchObject({ code: 'budget_exceeded' });
    clock.advance(1);
    await admit(scope);
  });

  it('is named to the ledger with each call, for every level that has one', async () => {
    const { admit } = openAdmission();
    const scope = scopeOf({ tier: { budget: dollars(5), perUser: { budget: dollars(1, { isHard: false, period: 'day' }) } } });
    expect((await admit(scope)).budgets).toMatchObject([
      { scope: 't:4.acme', period: '2026-11', limitNanoUsd: 5e9 },
      { scope: 't:4.acme:u:3.ann', period: '2026-11-27', limitNanoUsd: 1e9 },
    ]);
  });
});
