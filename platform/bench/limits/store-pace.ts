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
  /** Processor time of this process in all its threads, which counts the same however busy the machine is. */
  readonly processorUsPerRequest: number;
  readonly reserveP50Us: number;
  readonly reserveP99Us: number;
  readonly settleP50Us: number;
  readonly settleP99Us: number;
}

/** Of each caller every 16th request is timed, and looks whether the time is over. */
const sampleEvery = 16;
let runs = 0;

export async function paceOfStores({ stores, shape, tenants, inFlight, durationMs, requestsMin = 1 }: StoreLoad): Promise<StorePace> {
  const scopes = Array.from({ length: tenants }, (_, index) => shape.scopesOf(`tenant-${index}`));
  const reserveUs: number[] = [];
  const settleUs: number[] = [];
  const run = runs++;
  let requests = 0;
  const processorBefore = process.cpuUsage();
  const startMs = performance.now();
  const untilMs = startMs + durationMs;
  const request = async (store: LimitStore, number: number) => {
    const reservationId = `rsv_${run}_${number}`;
    const outcome = await store.reserve({ reservationId, leaseMs: 30_000, amounts: reserved, scopes: scopes[number % tenants] ?? [] });
    if (outcome.kind !== 'reserved') throw new Error(`a reservation was ${outcome.kind}`);
    return reservationId;
  };
  const caller = async (store: LimitStore) => {
    let isOver = false;
    for (let turn = 0; !isOver; turn++) {
      const number = requests++;
      if (turn % sampleEvery !== 0) {
        await store.settle(await request(store, number), actual);
        continue;
      }
      const fromMs = performance.now();
      const reservationId = await request(store, number);
      const betweenMs = performance.now();
      await store.settle(reservationId, actual);
      const atMs = performance.now();
      reserveUs.push((betweenMs - fromMs) * 1_000);
      settleUs.push((atMs - betweenMs) * 1_000);
      isOver = atMs >= untilMs && requests >= requestsMin;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, index) => caller(stores[index % stores.length] as LimitStore)));
  const perSecond = (requests / (performance.now() - startMs)) * 1_000;
  const { user, system } = process.cpuUsage(processorBefore);
  const [reserve, settle] = [sorted(reserveUs), sorted(settleUs)];
  return {
    requests,
    perSecond,
    processorUsPerRequest: (user + system) / requests,
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
