import type { NanoUsd } from '../primitives/money.ts';

export type UsageDimension = 'model' | 'key' | 'day' | 'endpoint';

/** Half-open interval of UTC days, `YYYY-MM-DD`. */
export interface UsageQuery {
  readonly fromDay: string;
  readonly untilDay: string;
  readonly groupBy: readonly UsageDimension[];
}

/** Sums over one group; a dimension not grouped by is absent. */
export interface UsageRow {
  readonly tenantId: string;
  readonly model?: string | undefined;
  readonly keyId?: string | undefined;
  readonly day?: string | undefined;
  readonly endpoint?: string | undefined;
  readonly requests: number;
  readonly inputTokens: number;
  readonly cachedInputTokens: number;
  readonly outputTokens: number;
  /** Priced part of the group. */
  readonly cost: NanoUsd;
  /** Requests whose model had no price: their cost is unknown, not 0. */
  readonly unpricedRequests: number;
  /** Requests billed on counted instead of reported tokens. */
  readonly estimatedRequests: number;
}
