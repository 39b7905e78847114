import { expect, test } from 'vitest';
import { parseTenantId } from '../primitives/ids.ts';
import type { FairRequest } from './fair-request.ts';
import { ClassFlow } from './flow.ts';
import { countShared, sessionPlaceOf, sessionsPerUserMax, sharedSessionPlace, userPlaceOf, usersPerTenantMax } from './flow-places.ts';

function openTenant() {
  const tenantId = parseTenantId('acme');
  if (tenantId === undefined) throw new Error('acme is a tenant id');
  return new ClassFlow<FairRequest>('interactive', () => ({ charged: () => {}, started: () => {} })).tenants.obtain(tenantId);
}

// Planted: no bound.
test('n users of a tenant have flows of their own, those beyond share 64', () => {
  const tenant = openTenant();
  const { users } = tenant;
  for (let index = 0; index < usersPerTenantMax; index++) users.obtain(userPlaceOf(tenant, `u${index}`));
  expect(users.flowCount).toBe(usersPerTenantMax);
  expect(userPlaceOf(tenant, 'u0')).toBe('u0');
  for (let index = 0; index < 5_000; index++) users.obtain(userPlaceOf(tenant, `late${index}`));
  expect(users.flowCount).toBe(usersPerTenantMax + 64);
});

test('n sessions of a user have flows of their own, those beyond stand with what has no session, for as long as they wait', () => {
  const tenant = openTenant();
  const user = tenant.users.obtain('ann');
  const { sessions } = user;
  for (let index = 0; index < sessionsPerUserMax; index++) sessions.obtain(sessionPlaceOf(user, `s${index}`));
  expect([...sessions.flows()].map(({ key }) => key)).not.toContain(sharedSessionPlace);
  expect(sessionPlaceOf(user, 'late')).toBe(sharedSessionPlace);
  sessions.obtain(sharedSessionPlace);
  countShared(user, 'late', 1);
  countShared(user, 'late', 1);
  const [first] = [...sessions.flows()];
  if (first !== undefined) sessions.forgetIfIdle(first);
  sessions.forgetIfIdle(sessions.obtain('s1'));
  expect(sessions.flowCount).toBeLessThan(sessionsPerUserMax);
  for (const waiting of [1, 0]) {
    countShared(user, 'late', -1);
    expect(sessionPlaceOf(user, 'late')).toBe(waiting > 0 ? sharedSessionPlace : 'late');
  }
  expect(user.sharedWaiting?.size).toBe(0);
});
