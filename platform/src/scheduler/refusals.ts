import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Random } from '../primitives/random.ts';
import type { ShedCause } from './fairness-record.ts';

const retryMinMs = 250;
const retryMaxMs = 60_000;
/** When the pool's speed is not known yet. */
const retryDefaultMs = 1_000;
const codeOf = {
  tenant_queue_full: 'queue_full',
  memory_full: 'queue_full',
  would_wait_too_long: 'queue_timeout',
  waited_too_long: 'queue_timeout',
  pool_unavailable: 'capacity_unavailable',
} as const;
/** Those refused together must not come back together. */
const jitter = 0.2;

/** A refusal that knows what it was for. */
export class QueueRefusal extends BulkheadError {
  readonly shedCause: ShedCause;

  constructor(shedCause: ShedCause, ...rest: ConstructorParameters<typeof BulkheadError>) {
    super(...rest);
    this.shedCause = shedCause;
  }
}

/** How the queue says no. Nothing in it tells one tenant about another: sizes are the tenant's own, or limits. */
export class QueueRefusals {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  tenantQueueFull(queued: number, requestsPerTenantMax: number, estimatedWaitMs: number | undefined): QueueRefusal {
    const details = { limit: 'tenant.queued', scope: 'tenant', used: queued, limit_value: requestsPerTenantMax };
    const message = `The tenant has ${queued} requests waiting for this model; its queue holds ${requestsPerTenantMax}.`;
    return this.#refusal('tenant_queue_full', message, { estimatedWaitMs, details });
  }

  bytesFull(bytesMax: number, estimatedWaitMs: number | undefined): QueueRefusal {
    const details = { limit: 'queue.bytes', scope: 'gateway', limit_value: bytesMax };
    return this.#refusal('memory_full', 'The queue has no memory left for this request.', { estimatedWaitMs, details });
  }

  wouldWaitTooLong(estimatedWaitMs: number, waitMaxMs: number): QueueRefusal {
    const waitMs = Math.round(estimatedWaitMs);
    const details = { limit: 'queue.wait', scope: 'tenant', limit_value: waitMaxMs, estimated_wait_ms: waitMs };
    const message = `The request would wait about ${waitMs} ms for capacity; at most ${waitMaxMs} ms are allowed.`;
    return this.#refusal('would_wait_too_long', message, { estimatedWaitMs, details });
  }

  waitedTooLong(waitMaxMs: number, estimatedWaitMs: number | undefined): QueueRefusal {
    const details = { limit: 'queue.wait', scope: 'tenant', limit_value: waitMaxMs };
    return this.#refusal('waited_too_long', `No capacity became free within ${waitMaxMs} ms.`, { estimatedWaitMs, details });
  }

  /** Nobody's share is the reason: every provider behind the pool is away. `forMs` may be infinite. */
  standsStill(forMs: number): QueueRefusal {
    const message = 'No provider of this model takes requests now.';
    return this.#refusal('pool_unavailable', message, { estimatedWaitMs: forMs, details: { limit: 'pool.capacity', scope: 'gateway' } });
  }

  noCapacity(): BulkheadError {
    return new BulkheadError('capacity_unavailable', 'No capacity is configured for this model.', { retryAfterMs: retryDefaultMs });
  }

  shuttingDown(): QueueRefusal {
    return new QueueRefusal('shutting_down', 'shutting_down', 'The server is shutting down.', { retryAfterMs: retryDefaultMs });
  }

  #refusal(
    cause: Exclude<ShedCause, 'shutting_down'>,
    message: string,
    facts: { readonly estimatedWaitMs: number | undefined; readonly details: Readonly<Record<string, string | number>> },
  ): QueueRefusal {
    const waitMs = facts.estimatedWaitMs || retryDefaultMs;
    const jittered = waitMs * (1 - jitter + 2 * jitter * this.#random.next());
    const retryAfterMs = Math.round(Math.min(retryMaxMs, Math.max(retryMinMs, jittered)));
    return new QueueRefusal(cause, codeOf[cause], message, { retryAfterMs, details: facts.details });
  }
}
