import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import { ManualClock } from '../primitives/clock.ts';
import { parseTenantId } from '../primitives/ids.ts';
import type { TenantCapabilities } from '../tenancy/capabilities.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import { openTenantScope, type TenantScope } from '../tenancy/tenant-scope.ts';
import { CredentialCache, slotOf } from './credential-cache.ts';

function scopeOf(name: string): TenantScope {
  const id = parseTenantId(name);
  assert(id !== undefined, 'tests name possible tenants');
  const principal = mintPrincipal({ tenantId: id, kind: 'jwt', user: 'ada', keyId: 'k' });
  const tenant = { id, name, tier: 'free', state: 'active', isolation: 'pooled', overrides: {}, createdAtMs: 0 } as const;
  return openTenantScope(principal, tenant, { name: 'free', weight: 1, limits: {} }, { bind: () => ({}) as TenantCapabilities });
}

const acme = scopeOf('acme');
const forGood = { scope: acme, expiresAtMs: Number.POSITIVE_INFINITY };
const refusal = new BulkheadError('invalid_token', 'no');
const open = (entriesMax = 100) => {
  const clock = new ManualClock();
  return { clock, cache: new CredentialCache(clock, entriesMax) };
};

describe('the slot of a credential', () => {
  // Planted: a slot made of the first 20 characters.
  it('is shared by no two of them, be they equal in their first 20, or in all but one character', () => {
    const text = fc.string({ unit: 'binary-ascii', maxLength: 64 });
    const head = fc.string({ unit: 'binary-ascii', minLength: 20, maxLength: 20 });
    const pairs = fc.oneof(
      fc.tuple(text, text),
      fc.tuple(head, text, text).map(([start, left, right]) => [start + left, start + right] as const),
      fc.tuple(text, text, text).map(([start, middle, end]) => [`${start}${middle}A${end}`, `${start}${middle}B${end}`] as const),
    );
    fc.assert(
      fc.property(pairs, ([left, right]) => {
        expect(slotOf(left) === slotOf(right)).toBe(left === right);
      }),
      { numRuns: 2_000 },
    );
  });

  it('holds nothing of the credential', () => {
    expect(slotOf('bh_live_secret')).toMatch(/^[A-Za-z0-9+/]{43}=$/);
  });
});

describe('the credential cache', () => {
  it('answers for 30 seconds counted from when the verification began, and never beyond the credential’s end', () => {
    const { clock, cache } = open();
    const start = cache.begin();
    clock.advance(3_000);
    cache.put('a', forGood, start);
    cache.put('b', { scope: acme, expiresAtMs: clock.nowMs() + 5_000 }, cache.begin());
    clock.advance(4_999);
    expect([cache.get('a'), cache.get('b')]).toEqual([acme, acme]);
    clock.advance(1);
    expect([cache.get('a'), cache.get('b')]).toEqual([acme, undefined]);
    clock.advance(21_999);
    expect(cache.get('a')).toBe(acme);
    clock.advance(1);
    expect(cache.get('a')).toBeUndefined();
    expect(cache.size).toBe(0);
  });

  it('is not kept alive by a wall clock that steps back, and ends a credential when it steps past its end', () => {
    const { clock, cache } = open();
    cache.put('a', { scope: acme, expiresAtMs: clock.nowMs() + 10_000 }, cache.begin());
    clock.stepWallClock(-3_600_000);
    clock.advance(30_000);
    expect(cache.get('a')).toBeUndefined();
    cache.put('b', { scope: acme, expiresAtMs: clock.nowMs() + 10_000 }, cache.begin());
    clock.stepWallClock(3_600_000);
    expect(cache.get('b')).toBeUndefined();
  });

  it('remembers a refusal for five seconds', () => {
    const { clock, cache } = open();
    cache.refuse('a', refusal, cache.begin());
    clock.advance(4_999);
    expect(cache.refusal('a')).toBe(refusal);
    clock.advance(1);
    expect(cache.refusal('a')).toBeUndefined();
  });

  it('keeps nothing that was verified across a change', () => {
    const { cache } = open();
    const start = cache.begin();
    cache.forgetTenant(scopeOf('globex').tenantId);
    cache.put('a', forGood, start);
    cache.refuse('b', refusal, start);
    expect([cache.get('a'), cache.refusal('b')]).toEqual([undefined, undefined]);
  });

  it('holds as many entries as it may, refusals apart, so that garbage does not push out what is good', () => {
    const { cache } = open(10);
    for (let index = 0; index < 11; index++) cache.put(`good-${index}`, forGood, cache.begin());
    expect(cache.size).toBe(10);
    for (let index = 0; index < 10_001; index++) cache.refuse(`bad-${index}`, refusal, cache.begin());
    expect(cache.refusals).toBe(10_000);
    expect(cache.size).toBe(10);
    expect(cache.get('good-10')).toBe(acme);
  });

  it('forgets one tenant and only that one, however entries came, went and were replaced', () => {
    const tenants = ['acme', 'globex', 'initech'].map(scopeOf);
    const step = fc.oneof(
      fc.record({ kind: fc.constant('put' as const), slot: fc.integer({ min: 0, max: 15 }), tenant: fc.integer({ min: 0, max: 2 }) }),
      fc.record({ kind: fc.constant('forget' as const), slot: fc.constant(0), tenant: fc.integer({ min: 0, max: 2 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { cache } = open(8);
        const model = new Map<string, TenantScope>();
        for (const { kind, slot, tenant } of steps) {
          const scope = tenants[tenant] ?? acme;
          if (kind === 'put') {
            cache.put(String(slot), { scope, expiresAtMs: Number.POSITIVE_INFINITY }, cache.begin());
            model.set(String(slot), scope);
          } else {
            cache.forgetTenant(scope.tenantId);
            for (const [key, held] of model) if (held === scope) model.delete(key);
          }
        }
        const held = [...model].filter(([slot]) => cache.get(slot) !== undefined);
        for (let slot = 0; slot < 16; slot++) {
          const found = cache.get(String(slot));
          if (found !== undefined) expect(found).toBe(model.get(String(slot)));
        }
        // Eviction may have taken some, but never more than the bound asks for.
        expect(cache.size).toBe(held.length);
        expect(held.length).toBeLessThanOrEqual(8);
        expect(cache.tenants).toBe(new Set(held.map(([, scope]) => scope)).size);
      }),
      { numRuns: 500 },
    );
  });
});
