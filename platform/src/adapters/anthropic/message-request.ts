import type { ProviderCall } from '../../inference/provider.ts';
import type { JsonObject } from '../../upstream/json-object.ts';
import { cachePartitionOf, endUserOf } from '../../upstream/prompt-cache.ts';
import { answerTokensMaxOf, assertTranslatable } from '../../upstream/request-parameters.ts';
import { conversationOf } from './request-messages.ts';
import { outputOf, samplingOf, serviceTierOf, stopOf, toolUseOf, translated } from './request-parameters.ts';

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
  assertTranslatable(body, translated);
  const { system, turns } = conversationOf(body['messages']);
  const endUser = endUserOf(call);
  return {
    model: call.upstreamModel,
    max_tokens: answerTokensMaxOf(body, call.outputTokensMax) ?? outputTokensDefault,
    ...promptOf(call, options, system),
    messages: turns,
    ...toolUseOf(body),
    ...samplingOf(body),
    ...stopOf(body),
    ...outputOf(body),
    ...serviceTierOf(body),
    ...(endUser !== undefined && { metadata: { user_id: endUser } }),
  };
}

/**
 * Without a mark nothing of a request is cached and nothing is read from a cache. With one, the cache is of the whole workspace behind the
 * operator's key, so that a tenant could learn by its price whether another sent the same prompt: the first block of the system prompt is
 * then the tenant's own, and no mark stands before it (tools do, and stay unmarked), so that every cached prefix holds it.
 */
function promptOf(call: ProviderCall, { usesPromptCache }: RequestOptions, system: readonly JsonObject[]): JsonObject {
  const partition = usesPromptCache ? cachePartitionOf(call) : undefined;
  if (partition === undefined) return system.length === 0 ? {} : { system };
  const blocks: readonly JsonObject[] = [{ type: 'text', text: partition }, ...system];
  const marked = blocks.map((block, index) => (index === blocks.length - 1 ? { ...block, cache_control: fiveMinutes } : block));
  // The one at the top marks the last block of the request, and moves on with the conversation.
  return { system: marked, cache_control: fiveMinutes };
}
