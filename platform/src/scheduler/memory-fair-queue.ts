/**
 * Stage 6: wait for a permit of the pool when it is saturated. Before it admission has reserved; after it inference. The algorithm is in
 * `weighted-fair-queue.ts`; this is its door: promises, abort signals and one timer for all deadlines. A free permit costs neither.
 */

import { assert } from '../primitives/assert.ts';
import type { CapacityOptions, FairQueue, Permit, PoolSnapshot, Ticket } from './fair-queue.ts';
import { FairRequest, type Waiter } from './fair-request.ts';
import { type FairQueueOptions, WeightedFairQueue } from './weighted-fair-queue.ts';

export class MemoryFairQueue implements FairQueue {
  readonly #queue: WeightedFairQueue;
  readonly #options: FairQueueOptions;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FairQueueOptions) {
    this.#options = options;
    this.#queue = new WeightedFairQueue(options);
  }

  acquire(ticket: Ticket, signal: AbortSignal): Promise<Permit> {
    try {
      signal.throwIfAborted();
      const request = this.#queue.submit(ticket);
      return request.mode === 'running' ? Promise.resolve(request) : this.#wait(request, signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async requeue(permit: Permit, signal: AbortSignal): Promise<void> {
    assert(permit instanceof FairRequest, 'a permit goes back to the queue it came from');
    try {
      signal.throwIfAborted();
    } catch (error) {
      permit.cancel();
      throw error;
    }
    await this.#wait(permit, signal, () => this.#queue.requeue(permit));
  }

  setCapacity(poolId: string, permits: number, options?: CapacityOptions): void {
    this.#queue.setCapacity(poolId, permits, options);
  }

  snapshot(): readonly PoolSnapshot[] {
    return this.#queue.snapshot();
  }

  /** Refuses what has waited too long. The timer does it; public for clocks that are moved by hand. */
  sweep(): void {
    this.#queue.expire();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#queue.close();
  }

  /** `begin`: what makes it wait, called when there is somebody to be told. */
  #wait(request: FairRequest, signal: AbortSignal, begin: () => void = () => {}): Promise<Permit> {
    const waiting = new Promise<Permit>((resolve, reject) => {
      request.waiter = new WaitingCaller({ request, signal, resolve, reject });
    });
    begin();
    this.#armTimer();
    return waiting;
  }

  /** The timer is left to ring when the queue has emptied: it finds nothing and stops. */
  #armTimer(): void {
    const deadlineMs = this.#queue.nextDeadlineMs();
    if (this.#timer !== undefined || deadlineMs === undefined) return;
    const delayMs = Math.min(timerMaxMs, Math.max(1, deadlineMs - this.#options.clock.monotonicMs()));
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#queue.expire();
      this.#armTimer();
    }, delayMs);
    this.#timer.unref();
  }
}

/** The longest delay `setTimeout` takes. */
const timerMaxMs = 2 ** 31 - 1;

interface CallerParts {
  readonly request: FairRequest;
  readonly signal: AbortSignal;
  readonly resolve: (permit: Permit) => void;
  readonly reject: (reason: unknown) => void;
}

/** Thousands of them wait: no object and no closure more than needed. */
class WaitingCaller implements Waiter {
  readonly #request: FairRequest;
  readonly #signal: AbortSignal;
  readonly #resolve: (permit: Permit) => void;
  readonly #reject: (reason: unknown) => void;

  constructor({ request, signal, resolve, reject }: CallerParts) {
    this.#request = request;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
    signal.addEventListener('abort', this);
  }

  granted(permit: Permit): void {
    this.#signal.removeEventListener('abort', this);
    this.#resolve(permit);
  }

  refused(error: Error): void {
    this.#signal.removeEventListener('abort', this);
    this.#reject(error);
  }

  /** The DOM's name for what an event calls. */
  handleEvent(): void {
    this.#signal.removeEventListener('abort', this);
    this.#request.owner.withdraw(this.#request);
    this.#reject(this.#signal.reason);
  }
}
