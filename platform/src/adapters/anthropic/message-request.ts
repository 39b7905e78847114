import { createHash } from 'node:crypto';
import type { ProviderCall } from '../../inference/provider.ts';
import type { JsonObject } from '../../upstream/json-object.ts';
import { conversationOf } from './request-messages.ts';
import { assertTranslatable, outputOf, samplingOf, serviceTierOf, stopOf } from './request-parameters.ts';
import { toolsOf } from './request-tools.ts';

export interface RequestOptions {
  /** Mark prompts for the provider's cache, each tenant's apart. */
  readonly usesPromptCache: boolean;
}

/** The API demands a limit. Where nobody named one and the model's is unknown: what every model of the API can give. */
const outputTokensDefault = 4_096;
const fiveMinutes = { type: 'ephemeral' };

/** The body of `POST /v1/messages`, without `stream`. Throws `unsupported_parameter` or `invalid_value` for what it cannot say. */
export function messageRequest(call: ProviderCall, options: RequestOptions): JsonObject {
  const { body } = call;
  assertTranslatable(body);
  const { system, turns } = conversationOf(body['messages']);
  return {
    model: call.upstreamModel,
    max_tokens: outputTokensOf(call),
    ...promptOf(call, options, system),
    messages: turns,
    ...toolsOf(body),
    ...samplingOf(body),
    ...stopOf(body),
    ...outputOf(body),
    ...serviceTierOf(body),
    ...endUserOf(call),
  };
}

/** Never more than the model's longest answer: that is what was set aside of the tenant's budget. */
function outputTokensOf({ body, outputTokensMax }: ProviderCall): number {
  const caps = [body['max_completion_tokens'], body['max_tokens'], outputTokensMax].filter((cap) => typeof cap === 'number');
  return caps.length === 0 ? outputTokensDefault : Math.min(...caps);
}

/**
 * Without a mark nothing of a request is cached and nothing is read from a cache. With one, the cache is of the whole workspace behind the
 * operator's key, so that a tenant could learn by its price whether another sent the same prompt: the first block of the system prompt is
 * then the tenant's own, and no mark stands before it (tools do, and stay unmarked), so that every cached prefix holds it.
 */
function promptOf(call: ProviderCall, { usesPromptCache }: RequestOptions, system: readonly JsonObject[]): JsonObject {
  const { cacheSalt } = call;
  if (!usesPromptCache || cacheSalt === undefined) return system.length === 0 ? {} : { system };
  const own = call.body['prompt_cache_key'];
  const partition = digest([cacheSalt, 'cache', typeof own === 'string' ? own : null]).slice(0, 32);
  const blocks: readonly JsonObject[] = [{ type: 'text', text: `[cache partition ${partition}]` }, ...system];
  const marked = blocks.map((block, index) => (index === blocks.length - 1 ? { ...block, cache_control: fiveMinutes } : block));
  // The one at the top marks the last block of the request, and moves on with the conversation.
  return { system: marked, cache_control: fiveMinutes };
}

/** The API asks for an opaque id. OpenAI's field often holds an address, so it leaves here only as a digest under the tenant's secret salt. */
function endUserOf({ body, cacheSalt }: ProviderCall): JsonObject {
  const user = body['safety_identifier'] ?? body['user'];
  if (typeof user !== 'string' || user === '' || cacheSalt === undefined) return {};
  return { metadata: { user_id: digest([cacheSalt, 'user', user]) } };
}

function digest(parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}
