/** What streams and whole answers of the AI SDK share on their way into OpenAI's dialect. */
import type { LanguageModelV4FinishReason, LanguageModelV4Usage, SharedV4ProviderMetadata, SharedV4Warning } from '@ai-sdk/provider';
import type { JsonObject } from '../../upstream/json-object.ts';
import { unsupported } from '../../upstream/request-refusals.ts';
import { malformed } from '../../upstream/upstream-failures.ts';

/** Names of the SDK's features as OpenAI's parameters. */
const paramOfFeature: Readonly<Record<string, string>> = {
  temperature: 'temperature',
  topP: 'top_p',
  topK: 'top_k',
  presencePenalty: 'presence_penalty',
  frequencyPenalty: 'frequency_penalty',
  stopSequences: 'stop',
  maxOutputTokens: 'max_completion_tokens',
  responseFormat: 'response_format',
  reasoning: 'reasoning_effort',
  toolChoice: 'tool_choice',
  seed: 'seed',
};

/** OpenAI promises only best effort for it. */
const hints: ReadonlySet<string> = new Set(['seed']);

/** A package warns of what it dropped. The answer would be one to another question: throws `unsupported_parameter`. */
export function assertNothingDropped(warnings: readonly SharedV4Warning[]): void {
  for (const warning of warnings) {
    if (warning.type !== 'unsupported' || hints.has(warning.feature)) continue;
    const param = Object.hasOwn(paramOfFeature, warning.feature) ? paramOfFeature[warning.feature] : undefined;
    throw unsupported(param ?? 'messages', param === undefined ? `this: ${warning.feature.slice(0, 64)}` : `this value of ${param}`);
  }
}

/** Why a model stopped, in OpenAI's words. Throws `upstream_error` when it did not stop by itself, or nobody said so. */
export function finishReasonOf({ unified, raw }: LanguageModelV4FinishReason): string {
  switch (unified) {
    case 'length':
      return 'length';
    case 'tool-calls':
      return 'tool_calls';
    case 'content-filter':
      return 'content_filter';
    case 'error':
      throw malformed('an answer that ended with an error');
    case 'other':
      if (raw === undefined) throw malformed('an answer that breaks off');
      return 'stop';
    default:
      return 'stop';
  }
}

/** Undefined when nothing was counted. */
export function usageOf({ inputTokens, outputTokens }: LanguageModelV4Usage): JsonObject | undefined {
  const [input, output] = [tokens(inputTokens.total), tokens(outputTokens.total)];
  if (input + output === 0) return undefined;
  const cacheWrite = tokens(inputTokens.cacheWrite);
  return {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: input + output,
    prompt_tokens_details: { cached_tokens: tokens(inputTokens.cacheRead), audio_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: tokens(outputTokens.reasoning) },
    // Not in OpenAI's dialect; metering prices it.
    ...(cacheWrite > 0 && { cache_creation_input_tokens: cacheWrite }),
  };
}

function tokens(count: number | undefined): number {
  return count !== undefined && Number.isSafeInteger(count) && count > 0 ? count : 0;
}

/** What a call of a tool has to come back with: `promptOf` reads it. */
export function extraContentOf(metadata: SharedV4ProviderMetadata | undefined): JsonObject {
  return metadata === undefined || Object.keys(metadata).length === 0 ? {} : { extra_content: metadata };
}
