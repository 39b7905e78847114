import type { LanguageModelV4GenerateResult } from '@ai-sdk/provider';
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
  const text = joined(result, 'text');
  const reasoning = joined(result, 'reasoning');
  const usage = usageOf(result.usage);
  const message = {
    role: 'assistant',
    content: text === '' && calls.length > 0 ? null : text,
    refusal: null,
    ...(reasoning !== '' && { reasoning_content: reasoning }),
    ...(calls.length > 0 && { tool_calls: calls }),
  };
  return {
    id,
    object: 'chat.completion',
    created: createdSeconds,
    model,
    choices: [{ index: 0, message, logprobs: null, finish_reason: finishReasonOf(result.finishReason) }],
    ...(usage !== undefined && { usage }),
  };
}

function joined({ content }: LanguageModelV4GenerateResult, type: 'text' | 'reasoning'): string {
  return content.map((part) => (part.type === type ? part.text : '')).join('');
}
