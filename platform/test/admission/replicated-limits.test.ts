/** What a replica does with what it owes when the store that all share is back, whatever that store answers. A real one is in test/server/valkey/outage.test.ts. */
import { describe, expect, it, vi } from 'vitest';
import { MemoryLimitStore } from '../../src/adapters/memory/limit-store.ts';
import type { LimitScope, ReserveOutcome, ReserveRequest } from '../../src/admission/limit-store.ts';
import { type ChargedDebt, ReplicatedLimits, type SharedLimitStore } from '../../src/admission/replicated-limits.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { countingIds } from '../../src/primitives/ids.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { used } from '../contracts/limit-store-histories.ts';

class Gone extends Error {}

/** A store in memory that can be away, and is charged with what it is told. */
class ScriptedStore extends MemoryLimitStore implements SharedLimitStore {
  isAway = false;
  readonly charged: ChargedDebt[] = [];
  chargesAtOnce = 0;
  chargesAtOnceMax = 0;
  answerOf: (debt: ChargedDebt) => Promise<void> = async () => {};

  override async reserve(request: ReserveRequest): Promise<ReserveOutcome> {
    if (this.isAway) throw new Gone();
    return super.reserve(request);
  }

  async charge(debt: ChargedDebt): Promise<void> {
    this.charged.push(debt);
    this.chargesAtOnceMax = Math.max(this.chargesAtOnceMax, ++this.chargesAtOnce);
    try {
      await new Promise((resolve) => setImmediate(resolve));
      await this.answerOf(debt);
    } finally {
      this.chargesAtOnce--;
    }
  }

  lastKnown(): undefined {
    return undefined;
  }
  liveIn(): number {
    return 0;
  }
  endsLater(): void {}
  forget(): void {}
}

function opened() {
  const shared = new ScriptedStore(systemClock);
  const errors: unknown[] = [];
  const limits = new ReplicatedLimits({
    shared,
    openLocal: () => new MemoryLimitStore(systemClock),
    place: () => ({ rank: 0, count: 1 }),
    isUnavailable: (error) => error instanceof Gone,
    probe: async () => {
      if (shared.isAway) throw new Gone();
    },
    budgets: { spentNanoUsd: async () => 0 },
    ids: countingIds(),
    logger: { ...silentLogger, error: (facts) => errors.push(facts) },
  });
  return { shared, limits, errors };
}

const scopesOf = (tenant: string): readonly LimitScope[] => [{ name: 'tenant', key: `t:${tenant}`, limits: { tokensPerMinute: 1e9 } }];
const reserve = (limits: ReplicatedLimits, id: string) =>
  limits.reserve({ reservationId: id, leaseMs: 30_000, amounts: used(10), scopes: scopesOf(id) });

/** So many calls of as many tenants, admitted and ended without the shared store. */
async function owing(count: number) {
  const parts = opened();
  parts.shared.isAway = true;
  for (let index = 0; index < count; index++) {
    await reserve(parts.limits, `r${index}`);
    await parts.limits.settle(`r${index}`, used(20));
  }
  return parts;
}

const tenantsOf = (debts: readonly ChargedDebt[]) => debts.map(({ scopes }) => scopes[0]?.key);

describe('what is owed to the shared limits', () => {
  // Planted: one call after another; all at once.
  it('is charged many at a time, and never more than 64', async () => {
    const { shared, limits } = await owing(1_000);
    using _ = limits;
    expect(shared.charged).toEqual([]);
    shared.isAway = false;
    await vi.waitUntil(() => shared.charged.length === 1_000 && !limits.isAlone, { timeout: 5_000 });
    expect(shared.chargesAtOnceMax).toBe(64);
    expect(new Set(tenantsOf(shared.charged)).size).toBe(1_000);
  });

  // Planted: throwing it to whoever settles; owing it again; stopping at it.
  it('does not fail whoever settles then, nor the other debts, when one cannot be charged', async () => {
    const { shared, limits, errors } = await owing(0);
    using _ = limits;
    shared.isAway = true;
    for (const id of ['a', 'b', 'c']) await reserve(limits, id);
    shared.isAway = false;
    await vi.waitUntil(() => !limits.isAlone, { timeout: 5_000 });
    shared.answerOf = async ({ scopes }) => {
      if (scopes[0]?.key === 't:b') throw new RangeError('a fault of ours');
    };
    for (const id of ['a', 'b', 'c']) expect(await limits.settle(id, used(20))).toBe('settled');
    expect(tenantsOf(shared.charged)).toEqual(['t:a', 't:b', 't:c']);
    expect(errors).toEqual([{ component: 'limits', code: 'RangeError' }]);
    expect(limits.isAlone).toBe(false);
  });

  // Planted: a new id for what is asked again; asking all of them again.
  it('is asked for again with the same id when no answer came, and what was answered is not', async () => {
    const { shared, limits } = await owing(3);
    using _ = limits;
    let lost = 1;
    shared.answerOf = async ({ scopes }) => {
      if (scopes[0]?.key === 't:r1' && lost-- > 0) throw new Gone();
    };
    shared.isAway = false;
    await vi.waitUntil(() => shared.charged.length === 4 && !limits.isAlone, { timeout: 5_000 });
    expect(tenantsOf(shared.charged)).toEqual(['t:r0', 't:r1', 't:r2', 't:r1']);
    expect(shared.charged[3]?.id).toBe(shared.charged[1]?.id);
    expect(new Set(shared.charged.map(({ id }) => id)).size).toBe(3);
  });
});
