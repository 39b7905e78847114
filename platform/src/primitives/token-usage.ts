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
