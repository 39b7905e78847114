/** Reserve and settle in memory: a tenant's and a key's limits together, each with two rates and a concurrency. */
import { MemoryLimitStore } from '../../src/adapters/memory/limit-store.ts';
import type { ReserveRequest } from '../../src/admission/limit-store.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { type Pace, summary } from './stopwatch.ts';

const limits = { requestsPerMinute: 1_000_000_000, tokensPerMinute: 1_000_000_000_000, concurrency: 1_000 };
const leaseMs = 30_000;

export async function measureReserveSettle(tenants: number, durationMs: number): Promise<Pace> {
  const store = new MemoryLimitStore(systemClock);
  const scopes = Array.from({ length: tenants }, (_, index): ReserveRequest['scopes'] => [
    { name: 'tenant', key: `t:${index}`, limits },
    { name: 'key', key: `t:${index}:k:1`, limits },
  ]);
  const untilMs = performance.now() + durationMs;
  const startMs = performance.now();
  let cycles = 0;
  while (performance.now() < untilMs) {
    const reservationId = `rsv_${String(cycles).padStart(26, '0')}`;
    const outcome = await store.reserve({
      reservationId,
      leaseMs,
      amounts: { inputTokens: 200, outputTokens: 300, costNanoUsd: 0 },
      scopes: scopes[cycles % tenants] ?? [],
    });
    if (outcome.kind !== 'reserved') throw new Error(`a reservation was ${outcome.kind}`);
    await store.settle(reservationId, { inputTokens: 200, outputTokens: 100, costNanoUsd: 0 });
    cycles++;
  }
  return summary(new Float64Array(0), (cycles / (performance.now() - startMs)) * 1_000);
}
