/** What operators are told of as it happens, and the ports by which it reaches them; `jobs/webhook-delivery.ts` delivers. */
import type { OperatorScope } from '../tenancy/operator-scope.ts';

export interface WebhookEndpoint {
  readonly url: string;
  /** `whsec_` and the key as base64. */
  readonly secret: string;
}

export interface WebhookEvent {
  readonly id: string;
  readonly type: string;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly createdAtMs: number;
  /** This one included. */
  readonly attempts: number;
  readonly deliveredTo: readonly string[];
}

/** Port: where events wait. A claimed event is nobody else's until its lease is over. */
export interface WebhookOutbox {
  claim(
    operator: OperatorScope,
    options: { readonly nowMs: number; readonly leaseMs: number; readonly limit: number },
  ): Promise<readonly WebhookEvent[]>;
  settle(
    operator: OperatorScope,
    event: WebhookEvent,
    outcome: { readonly deliveredTo: readonly string[]; readonly nextAtMs: number; readonly closedAtMs: number | undefined },
  ): Promise<void>;
}

/** Port: one POST; its status, or undefined when there was no answer. Redirects are not followed. */
export type SendWebhook = (
  endpoint: WebhookEndpoint,
  message: { readonly headers: Readonly<Record<string, string>>; readonly body: string },
  signal: AbortSignal,
) => Promise<number | undefined>;
