import { describe, expect, it } from 'vitest';
import { MemoryLimitStore } from '../../src/adapters/memory/limit-store.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { describeLimitStore } from '../contracts/limit-store.ts';
import { used } from '../contracts/limit-store-histories.ts';

describeLimitStore('the in-memory limit store', async (clock, budgets) => new MemoryLimitStore(clock, budgets));

describe('its memory', () => {
  it('does not grow with the number of tenants that were here once', async () => {
    const clock = new ManualClock();
    const store = new MemoryLimitStore(clock);
    for (let index = 0; index < 20_000; index++) {
      const scopes = [{ name: 'tenant', key: `t${index}`, limits: { requestsPerMinute: 10, concurrency: 1 } } as const];
      await store.reserve({ reservationId: `r${index}`, leaseMs: 1_000, amounts: used(0), scopes });
      await store.settle(`r${index}`, used(0));
      clock.advance(10);
    }
    clock.advance(60_000);
    await store.reap();
    expect(store.scopeCount).toBe(0);
  });

  // Planted: dropping the older generation at once.
  it('remembers the last 50,000 settled ids, so that none of them is admitted again', async () => {
    const store = new MemoryLimitStore(new ManualClock());
    const reserve = (index: number) => store.reserve({ reservationId: `r${index}`, leaseMs: 1_000, amounts: used(0), scopes: [] });
    for (let index = 0; index < 60_000; index++) {
      await reserve(index);
      await store.settle(`r${index}`, used(0));
    }
    for (const index of [10_000, 49_999, 50_000, 59_999]) expect((await reserve(index)).kind).toBe('spent');
  });
});
