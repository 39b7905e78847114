/**
 * Tokens of one call. `inputTokens` includes cached, cache-write and audio tokens; `outputTokens` includes reasoning and audio
 * (OpenAI's and OpenTelemetry's inclusive convention).
 */
export interface TokenUsage {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly cacheReadTokens?: number | undefined;
  readonly cacheWrite5mTokens?: number | undefined;
  readonly cacheWrite1hTokens?: number | undefined;
  readonly reasoningTokens?: number | undefined;
  readonly inputAudioTokens?: number | undefined;
  readonly outputAudioTokens?: number | undefined;
}

/** More than any context window a thousand times over; a larger count is a fault of the upstream and would not fit the ledger. */
export const tokensReportedMax = 1_000_000_000;

/**
 * Reads the `usage` object of OpenAI's chat, embeddings and responses dialects, with the cache fields of DeepSeek, Moonshot and
 * LiteLLM. Undefined when nothing usable was reported: no object, no whole numbers, or zeros only (what upstreams send that do not know).
 * Details larger than their total are kept; pricing cuts them.
 */
export function extractUsage(reported: unknown): TokenUsage | undefined {
  if (!isObject(reported)) return undefined;
  const inputDetails = objectAt(reported, 'prompt_tokens_details', 'input_tokens_details');
  const outputDetails = objectAt(reported, 'completion_tokens_details', 'output_tokens_details');
  const inputTokens = tokensAt(reported, 'prompt_tokens', 'input_tokens') ?? 0;
  const outputTokens = tokensAt(reported, 'completion_tokens', 'output_tokens') ?? 0;
  if (inputTokens + outputTokens === 0) return undefined;
  const reasoningTokens = tokensAt(outputDetails, 'reasoning_tokens');
  const unaccounted = (tokensAt(reported, 'total_tokens') ?? 0) - inputTokens - outputTokens;
  // xAI counts reasoning beside the completion tokens; only the total tells.
  const reasoningIsOutside = reasoningTokens !== undefined && reasoningTokens > 0 && unaccounted >= reasoningTokens;
  const perLifetime = objectAt(reported, 'cache_creation');
  return {
    inputTokens,
    outputTokens: reasoningIsOutside ? outputTokens + reasoningTokens : outputTokens,
    cacheReadTokens:
      tokensAt(inputDetails, 'cached_tokens') ?? tokensAt(reported, 'prompt_cache_hit_tokens', 'cache_read_input_tokens', 'cached_tokens'),
    cacheWrite5mTokens:
      tokensAt(perLifetime, 'ephemeral_5m_input_tokens') ??
      tokensAt(inputDetails, 'cache_write_tokens', 'cache_creation_tokens') ??
      tokensAt(reported, 'cache_creation_input_tokens'),
    cacheWrite1hTokens: tokensAt(perLifetime, 'ephemeral_1h_input_tokens'),
    reasoningTokens,
    inputAudioTokens: tokensAt(inputDetails, 'audio_tokens'),
    outputAudioTokens: tokensAt(outputDetails, 'audio_tokens'),
  };
}

type JsonObject = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null;
}

function objectAt(parent: JsonObject, ...keys: readonly string[]): JsonObject {
  for (const key of keys) {
    const value = parent[key];
    if (isObject(value)) return value;
  }
  return {};
}

function tokensAt(parent: JsonObject, ...keys: readonly string[]): number | undefined {
  for (const key of keys) {
    const value = parent[key];
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= tokensReportedMax) return value;
  }
  return undefined;
}
