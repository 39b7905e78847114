/** One measurement in a thread, so with a heap and a compiler, of its own: what ran before it does not show in its figures. */
import { parentPort, workerData } from 'node:worker_threads';
import { measureAlgorithm, measureBytesPerRequest, measureDoor, measureFreePermit } from './fair-queue-cycles.ts';
import { measureReserveSettle } from './limit-cycles.ts';
import type { Pace } from './stopwatch.ts';

export interface Measurement {
  readonly kind: 'algorithm' | 'door' | 'free-permit' | 'limits' | 'limit-tree' | 'algorithm-bytes' | 'door-bytes';
  readonly tenants: number;
  readonly durationMs: number;
}

export interface Measured {
  readonly pace?: Pace;
  readonly bytesPerRequest?: number;
}

const queuedRequests = 100_000;

async function measure({ kind, tenants, durationMs }: Measurement): Promise<Measured> {
  switch (kind) {
    case 'algorithm':
      return { pace: measureAlgorithm(tenants, durationMs) };
    case 'door':
      return { pace: await measureDoor(tenants, durationMs) };
    case 'free-permit':
      return { pace: await measureFreePermit(durationMs) };
    case 'limits':
      return { pace: await measureReserveSettle(tenants, durationMs) };
    case 'limit-tree':
      return { pace: await measureReserveSettle(tenants, durationMs, true) };
    case 'algorithm-bytes':
    case 'door-bytes':
      return { bytesPerRequest: await measureBytesPerRequest(queuedRequests, kind === 'door-bytes') };
    default:
      kind satisfies never;
      throw new Error('there is no such measurement');
  }
}

parentPort?.postMessage(await measure(workerData));
