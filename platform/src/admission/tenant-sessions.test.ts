import { expect, test } from 'vitest';
import { ManualClock } from '../primitives/clock.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import { TenantSessions } from './tenant-sessions.ts';

const bounds = { ofTenantMax: 10, max: 25, idleMs: 1_000 };
const [acme, globex, initech] = ['acme', 'globex', 'initech'].map((id) => parseTenantId(id)) as [TenantId, TenantId, TenantId];

function openSessions() {
  const clock = new ManualClock();
  const sessions = new TenantSessions<{ readonly startedAtMs: number }>(clock, bounds);
  const ask = (tenant: TenantId, name: string) => sessions.obtain(tenant, name, (startedAtMs) => ({ startedAtMs }));
  return { clock, sessions, ask };
}

test('a tenant that mints sessions forgets its own oldest, and nobody else’s', () => {
  const { clock, sessions, ask } = openSessions();
  const [quiet, kept] = [ask(globex, 'quiet'), ask(acme, 's0')];
  for (let count = 1; count < 10; count++) ask(acme, `s${count}`);
  clock.advance(1);
  expect(ask(acme, 's0')).toBe(kept);
  ask(acme, 's10');
  expect(ask(acme, 's0')).toBe(kept);
  for (let count = 11; count < 500; count++) ask(acme, `s${count}`);
  expect(sessions.count).toBe(11);
  expect(ask(globex, 'quiet')).toBe(quiet);
  expect(ask(acme, 's0')).not.toBe(kept);
});

test('beyond the bound of all, the tenant with the most makes room', () => {
  const { sessions, ask } = openSessions();
  const quiet = ask(globex, 'quiet');
  for (let count = 0; count < 10; count++) ask(acme, `s${count}`);
  for (let count = 0; count < 9; count++) ask(initech, `s${count}`);
  const newcomers = Array.from({ length: 15 }, (_, index) => parseTenantId(`tenant-${index}`) as TenantId);
  const kept = newcomers.map((tenant) => {
    const session = ask(tenant, 'only');
    expect(sessions.count).toBeLessThanOrEqual(bounds.max);
    return session;
  });
  expect(ask(globex, 'quiet')).toBe(quiet);
  for (const [index, tenant] of newcomers.entries()) expect(ask(tenant, 'only')).toBe(kept[index]);
});

test('a name begins another session after an hour without a request, and not before', () => {
  const { clock, sessions, ask } = openSessions();
  const first = ask(acme, 's');
  clock.advance(bounds.idleMs - 1);
  expect(ask(acme, 's')).toBe(first);
  clock.advance(bounds.idleMs - 1);
  expect(ask(acme, 's')).toBe(first);
  clock.advance(bounds.idleMs);
  expect(ask(acme, 's')).not.toBe(first);
  expect(sessions.count).toBe(1);
});

test('tenants with the same names have sessions of their own', () => {
  const { ask } = openSessions();
  expect(ask(acme, 's')).not.toBe(ask(globex, 's'));
});
