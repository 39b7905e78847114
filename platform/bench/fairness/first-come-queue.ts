/** First come, first served behind the product's port: what the fair queue is compared with over HTTP. Its bounds are a deadline and a number of requests in all. */
import type { FairQueue, Permit, PoolSnapshot, Ticket } from '../../src/scheduler/fair-queue.ts';
import type { FairQueueOptions } from '../../src/scheduler/weighted-fair-queue.ts';
import { BaselineQueue, FirstCome } from './baseline-queue.ts';

/** Each holds a connection. */
const requestsMax = 500;
const sweepMs = 50;

export class FirstComeQueue implements FairQueue {
  readonly #options: FairQueueOptions;
  readonly #pools = new Map<string, BaselineQueue>();
  readonly #timer: NodeJS.Timeout;

  constructor(options: FairQueueOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      for (const pool of this.#pools.values()) pool.expire();
    }, sweepMs);
    this.#timer.unref();
  }

  acquire(ticket: Ticket, signal: AbortSignal): Promise<Permit> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const onAbort = () => {
        pool.withdraw(request);
        reject(signal.reason);
      };
      const pool = this.#pool(ticket.poolId);
      const request = pool.submit(ticket, {
        granted: (permit) => {
          signal.removeEventListener('abort', onAbort);
          resolve(permit);
        },
        refused: (error) => {
          signal.removeEventListener('abort', onAbort);
          reject(error);
        },
      });
      if (request.mode === 'waiting') signal.addEventListener('abort', onAbort);
    });
  }

  /** The benchmark's provider takes as much as it is configured to. */
  async requeue(permit: Permit): Promise<void> {
    permit.cancel();
    throw new Error('the provider of the benchmark has refused a call');
  }

  setCapacity(poolId: string, permits: number): void {
    this.#pool(poolId).setCapacity(permits);
  }

  snapshot(): readonly PoolSnapshot[] {
    return Array.from(this.#pools, ([poolId, pool]) => pool.snapshot(poolId));
  }

  close(): void {
    clearInterval(this.#timer);
    for (const pool of this.#pools.values()) pool.close();
  }

  #pool(poolId: string): BaselineQueue {
    const { clock, watcher, waitMaxMs, outputTokenCost = 4 } = this.#options;
    const known = this.#pools.get(poolId);
    const pool = known ?? new BaselineQueue({ clock, watcher, waitMaxMs, outputTokenCost, requestsMax, order: new FirstCome() });
    if (known === undefined) this.#pools.set(poolId, pool);
    return pool;
  }
}
