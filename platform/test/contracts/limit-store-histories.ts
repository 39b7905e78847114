/**
 * Properties over whole histories with three scopes: what was admitted in any window, what a refusal leaves behind, and what the order of endings
 * changes. Faults that were planted and seen are named at each.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Amounts, LimitScope, LimitStore } from '../../src/admission/limit-store.ts';
import { ManualClock } from '../../src/primitives/clock.ts';

type Open = (clock: ManualClock) => Promise<LimitStore>;

/** So many tokens, a third of them input. */
export function used(tokens: number, costNanoUsd = 0): Amounts {
  const inputTokens = Math.floor(tokens / 3);
  return { inputTokens, outputTokens: tokens - inputTokens, costNanoUsd };
}

const leaseMs = 30_000;
const limits = fc.record({
  requestsPerMinute: fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined }),
  tokensPerMinute: fc.option(fc.integer({ min: 1, max: 3_000 }), { nil: undefined }),
  inputTokensPerMinute: fc.option(fc.integer({ min: 1, max: 1_000 }), { nil: undefined }),
  outputTokensPerMinute: fc.option(fc.integer({ min: 1, max: 2_000 }), { nil: undefined }),
  concurrency: fc.option(fc.integer({ min: 1, max: 8 }), { nil: undefined }),
});
const scopes = fc.tuple(limits, limits, limits).map(([tenant, key, user]): readonly LimitScope[] => [
  { name: 'tenant', key: 't:4.acme', limits: tenant },
  { name: 'key', key: 't:4.acme:k:2.k1', limits: key },
  { name: 'user', key: 't:4.acme:u:3.ann', limits: user },
]);
const arrival = fc.record({
  waitMs: fc.integer({ min: 0, max: 5_000 }),
  tokens: fc.integer({ min: 0, max: 400 }),
  actual: fc.integer({ min: 0, max: 400 }),
  settles: fc.boolean(),
});
const history = fc.array(arrival, { maxLength: 60, size: 'max' });

interface Admitted {
  readonly atMs: number;
  readonly tokens: number;
}

export function describeLimitHistories(open: Open): void {
  // Planted: a burst of two minutes; admitting while anything is left.
  it('admits in no window more than the burst and the rate allow, in any scope (invariants 1 and 9)', async () => {
    await fc.assert(
      fc.asyncProperty(scopes, history, async (both, arrivals) => {
        const clock = new ManualClock();
        const store = await open(clock);
        const admitted: Admitted[] = [];
        for (const [index, { waitMs, tokens, settles }] of arrivals.entries()) {
          clock.advance(waitMs);
          const outcome = await store.reserve(requestOf(`r${index}`, both, tokens));
          const { inputTokens, outputTokens } = used(tokens);
          const isAbove = (amount: number, limit = Number.POSITIVE_INFINITY) => amount > limit;
          const isTooLarge = both.some(
            ({ limits: own }) =>
              isAbove(tokens, own.tokensPerMinute) ||
              isAbove(inputTokens, own.inputTokensPerMinute) ||
              isAbove(outputTokens, own.outputTokensPerMinute),
          );
          expect(outcome.kind === 'too_large').toBe(isTooLarge);
          if (outcome.kind === 'reserved') admitted.push({ atMs: clock.monotonicMs(), tokens });
          // Settled at what was reserved: nothing is given back, so what was admitted was used.
          if (settles) await store.settle(`r${index}`, used(tokens));
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
        for (const [index, { waitMs, tokens, actual, settles }] of arrivals.entries()) {
          clock.advance(waitMs);
          const outcome = await store.reserve(requestOf(`r${index}`, both, tokens));
          if (outcome.kind !== 'reserved') continue;
          expect(await undisturbed.reserve(requestOf(`r${index}`, both, tokens))).toEqual(outcome);
          if (settles) for (const each of [store, undisturbed]) await each.settle(`r${index}`, used(actual));
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
      fc.asyncProperty(endings, fc.nat(400), fc.nat(800), async (order, tokens, actual) => {
        const left = await leftAfter(open, order, { tokens, actual });
        const expected = await leftAfter(open, [], { tokens, actual });
        expect({ ...left, tokens: 0 }).toEqual({ ...expected, tokens: 0 });
        // A reap refunds what a late settlement charges again; what would have refilled between the two is lost, never won.
        const least = order.includes('reap') ? Math.min(expected.tokens, generous.tokensPerMinute - actual - 10) : expected.tokens;
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
async function leftAfter(open: Open, order: readonly Ending[], size: { readonly tokens: number; readonly actual: number }) {
  const clock = new ManualClock();
  const store = await open(clock);
  const own: readonly LimitScope[] = [{ name: 'tenant', key: 't', limits: generous }];
  await store.reserve(requestOf('other', own, 10));
  await store.reserve(requestOf('r', own, size.tokens));
  clock.advance(leaseMs - 1);
  expect(await store.reap()).toBe(0);
  await store.renew('other', leaseMs, used(0));
  clock.advance(1);
  for (const ending of order) {
    if (ending === 'settle') await store.settle('r', used(size.actual));
    else if (ending === 'reap') await store.reap();
    else await store.renew('r', leaseMs, used(0));
  }
  await store.settle('r', used(size.actual));
  expect(await store.settle('r', used(2 * size.actual))).toBe('unknown');
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
  return { reservationId, leaseMs, amounts: used(tokens), scopes: both };
}

function expectBounded({ limits: own }: LimitScope, admitted: readonly Admitted[]): void {
  for (const [from, first] of admitted.entries()) {
    const taken = { requests: 0, tokens: 0, input: 0, output: 0 };
    for (const { atMs, tokens } of admitted.slice(from)) {
      const { inputTokens, outputTokens } = used(tokens);
      taken.requests++;
      taken.tokens += tokens;
      taken.input += inputTokens;
      taken.output += outputTokens;
      const minutes = (atMs - first.atMs) / 60_000;
      // A microsecond of tolerance.
      const allowed = (perMinute = Number.POSITIVE_INFINITY) => perMinute * (1 + minutes + 1e-6 / 60) + 1e-6;
      expect(taken.requests).toBeLessThanOrEqual(allowed(own.requestsPerMinute));
      expect(taken.tokens).toBeLessThanOrEqual(allowed(own.tokensPerMinute));
      expect(taken.input).toBeLessThanOrEqual(allowed(own.inputTokensPerMinute));
      expect(taken.output).toBeLessThanOrEqual(allowed(own.outputTokensPerMinute));
    }
  }
}
