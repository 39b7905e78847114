import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Random } from '../primitives/random.ts';

const retryMinMs = 250;
const retryMaxMs = 60_000;
/** When the pool's speed is not known yet. */
const retryDefaultMs = 1_000;
/** Those refused together must not come back together. */
const jitter = 0.2;

/** How the queue says no. Nothing in it tells one tenant about another: sizes are the tenant's own, or limits. */
export class QueueRefusals {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  tenantQueueFull(queued: number, requestsPerTenantMax: number, estimatedWaitMs: number | undefined): BulkheadError {
    const details = { limit: 'tenant.queued', scope: 'tenant', used: queued, limit_value: requestsPerTenantMax };
    const message = `The tenant has ${queued} requests waiting for this model; its queue holds ${requestsPerTenantMax}.`;
    return this.#refusal('queue_full', message, { estimatedWaitMs, details });
  }

  bytesFull(bytesMax: number, estimatedWaitMs: number | undefined): BulkheadError {
    const details = { limit: 'queue.bytes', scope: 'gateway', limit_value: bytesMax };
    return this.#refusal('queue_full', 'The queue has no memory left for this request.', { estimatedWaitMs, details });
  }

  wouldWaitTooLong(estimatedWaitMs: number, waitMaxMs: number): BulkheadError {
    const waitMs = Math.round(estimatedWaitMs);
    const details = { limit: 'queue.wait', scope: 'tenant', limit_value: waitMaxMs, estimated_wait_ms: waitMs };
    const message = `The request would wait about ${waitMs} ms for capacity; at most ${waitMaxMs} ms are allowed.`;
    return this.#refusal('queue_timeout', message, { estimatedWaitMs, details });
  }

  waitedTooLong(waitMaxMs: number, estimatedWaitMs: number | undefined): BulkheadError {
    const details = { limit: 'queue.wait', scope: 'tenant', limit_value: waitMaxMs };
    return this.#refusal('queue_timeout', `No capacity became free within ${waitMaxMs} ms.`, { estimatedWaitMs, details });
  }

  noCapacity(): BulkheadError {
    return new BulkheadError('capacity_unavailable', 'No capacity is configured for this model.', { retryAfterMs: retryDefaultMs });
  }

  shuttingDown(): BulkheadError {
    return new BulkheadError('shutting_down', 'The server is shutting down.', { retryAfterMs: retryDefaultMs });
  }

  #refusal(
    code: 'queue_full' | 'queue_timeout',
    message: string,
    facts: { readonly estimatedWaitMs: number | undefined; readonly details: Readonly<Record<string, string | number>> },
  ): BulkheadError {
    const waitMs = facts.estimatedWaitMs || retryDefaultMs;
    const jittered = waitMs * (1 - jitter + 2 * jitter * this.#random.next());
    const retryAfterMs = Math.round(Math.min(retryMaxMs, Math.max(retryMinMs, jittered)));
    return new BulkheadError(code, message, { retryAfterMs, details: facts.details });
  }
}
