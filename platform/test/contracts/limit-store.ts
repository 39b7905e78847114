/**
 * What every limit store must do, in memory or in Valkey. Properties are checked against a plain token bucket; seeds are printed by fast-check.
 * Faults that were planted and seen: refunding requests, skipping the clamp to now (refund above the burst), returning the first instead of the
 * longest wait, forgetting settled ids, taking scopes one by one (denied reserve leaves a trace), rounding the wait down.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BudgetSource, LimitScope, LimitStore, ReserveOutcome } from '../../src/admission/limit-store.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { LimitPolicy } from '../../src/tenancy/tenant.ts';
import { describeLimitBudgets } from './limit-store-budgets.ts';
import { describeLimitHistories, used } from './limit-store-histories.ts';

export type OpenLimitStore = (clock: ManualClock, budgets?: BudgetSource) => Promise<LimitStore>;

const scope = (key: string, limits: LimitPolicy, name: LimitScope['name'] = 'tenant'): LimitScope => ({ name, key, limits });
const request = (reservationId: string, scopes: readonly LimitScope[], tokens = 0) => ({
  reservationId,
  leaseMs: 30_000,
  amounts: used(tokens),
  scopes,
});

export function describeLimitStore(name: string, open: OpenLimitStore): void {
  describe(name, () => {
    describeLimits(open);
    describeSettlement(open);
    describeProperties(open);
    describeLimitHistories(open);
    describeLimitBudgets(open);
  });
}

async function opened(open: OpenLimitStore) {
  const clock = new ManualClock();
  return { clock, store: await open(clock) };
}

function describeLimits(open: OpenLimitStore): void {
  it.each([
    ['requests', { requestsPerMinute: 3 }, 'requests', 0],
    ['tokens', { tokensPerMinute: 300 }, 'tokens', 100],
    ['concurrency', { concurrency: 3 }, 'concurrency', 0],
    ['input tokens', { inputTokensPerMinute: 99 }, 'input_tokens', 100],
    ['output tokens', { outputTokensPerMinute: 201 }, 'output_tokens', 100],
  ] as const)('admits n by %s and refuses n + 1, naming the limit that bound', async (_, limits, dimension, tokens) => {
    const { store } = await opened(open);
    const tenant = scope('t', limits);
    for (let index = 0; index < 3; index++) expect((await store.reserve(request(`r${index}`, [tenant], tokens))).kind).toBe('reserved');
    const refused = await store.reserve(request('r3', [tenant], tokens));
    expect(refused).toMatchObject({ kind: 'denied', binding: { scope: 'tenant', dimension, remaining: 0 } });
  });

  it('never admits more than the limit from 64 first requests at once', async () => {
    const { store } = await opened(open);
    const tenant = scope('t', { requestsPerMinute: 10, tokensPerMinute: 10_000 });
    const outcomes = await Promise.all(Array.from({ length: 64 }, (_, index) => store.reserve(request(`r${index}`, [tenant], 100))));
    expect(outcomes.filter((outcome) => outcome.kind === 'reserved')).toHaveLength(10);
  });

  it('takes from both scopes or from none', async () => {
    const { store } = await opened(open);
    const tenant = scope('t', { requestsPerMinute: 100 });
    const key = scope('k', { requestsPerMinute: 1 }, 'key');
    await store.reserve(request('a', [tenant, key]));
    expect(await store.reserve(request('b', [tenant, key]))).toMatchObject({ kind: 'denied', binding: { scope: 'key' } });
    const other = await store.reserve(request('c', [tenant]));
    expect(other).toMatchObject({ kind: 'reserved', states: [{ dimension: 'requests', remaining: 98 }] });
  });

  it.each([
    ['requests', { requestsPerMinute: 8 }, 0],
    ['tokens', { tokensPerMinute: 800 }, 100],
    ['concurrency', { concurrency: 8 }, 0],
  ] as const)('leaves a quarter of the %s to others where three quarters are asked for', async (_, limits, tokens) => {
    const { store } = await opened(open);
    const tenant = scope('t', limits);
    const part = (id: string) => ({ ...request(id, [tenant], tokens), share: 0.75 });
    for (let index = 0; index < 6; index++) expect((await store.reserve(part(`r${index}`))).kind).toBe('reserved');
    expect((await store.reserve(part('r6'))).kind).toBe('denied');
    for (let index = 0; index < 2; index++) expect((await store.reserve(request(`i${index}`, [tenant], tokens))).kind).toBe('reserved');
    expect((await store.reserve(request('i2', [tenant], tokens))).kind).toBe('denied');
  });

  it('lets one in where a part of the limit would be none, and says when a lone retry succeeds', async () => {
    const { store, clock } = await opened(open);
    const one = scope('one', { requestsPerMinute: 1, concurrency: 1 });
    expect((await store.reserve({ ...request('a', [one]), share: 0.75 })).kind).toBe('reserved');
    const tenant = scope('t', { tokensPerMinute: 800 });
    const part = (id: string, tokens: number) => ({ ...request(id, [tenant], tokens), share: 0.75 });
    expect(await store.reserve(part('b', 601))).toMatchObject({ kind: 'too_large', requested: 601 });
    await store.reserve(part('c', 600));
    const denied = await store.reserve(part('d', 200));
    expect(denied).toMatchObject({ kind: 'denied', retryAfterMs: 15_000 });
    clock.advance(14_999);
    expect((await store.reserve(part('e', 200))).kind).toBe('denied');
    clock.advance(1);
    expect((await store.reserve(part('f', 200))).kind).toBe('reserved');
  });

  it('answers with the longest wait over all scopes', async () => {
    const { store } = await opened(open);
    const fast = scope('t', { requestsPerMinute: 60 });
    const slow = scope('k', { requestsPerMinute: 1 }, 'key');
    await store.reserve(request('a', [fast, slow]));
    for (let index = 0; index < 59; index++) await store.reserve(request(`f${index}`, [fast]));
    expect(await store.reserve(request('b', [fast, slow]))).toMatchObject({
      kind: 'denied',
      binding: { scope: 'key' },
      retryAfterMs: 60_000,
    });
  });

  // Planted: the scope with the most left; the innermost of two with the same.
  it('shows of each dimension the scope with the least left', async () => {
    const { store } = await opened(open);
    const tenant = scope('t', { requestsPerMinute: 100, tokensPerMinute: 500, concurrency: 4 });
    const key = scope('k', { requestsPerMinute: 10, tokensPerMinute: 5_000, concurrency: 4, outputTokensPerMinute: 900 }, 'key');
    await store.reserve(request('a', [tenant], 100));
    expect(await store.reserve(request('b', [tenant, key], 30))).toEqual({
      kind: 'reserved',
      states: [
        { scope: 'key', dimension: 'requests', limit: 10, remaining: 9, resetMs: 6_000 },
        { scope: 'tenant', dimension: 'tokens', limit: 500, remaining: 370, resetMs: 15_600 },
        { scope: 'key', dimension: 'output_tokens', limit: 900, remaining: 880, resetMs: 1_334 },
        { scope: 'tenant', dimension: 'concurrency', limit: 4, remaining: 2, resetMs: 0 },
      ],
    });
  });

  it('calls what can never fit too large, with no wait', async () => {
    const { store } = await opened(open);
    const tenant = scope('t', { tokensPerMinute: 100 });
    expect((await store.reserve(request('fits', [tenant], 100))).kind).toBe('reserved');
    expect(await store.reserve(request('never', [tenant], 101))).toMatchObject({
      kind: 'too_large',
      requested: 101,
      binding: { limit: 100 },
    });
  });

  it('applies a changed limit at once and does not forget what is in use', async () => {
    const { store } = await opened(open);
    for (let index = 0; index < 5; index++) await store.reserve(request(`r${index}`, [scope('t', { concurrency: 8 })]));
    expect((await store.reserve(request('lower', [scope('t', { concurrency: 5 })]))).kind).toBe('denied');
    expect((await store.reserve(request('higher', [scope('t', { concurrency: 6 })]))).kind).toBe('reserved');
  });

  // Planted: counting slots where there is a limit for them alone; forgetting a bucket whose limit is taken away.
  it('goes on from what is in use when a limit is taken away and set again', async () => {
    const { store } = await opened(open);
    const limited = (concurrency: number) => [scope('t', { concurrency, tokensPerMinute: 1_000 })];
    for (let index = 0; index < 3; index++) await store.reserve(request(`r${index}`, limited(8), 200));
    for (let index = 0; index < 3; index++)
      expect((await store.reserve(request(`free${index}`, [scope('t', {})], 9_999))).kind).toBe('reserved');
    expect(await store.reserve(request('full', limited(6)))).toMatchObject({ kind: 'denied', binding: { dimension: 'concurrency' } });
    expect(await store.reserve(request('empty', limited(7), 401))).toMatchObject({ kind: 'denied', binding: { dimension: 'tokens' } });
    expect((await store.reserve(request('last', limited(7), 400))).kind).toBe('reserved');
  });

  it('does not care about the wall clock', async () => {
    const { clock, store } = await opened(open);
    const tenant = scope('t', { requestsPerMinute: 1 });
    await store.reserve(request('a', [tenant]));
    for (const step of [3_600_000, -7_200_000]) {
      clock.stepWallClock(step);
      expect((await store.reserve(request(`b${step}`, [tenant]))).kind).toBe('denied');
    }
  });
}

function describeSettlement(open: OpenLimitStore): void {
  it('gives unused tokens back, never the request', async () => {
    const { store } = await opened(open);
    const tenant = scope('t', { requestsPerMinute: 2, tokensPerMinute: 100 });
    await store.reserve(request('a', [tenant], 100));
    await store.settle('a', used(0));
    expect(await store.reserve(request('b', [tenant], 100))).toMatchObject({ kind: 'reserved' });
    await store.settle('b', used(0));
    expect(await store.reserve(request('c', [tenant], 1))).toMatchObject({ kind: 'denied', binding: { dimension: 'requests' } });
  });

  it('turns over-use into debt that the next request waits for', async () => {
    const { clock, store } = await opened(open);
    const tenant = scope('t', { tokensPerMinute: 600 });
    await store.reserve(request('a', [tenant], 10));
    await store.settle('a', used(1_210));
    expect(await store.reserve(request('b', [tenant], 10))).toMatchObject({ kind: 'denied', retryAfterMs: 62_000 });
    clock.advance(62_000);
    expect((await store.reserve(request('b', [tenant], 10))).kind).toBe('reserved');
  });

  it('answers a repeated reserve as the first, and never admits a settled id again', async () => {
    const { store } = await opened(open);
    const tenant = scope('t', { requestsPerMinute: 5 });
    const first = await store.reserve(request('a', [tenant]));
    expect(await store.reserve(request('a', [tenant]))).toEqual(first);
    expect(await store.settle('a', used(0))).toBe('settled');
    expect(await store.settle('a', used(0))).toBe('unknown');
    expect(await store.reserve(request('a', [tenant]))).toEqual({ kind: 'spent' });
  });

  it('reaps an expired lease at its recorded progress and corrects a late settlement', async () => {
    const { clock, store } = await opened(open);
    const tenant = scope('t', { tokensPerMinute: 1_000, concurrency: 1 });
    await store.reserve(request('a', [tenant], 500));
    clock.advance(29_999);
    expect(await store.reap()).toBe(0);
    await store.renew('a', 30_000, used(40));
    clock.advance(30_000);
    expect(await store.reap()).toBe(1);
    expect(await store.liveCount()).toBe(0);
    expect((await store.reserve(request('b', [tenant], 1))).kind).toBe('reserved');
    await store.settle('b', used(1));
    expect(await store.settle('a', used(900))).toBe('corrected_after_reap');
    expect(await store.settle('a', used(900))).toBe('unknown');
    expect(await store.renew('a', 30_000, used(1))).toBe(false);
    expect(await store.reserve(request('c', [tenant], 500))).toMatchObject({ kind: 'denied', binding: { dimension: 'tokens' } });
  });

  // Planted: reaping at nothing; charging a late settlement without what the reap has charged.
  it('charges what was reported when it reaps, and only the rest when the settlement comes late', async () => {
    const { clock, store } = await opened(open);
    const tenant = scope('t', { tokensPerMinute: 1_000 });
    await store.reserve(request('a', [tenant], 500));
    await store.renew('a', 30_000, used(900));
    await store.renew('a', 30_000, used(100));
    clock.advance(30_000);
    expect(await store.reap()).toBe(1);
    // The 500 reserved have refilled in half a minute; the 400 beyond them are new.
    const tokensLeft = async (id: string) => {
      const probe = await store.reserve(request(id, [tenant], 0));
      return probe.kind === 'reserved' ? probe.states.find((state) => state.dimension === 'tokens')?.remaining : undefined;
    };
    expect(await tokensLeft('b')).toBe(600);
    await store.settle('a', used(950));
    expect(await tokensLeft('c')).toBe(550);
  });

  // Planted: taking any count.
  it.each([Number.NaN, Number.POSITIVE_INFINITY, -1, 0.5])('takes no %d tokens: the bucket would never be right again', async (tokens) => {
    const { store } = await opened(open);
    const tenant = scope('t', { tokensPerMinute: 100, concurrency: 1 });
    await expect(store.reserve(request('bad', [tenant], tokens))).rejects.toThrow();
    await store.reserve(request('a', [tenant], 10));
    await expect(store.settle('a', used(tokens))).rejects.toThrow();
    await store.settle('a', used(0));
    expect(await store.reserve(request('b', [tenant], 100))).toMatchObject({ kind: 'reserved' });
  });
}

type Step =
  | { readonly kind: 'reserve'; readonly tokens: number }
  | { readonly kind: 'settle'; readonly pick: number; readonly tokens: number }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'reap' };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('reserve' as const), tokens: fc.integer({ min: 0, max: 400 }) }),
  fc.record({ kind: fc.constant('settle' as const), pick: fc.nat(20), tokens: fc.integer({ min: 0, max: 800 }) }),
  fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 40_000 }) }),
  fc.constant({ kind: 'reap' as const }),
);
const limits = { requestsPerMinute: 20, tokensPerMinute: 600, concurrency: 4 };

/** The plain bucket that the store must agree with: a level that refills, may go below zero by debt, and never rises above the burst. */
class Bucket {
  level: number;
  readonly #perMs: number;
  readonly #burst: number;
  constructor(perMinute: number) {
    this.level = perMinute;
    this.#burst = perMinute;
    this.#perMs = perMinute / 60_000;
  }
  pass(ms: number): void {
    this.level = Math.min(this.#burst, this.level + ms * this.#perMs);
  }
  add(amount: number): void {
    this.level = Math.min(this.#burst, this.level + amount);
  }
}

function describeProperties(open: OpenLimitStore): void {
  it('agrees with a plain bucket after any history (invariants 1 to 5)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80, size: 'max' }), async (steps) => {
        const { clock, store } = await opened(open);
        const model = {
          requests: new Bucket(limits.requestsPerMinute),
          tokens: new Bucket(limits.tokensPerMinute),
          live: new Map<string, { tokens: number; atMs: number }>(),
        };
        let count = 0;
        for (const next of steps) {
          if (next.kind === 'wait') {
            clock.advance(next.ms);
            model.requests.pass(next.ms);
            model.tokens.pass(next.ms);
          } else if (next.kind === 'reserve') await checkReserve({ store, clock, model, id: `r${count++}`, tokens: next.tokens });
          else if (next.kind === 'settle') await settleOne({ store, model, next });
          else await reapAll({ store, clock, model });
          expect(await store.liveCount()).toBe(model.live.size);
        }
      }),
      { numRuns: 150 },
    );
  });

  it('names a wait that is sufficient, and not longer than needed (invariant 7)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 1, max: 700 }),
        async (taken, wanted) => {
          const { clock, store } = await opened(open);
          // 700 a minute: the wait for a token is no whole number of milliseconds.
          const tenant = scope('t', { tokensPerMinute: 700 });
          for (const [index, tokens] of taken.entries()) await store.reserve(request(`r${index}`, [tenant], tokens));
          const refused = await store.reserve(request('w', [tenant], wanted));
          if (refused.kind !== 'denied') return;
          clock.advance(refused.retryAfterMs - 2);
          if (refused.retryAfterMs > 2) expect((await store.reserve(request('early', [tenant], wanted))).kind).toBe('denied');
          clock.advance(2);
          expect((await store.reserve(request('w', [tenant], wanted))).kind).toBe('reserved');
        },
      ),
      { numRuns: 200 },
    );
  });

  it('holds nothing when nothing is live: 10,000 mixed ends leave every slot free (lesson 4)', async () => {
    const { clock, store } = await opened(open);
    const tenant = scope('t', { concurrency: 16 });
    for (let index = 0; index < 10_000; index++) {
      const outcome: ReserveOutcome = await store.reserve(request(`r${index}`, [tenant], 10));
      if (outcome.kind !== 'reserved') {
        clock.advance(30_001);
        await store.reap();
      } else if (index % 3 === 0) await store.settle(`r${index}`, used(index % 20));
      else if (index % 3 === 1) await store.settle(`r${index}`, used(0));
      // Every third holder dies without a word; its lease runs out.
    }
    clock.advance(30_001);
    await store.reap();
    expect(await store.liveCount()).toBe(0);
    const free = await Promise.all(Array.from({ length: 17 }, (_, index) => store.reserve(request(`free${index}`, [tenant]))));
    expect(free.map((outcome) => outcome.kind)).toEqual([...Array.from({ length: 16 }, () => 'reserved'), 'denied']);
  });
}

interface Model {
  readonly requests: Bucket;
  readonly tokens: Bucket;
  readonly live: Map<string, { tokens: number; atMs: number }>;
}

async function checkReserve(attempt: { store: LimitStore; clock: ManualClock; model: Model; id: string; tokens: number }): Promise<void> {
  const { store, clock, model, id, tokens } = attempt;
  const outcome = await store.reserve(request(id, [scope('t', limits)], tokens));
  // The store counts microseconds and forgives half of one, which is 2e-7 of a request and 5e-6 of a token here; between the two lines either answer is right.
  const hasSlot = model.live.size < limits.concurrency;
  const fits = hasSlot && model.requests.level >= 1 - 1e-9 && (tokens === 0 || model.tokens.level >= tokens - 1e-9);
  const clearlyNot = !hasSlot || model.requests.level < 1 - 1e-6 || (tokens > 0 && model.tokens.level < tokens - 1e-4);
  if (fits) expect(outcome.kind).toBe('reserved');
  if (clearlyNot) expect(outcome.kind).toBe('denied');
  if (outcome.kind !== 'reserved') return;
  model.requests.add(-1);
  model.tokens.add(-tokens);
  model.live.set(id, { tokens, atMs: clock.monotonicMs() });
}

async function settleOne(settling: {
  store: LimitStore;
  model: Model;
  next: { readonly pick: number; readonly tokens: number };
}): Promise<void> {
  const { store, model, next } = settling;
  const [id] = [...model.live.keys()].slice(next.pick % Math.max(1, model.live.size));
  if (id === undefined) return;
  const { tokens = 0 } = model.live.get(id) ?? {};
  expect(await store.settle(id, used(next.tokens))).toBe('settled');
  model.tokens.add(tokens - next.tokens);
  model.live.delete(id);
}

async function reapAll({ store, clock, model }: { store: LimitStore; clock: ManualClock; model: Model }): Promise<void> {
  const expired = [...model.live].filter(([, lease]) => clock.monotonicMs() - lease.atMs >= 30_000);
  expect(await store.reap()).toBe(expired.length);
  for (const [id, { tokens }] of expired) {
    model.tokens.add(tokens);
    model.live.delete(id);
  }
}
