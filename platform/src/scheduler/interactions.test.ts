import { expect, test } from 'vitest';
import { parseTenantId } from '../primitives/ids.ts';
import type { Ticket } from './fair-queue.ts';
import { goesOnMs, Interactions, sessionsPerTenantMax } from './interactions.ts';

function ticket(tenant: string, user: string, session: string | undefined): Ticket {
  const tenantId = parseTenantId(tenant);
  if (tenantId === undefined) throw new Error(`${tenant} is no tenant id`);
  return {
    poolId: 'pool',
    tenantId,
    user,
    session,
    workClass: 'interactive',
    weight: 1,
    inputTokens: 1,
    predictedOutputTokens: 1,
    bytes: 1,
  };
}

test('an interaction goes on for ten seconds after a call, and not a millisecond longer', () => {
  for (const finishedAtMs of [0, 3_000, 9_999, 10_000, 25_000]) {
    const interactions = new Interactions();
    for (let atMs = 0; atMs < finishedAtMs; atMs += 1_000) interactions.finished(ticket('acme', 'ann', 'other'), atMs);
    interactions.finished(ticket('acme', 'ann', 's'), finishedAtMs);
    interactions.finished(ticket('acme', 'ann', 'other'), finishedAtMs + goesOnMs - 1);
    expect(interactions.goesOn(ticket('acme', 'ann', 's'), finishedAtMs + goesOnMs - 1)).toBe(true);
    expect(interactions.goesOn(ticket('acme', 'ann', 's'), finishedAtMs + goesOnMs)).toBe(false);
  }
});

test('a session is its user’s, and its tenant’s, whatever the names', () => {
  const interactions = new Interactions();
  interactions.finished(ticket('acme', 'ann', 'bs'), 0);
  for (const other of [
    ticket('acme', 'annb', 's'),
    ticket('acme', 'bob', 'bs'),
    ticket('beta', 'ann', 'bs'),
    ticket('acme', 'ann', undefined),
  ]) {
    expect(interactions.goesOn(other, 1)).toBe(false);
  }
});

// Planted: the first user of a name alone; whoever comes first is taken for the other.
test('sessions of one name are told apart by their users, also where one is called as two are together', () => {
  const interactions = new Interactions();
  const ann = ticket('acme', 'ann', 's');
  const bob = ticket('acme', 'bob', 's');
  const odd = ticket('acme', 'eve', '3.bobs');
  interactions.finished(ann, 0);
  interactions.finished(bob, 5_000);
  expect([ann, bob, odd].map((each) => interactions.goesOn(each, 5_001))).toEqual([true, true, false]);
  expect([ann, bob].map((each) => interactions.goesOn(each, 9_999 + 1))).toEqual([false, true]);
  interactions.finished(odd, 10_000);
  expect([bob, odd].map((each) => interactions.goesOn(each, 10_001))).toEqual([true, true]);
});

// Planted: no bound; generations that are never dropped.
test('minted sessions are bounded for each tenant and push out no other tenant’s', () => {
  const interactions = new Interactions();
  interactions.finished(ticket('quiet', 'ann', 's'), 0);
  for (let index = 0; index < 10 * sessionsPerTenantMax; index++) interactions.finished(ticket('mint', 'ann', `s${index}`), 1);
  expect(interactions.sessionCount).toBe(sessionsPerTenantMax + 1);
  expect(interactions.goesOn(ticket('quiet', 'ann', 's'), 2)).toBe(true);
  for (const atMs of [20_000, 40_000]) interactions.finished(ticket('mint', 'ann', 'last'), atMs);
  expect(interactions.sessionCount).toBe(2);
});
