/** The policies, side by side behind one face. `ours` and `vtc` are the product's own queue, told theta; the others are `baseline-queue.ts`. */
import type { Clock } from '../../src/primitives/clock.ts';
import type { TenantId } from '../../src/primitives/ids.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import type { Ticket } from '../../src/scheduler/fair-queue.ts';
import type { Waiter } from '../../src/scheduler/fair-request.ts';
import { WeightedFairQueue } from '../../src/scheduler/weighted-fair-queue.ts';
import { BaselineQueue, FirstCome, type Order, Turns } from './baseline-queue.ts';

export interface Contestant {
  /** The waiter is told once, perhaps before this returns. */
  submit(ticket: Ticket, waiter: Waiter): void;
  setCapacity(permits: number): void;
  expire(): void;
  nextDeadlineMs(): number | undefined;
  /** The tenant whose request would go next. */
  next(): TenantId | undefined;
}

export interface ContestantOptions {
  readonly clock: Clock;
  readonly outputTokenCost: number;
  readonly waitMaxMs: number;
  /** Cost of a turn of deficit round robin at weight 1. */
  readonly quantum: number;
}

export const policies = ['FCFS', 'RPM', 'WRR', 'DRR', 'VTC', 'ours'] as const;
export type Policy = (typeof policies)[number];

export const poolId = 'pool';
/** Order is compared, not bounds: only the deadline binds. */
const requestsMax = 1_000_000;

/** @param requestsPerMinute - what RPM lets through, of each tenant. */
export function contestantOf(policy: Policy, options: ContestantOptions, requestsPerMinute: number): Contestant {
  switch (policy) {
    case 'FCFS':
      return baseline(options, new FirstCome());
    case 'RPM':
      return baseline(options, new FirstCome(), requestsPerMinute);
    case 'WRR':
      return baseline(options, new Turns('requests', 1));
    case 'DRR':
      return baseline(options, new Turns('cost', options.quantum));
    case 'VTC':
      return new Product(options, 0);
    case 'ours':
      return new Product(options);
    default:
      return policy satisfies never;
  }
}

function baseline(options: ContestantOptions, order: Order, requestsPerMinute?: number): Contestant {
  return new BaselineQueue({ ...options, order, requestsMax, requestsPerMinute });
}

class Product implements Contestant {
  readonly #queue: WeightedFairQueue;

  /** @param theta - undefined: what the product has by default. */
  constructor({ clock, outputTokenCost, waitMaxMs }: ContestantOptions, theta?: number) {
    const bounds = { requestsPerTenantMax: requestsMax, bytesMax: Number.MAX_SAFE_INTEGER, waitMaxMs };
    this.#queue = new WeightedFairQueue({
      clock,
      outputTokenCost,
      ...bounds,
      random: seededRandom(1),
      ...(theta !== undefined && { theta }),
    });
    this.#queue.setCapacity(poolId, 0);
  }

  submit(ticket: Ticket, waiter: Waiter): void {
    const request = this.#submit(ticket, waiter);
    if (request === undefined) return;
    if (request.mode === 'running') waiter.granted(request);
    else request.waiter = waiter;
  }

  setCapacity(permits: number): void {
    this.#queue.setCapacity(poolId, permits);
  }

  expire(): void {
    this.#queue.expire();
  }

  nextDeadlineMs(): number | undefined {
    return this.#queue.nextDeadlineMs();
  }

  /** Of equals, one of them. */
  next(): TenantId | undefined {
    const waiting = this.#queue.snapshot().flatMap(({ tenants }) => tenants.filter(({ queued }) => queued > 0));
    const [first, ...others] = waiting;
    return others.reduce((least, tenant) => (least === undefined || tenant.virtualTime < least.virtualTime ? tenant : least), first)
      ?.tenantId;
  }

  #submit(ticket: Ticket, waiter: Waiter) {
    try {
      return this.#queue.submit(ticket);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      waiter.refused(error);
      return undefined;
    }
  }
}
