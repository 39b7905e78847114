/**
 * Money in a limit store: set aside whole before the call, corrected after it, never more than the limit, a period at a time. Faults that were planted and seen:
 * checking what is spent without what is set aside; settling into the period that runs instead of the one that was reserved in; forgetting what the source says;
 * asking the source once for each request; refusing by a soft budget; counting a refused request.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { BudgetSource, LimitScope, LimitStore, ReserveOutcome, ScopeBudget } from '../../src/admission/limit-store.ts';
import { ManualClock } from '../../src/primitives/clock.ts';

type Open = (clock: ManualClock, budgets?: BudgetSource) => Promise<LimitStore>;

const leaseMs = 30_000;
const startMs = Date.UTC(2026, 0, 1);

function budgetOf(limitNanoUsd: number, changes: Partial<ScopeBudget> = {}): ScopeBudget {
  return { limitNanoUsd, isHard: true, isKept: true, period: { id: '2026-01', endsAtMs: startMs + 86_400_000 }, ...changes };
}

function scopeOf(budget: ScopeBudget, name: LimitScope['name'] = 'tenant'): LimitScope {
  return { name, key: `t:4.acme:${name}`, limits: {}, budget };
}

const costing = (costNanoUsd: number) => ({ inputTokens: 0, outputTokens: 0, costNanoUsd });
const requestOf = (reservationId: string, scopes: readonly LimitScope[], costNanoUsd: number) => ({
  reservationId,
  leaseMs,
  amounts: costing(costNanoUsd),
  scopes,
});

/** What a budget has left, as a request that costs nothing sees it. */
async function leftOf(store: LimitStore, scope: LimitScope): Promise<number | undefined> {
  const id = `probe ${Math.random()}`;
  const probe: ReserveOutcome = await store.reserve(
    requestOf(id, [{ ...scope, budget: scope.budget && { ...scope.budget, isHard: false } }], 0),
  );
  await store.settle(id, costing(0));
  return probe.kind === 'reserved' ? probe.states.find(({ dimension }) => dimension === 'budget')?.remaining : undefined;
}

export function describeLimitBudgets(open: Open): void {
  it('sets money aside before the call: 64 first requests at once spend no more than the budget (lessons 1 and 13)', async () => {
    const store = await open(new ManualClock());
    const tenant = scopeOf(budgetOf(1_000));
    const outcomes = await Promise.all(Array.from({ length: 64 }, (_, index) => store.reserve(requestOf(`r${index}`, [tenant], 100))));
    expect(outcomes.filter(({ kind }) => kind === 'reserved')).toHaveLength(10);
    // What is only set aside may come back.
    expect(outcomes.at(-1)).toMatchObject({ kind: 'denied', binding: { dimension: 'budget', remaining: 0 }, retryAfterMs: 1_000 });
  });

  it('says that nothing before the end of the period can help when the money is spent, with what is left', async () => {
    const clock = new ManualClock();
    const store = await open(clock);
    const tenant = scopeOf(budgetOf(1_000));
    await store.reserve(requestOf('a', [tenant], 700));
    await store.settle('a', costing(650));
    clock.advance(1_000);
    expect(await store.reserve(requestOf('b', [tenant], 351))).toMatchObject({
      kind: 'exhausted',
      binding: { scope: 'tenant', dimension: 'budget', limit: 1_000, remaining: 350, resetMs: 86_399_000 },
      used: 650,
      requested: 351,
    });
    expect((await store.reserve(requestOf('c', [tenant], 350))).kind).toBe('reserved');
    await store.settle('c', costing(350));
    // A request that costs nothing does not begin either.
    expect((await store.reserve(requestOf('d', [tenant], 0))).kind).toBe('exhausted');
  });

  it('gives back what a call did not cost, and all of a call that was not made (lessons 16 and 17)', async () => {
    const store = await open(new ManualClock());
    const tenant = scopeOf(budgetOf(1_000));
    for (let index = 0; index < 500; index++) {
      expect((await store.reserve(requestOf(`r${index}`, [tenant], 700))).kind).toBe('reserved');
      await store.settle(`r${index}`, costing(index % 2));
    }
    expect(await leftOf(store, tenant)).toBe(750);
  });

  it('counts and never refuses where the budget is soft', async () => {
    const store = await open(new ManualClock());
    const tenant = scopeOf(budgetOf(100, { isHard: false }));
    for (let index = 0; index < 3; index++) {
      expect((await store.reserve(requestOf(`r${index}`, [tenant], 90))).kind).toBe('reserved');
      await store.settle(`r${index}`, costing(90));
    }
    expect((await store.reserve(requestOf('h', [scopeOf(budgetOf(271))], 2))).kind).toBe('exhausted');
    expect((await store.reserve(requestOf('h', [scopeOf(budgetOf(271))], 1))).kind).toBe('reserved');
  });

  it('begins each period with nothing spent, and counts a call where it was reserved', async () => {
    const store = await open(new ManualClock());
    const january = scopeOf(budgetOf(1_000));
    const february = scopeOf(budgetOf(1_000, { period: { id: '2026-02', endsAtMs: startMs + 60 * 86_400_000 } }));
    await store.reserve(requestOf('late', [january], 600));
    expect((await store.reserve(requestOf('b', [february], 1_000))).kind).toBe('reserved');
    await store.settle('late', costing(600));
    await store.settle('b', costing(100));
    expect(await leftOf(store, february)).toBe(900);
  });

  it('goes on from what the period has cost, asked once for all who wait', async () => {
    const asked: string[] = [];
    const budgets: BudgetSource = {
      spentNanoUsd: async (key, periodId) => {
        asked.push(`${key} ${periodId}`);
        return 940;
      },
    };
    const store = await open(new ManualClock(), budgets);
    const tenant = scopeOf(budgetOf(1_000));
    const outcomes = await Promise.all(Array.from({ length: 8 }, (_, index) => store.reserve(requestOf(`r${index}`, [tenant], 20))));
    expect(outcomes.filter(({ kind }) => kind === 'reserved')).toHaveLength(3);
    expect(asked).toEqual(['t:4.acme:tenant 2026-01']);
  });

  it('takes nothing while it cannot be known what was spent, and asks again', async () => {
    let isDown = true;
    const store = await open(new ManualClock(), {
      spentNanoUsd: () => (isDown ? Promise.reject(new Error('the ledger is down')) : Promise.resolve(0)),
    });
    const tenant = scopeOf(budgetOf(1_000));
    await expect(store.reserve(requestOf('a', [tenant], 1))).rejects.toThrow('the ledger is down');
    expect(await store.liveCount()).toBe(0);
    isDown = false;
    expect((await store.reserve(requestOf('a', [tenant], 1_000))).kind).toBe('reserved');
  });

  it('takes a changed limit at once and forgets nothing of what is spent', async () => {
    const store = await open(new ManualClock());
    await store.reserve(requestOf('a', [scopeOf(budgetOf(1_000))], 500));
    await store.settle('a', costing(500));
    expect((await store.reserve(requestOf('b', [scopeOf(budgetOf(400))], 1))).kind).toBe('exhausted');
    expect((await store.reserve(requestOf('c', [scopeOf(budgetOf(600))], 100))).kind).toBe('reserved');
  });

  it('refuses by the scope that has least, and leaves the others as they were', async () => {
    const store = await open(new ManualClock());
    const tenant = scopeOf(budgetOf(1_000));
    const user = scopeOf(budgetOf(10), 'user');
    expect(await store.reserve(requestOf('a', [tenant, user], 11))).toMatchObject({ kind: 'exhausted', binding: { scope: 'user' } });
    expect(await leftOf(store, tenant)).toBe(1_000);
  });

  it('charges a lease that ran out what was reported, and a late settlement the rest', async () => {
    const clock = new ManualClock();
    const store = await open(clock);
    const tenant = scopeOf(budgetOf(1_000));
    await store.reserve(requestOf('a', [tenant], 500));
    await store.renew('a', leaseMs, costing(120));
    clock.advance(leaseMs);
    expect(await store.reap()).toBe(1);
    expect(await leftOf(store, tenant)).toBe(880);
    await store.settle('a', costing(200));
    expect(await leftOf(store, tenant)).toBe(800);
  });

  it('never lets what is spent and set aside pass the limit, in any scope (invariant 8)', async () => {
    const call = fc.record({
      bound: fc.integer({ min: 0, max: 300 }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      settles: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(call, { maxLength: 60, size: 'max' }), fc.nat(2_000), fc.nat(2_000), async (calls, ofTenant, ofTeam) => {
        const store = await open(new ManualClock());
        const scopes = [scopeOf(budgetOf(ofTenant + 1)), scopeOf(budgetOf(ofTeam + 1), 'team')];
        const least = Math.min(ofTenant, ofTeam) + 1;
        let [spent, aside] = [0, 0];
        for (const [index, { bound, share, settles }] of calls.entries()) {
          const { kind } = await store.reserve(requestOf(`r${index}`, scopes, bound));
          expect(kind === 'reserved').toBe(spent < least && spent + aside + bound <= least);
          if (kind !== 'reserved') continue;
          const actual = Math.floor(bound * share);
          if (settles) await store.settle(`r${index}`, costing(actual));
          if (settles) spent += actual;
          else aside += bound;
        }
        expect(await leftOf(store, scopes[0] as LimitScope)).toBe(ofTenant + 1 - spent - aside);
      }),
      { numRuns: 150 },
    );
  });
}
