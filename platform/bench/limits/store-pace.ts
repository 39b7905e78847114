/** Reserve and settle in a closed loop, whatever the store. */
import type { LimitStore } from '../../src/admission/limit-store.ts';
import { actual, reserved, type Shape } from './shapes.ts';

export interface StoreLoad {
  /** Taken in turn. */
  readonly stores: readonly LimitStore[];
  readonly shape: Shape;
  readonly tenants: number;
  /** Requests under way at once. */
  readonly inFlight: number;
  readonly durationMs: number;
  /** However long they take. */
  readonly requestsMin?: number;
}

export interface StorePace {
  readonly requests: number;
  readonly perSecond: number;
  readonly reserveP50Us: number;
  readonly reserveP99Us: number;
  readonly settleP50Us: number;
  readonly settleP99Us: number;
}

/** Times of every 16th request are kept. */
const sampleEvery = 16;
let runs = 0;

export async function paceOfStores({ stores, shape, tenants, inFlight, durationMs, requestsMin = 1 }: StoreLoad): Promise<StorePace> {
  const scopes = Array.from({ length: tenants }, (_, index) => shape.scopesOf(`tenant-${index}`));
  const reserveUs: number[] = [];
  const settleUs: number[] = [];
  const run = runs++;
  let requests = 0;
  const startMs = performance.now();
  const untilMs = startMs + durationMs;
  const caller = async (store: LimitStore) => {
    for (let fromMs = startMs; fromMs < untilMs || requests < requestsMin; ) {
      const number = requests++;
      const reservationId = `rsv_${run}_${number}`;
      fromMs = performance.now();
      const outcome = await store.reserve({ reservationId, leaseMs: 30_000, amounts: reserved, scopes: scopes[number % tenants] ?? [] });
      if (outcome.kind !== 'reserved') throw new Error(`a reservation was ${outcome.kind}`);
      const betweenMs = performance.now();
      await store.settle(reservationId, actual);
      if (number % sampleEvery !== 0) continue;
      reserveUs.push((betweenMs - fromMs) * 1_000);
      settleUs.push((performance.now() - betweenMs) * 1_000);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, index) => caller(stores[index % stores.length] as LimitStore)));
  const perSecond = (requests / (performance.now() - startMs)) * 1_000;
  const [reserve, settle] = [sorted(reserveUs), sorted(settleUs)];
  return {
    requests,
    perSecond,
    reserveP50Us: at(reserve, 0.5),
    reserveP99Us: at(reserve, 0.99),
    settleP50Us: at(settle, 0.5),
    settleP99Us: at(settle, 0.99),
  };
}

function sorted(samples: readonly number[]): Float64Array {
  return new Float64Array(samples).sort();
}

function at(samples: Float64Array, part: number): number {
  return samples[Math.floor(part * (samples.length - 1))] ?? Number.NaN;
}
