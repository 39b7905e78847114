/** A message of the Messages API -> a chat completion of OpenAI's, and the parts that streams share with it. */
import { chatCompletion } from '../../upstream/completion-answer.ts';
import { isObject, type JsonObject } from '../../upstream/json-object.ts';
import { malformed } from '../../upstream/upstream-failures.ts';

/** Throws `upstream_error` for anything but a message. */
export function completionOf(message: JsonObject, createdSeconds: number): JsonObject {
  const { id, model, content } = message;
  if (typeof id !== 'string' || typeof model !== 'string' || !Array.isArray(content)) throw malformed('something else than a message');
  const blocks = content.filter(isObject);
  const calls = blocks.filter(({ type }) => type === 'tool_use').map(toolCallOf);
  const completion = chatCompletion({
    id,
    model,
    createdSeconds,
    text: joined(blocks, 'text'),
    reasoning: joined(blocks, 'thinking'),
    calls,
    finishReason: finishReasonOf(message['stop_reason']),
    usage: usageOf(isObject(message['usage']) ? message['usage'] : {}),
  });
  return { ...completion, ...serviceTierOf(message['usage']) };
}

/**
 * Why a model stopped, in OpenAI's words. `pause_turn` and a full context window end an answer before it is whole, as `length` says.
 * A reason that is not known yet is an end.
 */
export function finishReasonOf(stopReason: unknown): string {
  switch (stopReason) {
    case 'max_tokens':
    case 'model_context_window_exceeded':
    case 'pause_turn':
      return 'length';
    case 'tool_use':
      return 'tool_calls';
    case 'refusal':
      return 'content_filter';
    default:
      return 'stop';
  }
}

/** The API counts what it read from or wrote to its cache beside the input, OpenAI within. Undefined when nothing was counted. */
export function usageOf(reported: JsonObject): JsonObject | undefined {
  const cacheRead = tokensAt(reported, 'cache_read_input_tokens');
  const cacheWrite = tokensAt(reported, 'cache_creation_input_tokens');
  const input = tokensAt(reported, 'input_tokens') + cacheRead + cacheWrite;
  const output = tokensAt(reported, 'output_tokens');
  if (input + output === 0) return undefined;
  const { cache_creation: byLifetime, output_tokens_details: details } = reported;
  return {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: input + output,
    prompt_tokens_details: { cached_tokens: cacheRead, audio_tokens: 0 },
    ...(isObject(details) && { completion_tokens_details: { reasoning_tokens: tokensAt(details, 'thinking_tokens') } }),
    // Not in OpenAI's dialect; metering prices both kinds.
    ...(cacheWrite > 0 && (isObject(byLifetime) ? { cache_creation: byLifetime } : { cache_creation_input_tokens: cacheWrite })),
  };
}

/** As `service_tier` of an answer, where it changes the price. */
export function serviceTierOf(usage: unknown): JsonObject {
  const tier = isObject(usage) ? usage['service_tier'] : undefined;
  return tier === 'priority' ? { service_tier: 'priority' } : {};
}

function toolCallOf({ id, name, input }: JsonObject): JsonObject {
  if (typeof id !== 'string' || typeof name !== 'string') throw malformed('a tool call without id or name');
  return { id, type: 'function', function: { name, arguments: JSON.stringify(input ?? {}) } };
}

function joined(blocks: readonly JsonObject[], type: 'text' | 'thinking'): string {
  return blocks.map((block) => (block['type'] === type && typeof block[type] === 'string' ? block[type] : '')).join('');
}

function tokensAt(counts: JsonObject, key: string): number {
  const value = counts[key];
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : 0;
}
