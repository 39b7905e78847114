/**
 * Tells operators' endpoints what happened, as Standard Webhooks describes (standardwebhooks.com): at least once, signed, with retries over three days. An
 * endpoint sees the same `webhook-id` again when an answer was lost.
 */
import { createHash } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { SendWebhook, WebhookEndpoint, WebhookEvent, WebhookOutbox } from '../metering/webhooks.ts';
import type { Clock } from '../primitives/clock.ts';
import type { Random } from '../primitives/random.ts';
import { signWebhook } from '../primitives/sign-webhook.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';

export interface WebhookDeliveryParts {
  readonly endpoints: readonly WebhookEndpoint[];
  readonly outbox: WebhookOutbox;
  readonly send: SendWebhook;
  readonly operator: OperatorScope;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly everyMs?: number;
}

const everyMsDefault = 1_000;
const atOnce = 16;
/** Longer than sending one event to every endpoint takes. */
const leaseMs = 120_000;
/** Seconds before each next attempt; afterwards the event is given up. */
const delaysSeconds = [5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 43_200, 43_200, 43_200] as const;
const jitter = 0.2;

/** Runs until `signal` aborts. Never rejects. */
export async function runWebhookDelivery(parts: WebhookDeliveryParts, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await wait(parts.everyMs ?? everyMsDefault, undefined, { signal, ref: false }).catch(() => {});
    if (signal.aborted) return;
    try {
      await deliverDue(parts, signal);
    } catch {
      parts.logger.warn({ component: 'webhooks' }, 'events for webhooks could not be read; tried again');
    }
  }
}

async function deliverDue(parts: WebhookDeliveryParts, signal: AbortSignal): Promise<void> {
  for (;;) {
    const events = await parts.outbox.claim(parts.operator, { nowMs: parts.clock.nowMs(), leaseMs, limit: atOnce });
    await Promise.all(events.map((event) => deliver(parts, event, signal)));
    if (events.length < atOnce || signal.aborted) return;
  }
}

async function deliver(parts: WebhookDeliveryParts, event: WebhookEvent, signal: AbortSignal): Promise<void> {
  const missing = parts.endpoints.filter((endpoint) => !event.deliveredTo.includes(digestOf(endpoint)));
  const taken = await Promise.all(
    missing.map(async (endpoint) => ((await sendTo(parts, { endpoint, event }, signal)) ? [digestOf(endpoint)] : [])),
  );
  const deliveredTo = [...event.deliveredTo, ...taken.flat()];
  const nowMs = parts.clock.nowMs();
  const delay = delaysSeconds[event.attempts - 1];
  const isComplete = taken.flat().length === missing.length;
  if (!isComplete && delay === undefined) {
    parts.logger.error({ component: 'webhooks', count: event.attempts }, 'an event was not taken by every endpoint and is given up');
  }
  const nextAtMs = nowMs + (delay ?? 0) * 1_000 * (1 - jitter + 2 * jitter * parts.random.next());
  await parts.outbox.settle(parts.operator, event, {
    deliveredTo,
    nextAtMs: Math.round(nextAtMs),
    closedAtMs: isComplete || delay === undefined ? nowMs : undefined,
  });
}

/** True: the endpoint has it, or says that it wants nothing any more (410). */
async function sendTo(
  { send, clock, logger }: WebhookDeliveryParts,
  { endpoint, event }: { readonly endpoint: WebhookEndpoint; readonly event: WebhookEvent },
  signal: AbortSignal,
): Promise<boolean> {
  const body = JSON.stringify({ type: event.type, timestamp: new Date(event.createdAtMs).toISOString(), data: event.payload });
  const headers = signWebhook(endpoint.secret, { id: event.id, atSeconds: Math.floor(clock.nowMs() / 1_000), body });
  const status = await send(endpoint, { headers, body }, signal);
  if (status === 410) logger.warn({ component: 'webhooks' }, 'a webhook endpoint answered 410 and does not get this event');
  return status === 410 || (status !== undefined && status >= 200 && status < 300);
}

/** An endpoint is its URL; its secret may change. */
function digestOf({ url }: WebhookEndpoint): string {
  return createHash('sha256').update(url).digest('base64url').slice(0, 16);
}
