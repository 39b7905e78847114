import type { TenantId } from '../primitives/ids.ts';
import type { NanoUsd } from '../primitives/money.ts';
import type { TokenUsage } from '../primitives/token-usage.ts';

/** One billable fact. Immutable; `id` is the idempotency key everywhere it travels. */
export interface UsageEvent {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly keyId: string;
  readonly user: string;
  readonly requestId: string;
  readonly endpoint: 'chat.completions' | 'responses' | 'embeddings' | 'ingestion' | 'search';
  /** Public model id, as the tenant asked for it. */
  readonly model: string;
  readonly upstreamModel: string;
  readonly provider: string;
  readonly serviceTier: string;
  readonly occurredAtMs: number;
  readonly usage: TokenUsage;
  /** Tokens were counted by us because the upstream reported none (aborted or silent streams). */
  readonly estimated: boolean;
  readonly outcome: 'completed' | 'aborted' | 'failed';
  /** Null when the model has no price: unknown, never 0. */
  readonly cost: NanoUsd | null;
  readonly costLines: readonly CostLine[];
  readonly priceVersion: string;
  /** Where its money counts, beside the tenant's bill: parts of the tenant and calendar periods, as its limits name them. */
  readonly budgets?: readonly EventBudget[] | undefined;
}

export interface EventBudget {
  readonly scope: string;
  /** `tenant`, `team`, `key` or `user`, and which. */
  readonly level: string;
  readonly member?: string | undefined;
  readonly period: string;
  readonly limitNanoUsd: number;
  readonly isHard: boolean;
  readonly endsAtMs: number;
}

export interface CostLine {
  readonly component: string;
  readonly quantity: number;
  /** USD per unit as an exact decimal string. */
  readonly rateUsd: string;
  readonly rateKey: string;
  readonly cost: NanoUsd;
}
