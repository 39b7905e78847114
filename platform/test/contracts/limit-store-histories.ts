/**
 * Properties over whole histories with two scopes: what was admitted in any window, what a refusal leaves behind, and what the order of endings
 * changes. Faults that were planted and seen are named at each.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { LimitScope, LimitStore } from '../../src/admission/limit-store.ts';
import { ManualClock } from '../../src/primitives/clock.ts';

type Open = (clock: ManualClock) => Promise<LimitStore>;

const leaseMs = 30_000;
const limits = fc.record({
  requestsPerMinute: fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined }),
  tokensPerMinute: fc.option(fc.integer({ min: 1, max: 3_000 }), { nil: undefined }),
  concurrency: fc.option(fc.integer({ min: 1, max: 8 }), { nil: undefined }),
});
const scopes = fc.tuple(limits, limits).map(([tenant, key]): readonly LimitScope[] => [
  { name: 'tenant', key: 't:4.acme', limits: tenant },
  { name: 'key', key: 't:4.acme:k:2.k1', limits: key },
]);
const arrival = fc.record({
  waitMs: fc.integer({ min: 0, max: 5_000 }),
  tokens: fc.integer({ min: 0, max: 400 }),
  used: fc.integer({ min: 0, max: 400 }),
  settles: fc.boolean(),
});
const history = fc.array(arrival, { maxLength: 60, size: 'max' });

interface Admitted {
  readonly atMs: number;
  readonly tokens: number;
}

export function describeLimitHistories(open: Open): void {
  // Planted: a burst of two minutes; admitting while anything is left.
  it('admits in no window more than the burst and the rate allow, in either scope (invariants 1 and 9)', async () => {
    await fc.assert(
      fc.asyncProperty(scopes, history, async (both, arrivals) => {
        const clock = new ManualClock();
        const store = await open(clock);
        const admitted: Admitted[] = [];
        for (const [index, { waitMs, tokens, settles }] of arrivals.entries()) {
          clock.advance(waitMs);
          const outcome = await store.reserve(requestOf(`r${index}`, both, tokens));
          const isTooLarge = both.some((scope) => tokens > (scope.limits.tokensPerMinute ?? Number.POSITIVE_INFINITY));
          expect(outcome.kind === 'too_large').toBe(isTooLarge);
          if (outcome.kind === 'reserved') admitted.push({ atMs: clock.monotonicMs(), tokens });
          // Settled at what was reserved: nothing is given back, so what was admitted was used.
          if (settles) await store.settle(`r${index}`, { tokens });
        }
        for (const scope of both) expectBounded(scope, admitted);
      }),
      { numRuns: 200 },
    );
  });

  // Planted: taking from the first scope before the second is asked; counting a refused request as one in flight.
  it('is left by a refusal as it was (invariant 3)', async () => {
    await fc.assert(
      fc.asyncProperty(scopes, history, async (both, arrivals) => {
        const clock = new ManualClock();
        const [store, undisturbed] = [await open(clock), await open(clock)];
        for (const [index, { waitMs, tokens, used, settles }] of arrivals.entries()) {
          clock.advance(waitMs);
          const outcome = await store.reserve(requestOf(`r${index}`, both, tokens));
          if (outcome.kind !== 'reserved') continue;
          expect(await undisturbed.reserve(requestOf(`r${index}`, both, tokens))).toEqual(outcome);
          if (settles) for (const each of [store, undisturbed]) await each.settle(`r${index}`, { tokens: used });
        }
        expect(await store.liveCount()).toBe(await undisturbed.liveCount());
      }),
      { numRuns: 200 },
    );
  });

  // Planted: settling twice, reaping before the lease ends, giving the slot back twice after a late settlement.
  it('counts each reservation once, in whatever order and how often its endings come (invariant 4)', async () => {
    const endings = fc.array(fc.constantFrom<Ending>('settle', 'reap', 'renew'), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(endings, fc.nat(400), fc.nat(800), async (order, tokens, used) => {
        const left = await leftAfter(open, order, { tokens, used });
        const expected = await leftAfter(open, [], { tokens, used });
        expect({ ...left, tokens: 0 }).toEqual({ ...expected, tokens: 0 });
        // A reap refunds what a late settlement charges again; what would have refilled between the two is lost, never won.
        const least = order.includes('reap') ? Math.min(expected.tokens, generous.tokensPerMinute - used - 10) : expected.tokens;
        expect(left.tokens).toBeLessThanOrEqual(expected.tokens);
        expect(left.tokens).toBeGreaterThanOrEqual(least);
      }),
      { numRuns: 200 },
    );
  });
}

type Ending = 'settle' | 'reap' | 'renew';
const generous = { requestsPerMinute: 60, tokensPerMinute: 1_000_000, concurrency: 3 };

/** What two reservations leave, of which one goes on and one has ended in all these ways and, at last, been settled. */
async function leftAfter(open: Open, order: readonly Ending[], size: { readonly tokens: number; readonly used: number }) {
  const clock = new ManualClock();
  const store = await open(clock);
  const own: readonly LimitScope[] = [{ name: 'tenant', key: 't', limits: generous }];
  await store.reserve(requestOf('other', own, 10));
  await store.reserve(requestOf('r', own, size.tokens));
  clock.advance(leaseMs - 1);
  expect(await store.reap()).toBe(0);
  await store.renew('other', leaseMs, { tokens: 0 });
  clock.advance(1);
  for (const ending of order) {
    if (ending === 'settle') await store.settle('r', { tokens: size.used });
    else if (ending === 'reap') await store.reap();
    else await store.renew('r', leaseMs, { tokens: 0 });
  }
  await store.settle('r', { tokens: size.used });
  expect(await store.settle('r', { tokens: 2 * size.used })).toBe('unknown');
  expect(await store.reserve(requestOf('r', own, 0))).toEqual({ kind: 'spent' });
  const probe = await store.reserve(requestOf('probe', own, 0));
  const remaining = (dimension: string) =>
    probe.kind === 'reserved' ? (probe.states.find((state) => state.dimension === dimension)?.remaining ?? Number.NaN) : Number.NaN;
  return {
    live: await store.liveCount(),
    requests: remaining('requests'),
    concurrency: remaining('concurrency'),
    tokens: remaining('tokens'),
  };
}

function requestOf(reservationId: string, both: readonly LimitScope[], tokens: number) {
  return { reservationId, leaseMs, amounts: { requests: 1, tokens }, scopes: both };
}

function expectBounded({ limits: { requestsPerMinute, tokensPerMinute } }: LimitScope, admitted: readonly Admitted[]): void {
  for (const [from, first] of admitted.entries()) {
    let requests = 0;
    let tokens = 0;
    for (const { atMs, tokens: taken } of admitted.slice(from)) {
      requests++;
      tokens += taken;
      const minutes = (atMs - first.atMs) / 60_000;
      // A microsecond of tolerance.
      const allowed = (perMinute: number) => perMinute * (1 + minutes + 1e-6 / 60) + 1e-6;
      if (requestsPerMinute !== undefined) expect(requests).toBeLessThanOrEqual(allowed(requestsPerMinute));
      if (tokensPerMinute !== undefined) expect(tokens).toBeLessThanOrEqual(allowed(tokensPerMinute));
    }
  }
}
