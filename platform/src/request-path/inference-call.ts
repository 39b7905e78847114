/** What enters the inference path, and what the edge says about what left it. */
import type { LimitState } from '../admission/limit-store.ts';
import type { UsageEvent } from '../metering/usage-event.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';

export interface InferenceCall {
  readonly scope: TenantScope;
  readonly requestId: string;
  /** As the client names it. */
  readonly sessionId?: string | undefined;
  /** What tells one conversation of the caller from another in the queue when the client names no session. No limit is counted by it. */
  readonly conversationId?: string | undefined;
  readonly endpoint: UsageEvent['endpoint'];
  /** OpenAI body of the endpoint, validated. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly signal: AbortSignal;
}

/** Where the time went and what it cost, for the response headers. */
export interface ServedFacts {
  readonly limitStates: readonly LimitState[];
  /** The session goes round in circles, and is refused if it goes on. */
  readonly isLooping: boolean;
  readonly queueMs: number;
  readonly upstreamMs: number;
  readonly event?: UsageEvent | undefined;
}
