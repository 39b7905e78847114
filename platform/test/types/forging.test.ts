/**
 * Forging an authority does not compile. `tsc` checks the `@ts-expect-error` lines: were one of them legal, the type check would fail.
 * At run time a structural copy is refused as well.
 */
import { describe, expect, it } from 'vitest';
import { parseTenantId, type TenantId } from '../../src/primitives/ids.ts';
import type { TenantCapabilities } from '../../src/tenancy/capabilities.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { mintPrincipal } from '../../src/tenancy/mint-principal.ts';
import { OperatorScope } from '../../src/tenancy/operator-scope.ts';
import { Principal } from '../../src/tenancy/principal.ts';
import type { Tenant, TierPolicy } from '../../src/tenancy/tenant.ts';
import { openTenantScope, TenantScope } from '../../src/tenancy/tenant-scope.ts';

const acme = parseTenantId('acme') as TenantId;
const facts = { tenantId: acme, kind: 'api-key', user: 'ada', keyId: 'k' } as const;
const tenant: Tenant = { id: acme, name: 'acme', tier: 'free', state: 'active', isolation: 'pooled', overrides: {}, createdAtMs: 0 };
const tier: TierPolicy = { name: 'free', weight: 1, limits: {} };
const source = { bind: () => ({}) as TenantCapabilities };

function needsScope(scope: TenantScope): string {
  return scope.tenantId;
}

/** Never called: these lines are for the compiler. */
export function forgeries(): void {
  // @ts-expect-error a text is not a tenant id
  const id: TenantId = 'acme';
  // @ts-expect-error the constructor is private
  new Principal(facts);
  // @ts-expect-error an object of the same shape is not a principal
  const principal: Principal = { ...facts, tier: undefined, keyLimits: undefined };
  // @ts-expect-error the constructor is private
  new TenantScope(principal, tenant, tier, source.bind());
  // @ts-expect-error an object of the same shape is not a scope
  needsScope({ principal, tenant, policy: tier, tenantId: id, ...source.bind() });
  // @ts-expect-error authority over every tenant is not authority over one
  needsScope(mintOperatorScope('x'));
  // @ts-expect-error and authority over one tenant is not authority over all
  const operator: OperatorScope = openTenantScope(mintPrincipal(facts), tenant, tier, source);
  // @ts-expect-error a scope cannot be changed
  openTenantScope(principal, tenant, tier, source).tenant = tenant;
  // @ts-expect-error a principal cannot be turned to another tenant
  principal.tenantId = id;
  needsScope(operator as never);
}

type Methods<T> = { [Key in keyof T]: T[Key] extends (...args: infer Args) => unknown ? Args : never }[keyof T];
type TakesTenant<T> = Extract<Methods<T> extends readonly (infer Argument)[] ? Argument : never, TenantId>;
/** Compiles only if no method of any capability has an argument that is a tenant id. */
type Nobody<T> = [TakesTenant<T>] extends [never] ? true : false;
const takesNoTenant: readonly [
  Nobody<TenantCapabilities['files']>,
  Nobody<TenantCapabilities['vectorStores']>,
  Nobody<TenantCapabilities['responses']>,
  Nobody<TenantCapabilities['usage']>,
  Nobody<TenantCapabilities['idempotency']>,
] = [true, true, true, true, true];
const wouldBeSeen: Nobody<{ read(tenant: TenantId, id: string): void }> = false;

describe('authority', () => {
  it('is not a matter of shape at run time either', () => {
    const principal = mintPrincipal(facts);
    const scope = openTenantScope(principal, tenant, tier, source);
    const operator = mintOperatorScope('test');
    expect([Principal.is(principal), TenantScope.is(scope), OperatorScope.is(operator)]).toEqual([true, true, true]);
    expect(Principal.is(Object.assign({}, principal))).toBe(false);
    expect(Principal.is(Object.create(Principal.prototype))).toBe(false);
    expect(TenantScope.is(Object.assign({}, scope))).toBe(false);
    expect(TenantScope.is(operator)).toBe(false);
    expect(OperatorScope.is(structuredClone({ actor: 'test' }))).toBe(false);
  });

  it('is frozen', () => {
    const principal = mintPrincipal(facts);
    expect(Object.isFrozen(principal)).toBe(true);
    expect(Object.isFrozen(openTenantScope(principal, tenant, tier, source))).toBe(true);
  });

  it('opens only the tenant it was verified for', () => {
    const globex = { ...tenant, id: parseTenantId('globex') as TenantId };
    expect(() => openTenantScope(mintPrincipal(facts), globex, tier, source)).toThrow(/only the tenant of its principal/);
    expect(() => openTenantScope({ ...facts } as unknown as Principal, tenant, tier, source)).toThrow(/minted principal/);
  });

  it('is in no argument of any capability', () => {
    expect(takesNoTenant).toEqual([true, true, true, true, true]);
    expect(wouldBeSeen).toBe(false);
  });
});
