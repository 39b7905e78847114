/**
 * What a request holds between admission and settlement: a reservation, a permit, and the duty to end both exactly once. Whoever holds
 * a Turn calls `complete` or `abandon`; the first call counts, a later one does nothing.
 */
import type { Reservation } from '../admission/admit.ts';
import type { ModelRoute } from '../inference/deployments.ts';
import type { Meter } from '../metering/meter.ts';
import type { UsageEvent } from '../metering/usage-event.ts';
import type { Clock } from '../primitives/clock.ts';
import type { TokenUsage } from '../primitives/token-usage.ts';
import type { FairQueue, Permit } from '../scheduler/fair-queue.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';

export interface TurnFacts {
  readonly scope: TenantScope;
  readonly requestId: string;
  readonly endpoint: UsageEvent['endpoint'];
  readonly route: ModelRoute;
  readonly inputTokens: number;
  /** Predicted. */
  readonly outputTokens: number;
  readonly reservation: Reservation;
  readonly permit: Permit;
  /** Its session goes round in circles. */
  readonly isLooping: boolean;
  readonly meter: Meter;
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** Monotonic milliseconds when the request entered the path. */
  readonly startedAtMs: number;
}

export interface Delivered {
  readonly usage: TokenUsage;
  readonly estimated: boolean;
  readonly outcome: UsageEvent['outcome'];
  readonly serviceTier: string;
  readonly provider: string;
  readonly upstreamModel: string;
}

export class Turn {
  readonly facts: TurnFacts;
  #permitAtMs: number;
  #mode: 'open' | 'ended' = 'open';

  constructor(facts: TurnFacts) {
    this.facts = facts;
    this.#permitAtMs = facts.clock.monotonicMs();
    facts.reservation.dispatched();
  }

  /** Time since the permit was granted: what the upstream has taken so far. */
  upstreamMs(): number {
    return this.facts.clock.monotonicMs() - this.#permitAtMs;
  }

  /** Nothing could be sent: waits for another slot, in its old place. Rejects as the queue's `requeue` does. */
  async requeue(queue: FairQueue, signal: AbortSignal): Promise<void> {
    await queue.requeue(this.facts.permit, signal);
    this.#permitAtMs = this.facts.clock.monotonicMs();
  }

  /** Output as it streams: charged to the fair queue, and recorded in the reservation's lease. */
  progress(tokens: number): void {
    if (this.#mode === 'ended' || tokens <= 0) return;
    this.facts.permit.reportOutput(tokens);
    this.facts.reservation.progress(tokens);
  }

  /** Something was delivered: journal it, then return the slot and settle. The event is durable when this returns. */
  complete(delivered: Delivered): UsageEvent | undefined {
    if (this.#mode === 'ended') return undefined;
    this.#mode = 'ended';
    const { scope, requestId, endpoint, route, reservation, permit, meter } = this.facts;
    const { inputTokens, outputTokens } = delivered.usage;
    let costNanoUsd = 0;
    try {
      const { tenantId, keyId, user } = scope.principal;
      const { budgets } = reservation;
      const event = meter.record({ tenantId, keyId, user, requestId, endpoint, model: route.model.id, budgets, ...delivered });
      costNanoUsd = Number(event.cost ?? 0n);
      this.#observe(event);
      return event;
    } finally {
      permit.finish({ inputTokens, outputTokens });
      reservation.settle({ inputTokens, outputTokens, costNanoUsd });
    }
  }

  /** Nothing was delivered: undo the charge, refund the tokens. */
  abandon(): void {
    if (this.#mode === 'ended') return;
    this.#mode = 'ended';
    this.facts.permit.cancel();
    this.facts.reservation.release();
  }

  #observe(event: UsageEvent): void {
    const { metrics, scope, clock, startedAtMs, permit } = this.facts;
    metrics.observeInference({
      tenantId: event.tenantId,
      tier: scope.policy.name,
      model: event.model,
      operation: event.endpoint,
      outcome: event.outcome,
      inputTokens: event.usage.inputTokens,
      outputTokens: event.usage.outputTokens,
      costNanoUsd: event.cost,
      queueMs: permit.queueMs,
      durationMs: clock.monotonicMs() - startedAtMs,
    });
  }
}
