/** Reserve and settle in memory: over a tenant's and a key's limits, each two rates and a concurrency, or over the whole tree. */
import { MemoryLimitStore } from '../../src/adapters/memory/limit-store.ts';
import type { LimitScope, LimitScopeName } from '../../src/admission/limit-store.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { type Pace, summary } from './stopwatch.ts';

const limits = { requestsPerMinute: 1_000_000_000, tokensPerMinute: 1_000_000_000_000, concurrency: 1_000 };
const everyRate = { ...limits, inputTokensPerMinute: 1_000_000_000_000, outputTokensPerMinute: 1_000_000_000_000 };
const levels: readonly LimitScopeName[] = ['tenant', 'team', 'key', 'user', 'session'];
const period = { id: '2026-11', endsAtMs: Date.now() + 86_400_000 };
const leaseMs = 30_000;

/** Five scopes, each with four rates, a concurrency and a budget. */
export function wholeTree(tenant: string): readonly LimitScope[] {
  const budget = { limitNanoUsd: 1e15, isHard: true, isKept: true, period };
  return levels.map((name, depth) => ({ name, key: `${tenant}${':x'.repeat(depth)}`, limits: everyRate, budget }));
}

function twoScopes(tenant: string): readonly LimitScope[] {
  return [
    { name: 'tenant', key: tenant, limits },
    { name: 'key', key: `${tenant}:k:1`, limits },
  ];
}

export async function measureReserveSettle(tenants: number, durationMs: number, isWholeTree = false): Promise<Pace> {
  const store = new MemoryLimitStore(systemClock);
  const scopes = Array.from({ length: tenants }, (_, index) => (isWholeTree ? wholeTree : twoScopes)(`t:${index}`));
  const untilMs = performance.now() + durationMs;
  const startMs = performance.now();
  let cycles = 0;
  while (performance.now() < untilMs) {
    const reservationId = `rsv_${String(cycles).padStart(26, '0')}`;
    const outcome = await store.reserve({
      reservationId,
      leaseMs,
      amounts: { inputTokens: 200, outputTokens: 300, costNanoUsd: isWholeTree ? 100 : 0 },
      scopes: scopes[cycles % tenants] ?? [],
    });
    if (outcome.kind !== 'reserved') throw new Error(`a reservation was ${outcome.kind}`);
    await store.settle(reservationId, { inputTokens: 200, outputTokens: 100, costNanoUsd: isWholeTree ? 50 : 0 });
    cycles++;
  }
  return summary(new Float64Array(0), (cycles / (performance.now() - startMs)) * 1_000);
}
