import type { LanguageModelV4GenerateResult } from '@ai-sdk/provider';
import { chatCompletion } from '../../upstream/completion-answer.ts';
import type { JsonObject } from '../../upstream/json-object.ts';
import { assertNothingDropped, extraContentOf, finishReasonOf, usageOf } from './answer-values.ts';

export interface AnswerHead {
  readonly id: string;
  readonly model: string;
  readonly createdSeconds: number;
}

/** An AI SDK result -> a chat completion. Throws `unsupported_parameter` or `upstream_error`. */
export function completionOf(result: LanguageModelV4GenerateResult, { id, model, createdSeconds }: AnswerHead): JsonObject {
  assertNothingDropped(result.warnings);
  const calls = result.content.flatMap((part) =>
    part.type === 'tool-call' && part.providerExecuted !== true
      ? [
          {
            id: part.toolCallId,
            type: 'function',
            function: { name: part.toolName, arguments: part.input === '' ? '{}' : part.input },
            ...extraContentOf(part.providerMetadata),
          },
        ]
      : [],
  );
  return chatCompletion({
    id,
    model,
    createdSeconds,
    text: joined(result, 'text'),
    reasoning: joined(result, 'reasoning'),
    calls,
    finishReason: finishReasonOf(result.finishReason),
    usage: usageOf(result.usage),
  });
}

function joined({ content }: LanguageModelV4GenerateResult, type: 'text' | 'reasoning'): string {
  return content.map((part) => (part.type === type ? part.text : '')).join('');
}
