/** A whole answer in OpenAI's dialect, for adapters that translate one. */
import type { JsonObject } from './json-object.ts';

export interface AnswerParts {
  readonly id: string;
  readonly model: string;
  readonly createdSeconds: number;
  readonly text: string;
  /** What the model thought; empty: nothing that it shows. */
  readonly reasoning: string;
  /** As `tool_calls` has them. */
  readonly calls: readonly JsonObject[];
  readonly finishReason: string;
  /** Undefined when nothing was counted. */
  readonly usage: JsonObject | undefined;
}

/** `chat.completion` with one choice. */
export function chatCompletion({ id, model, createdSeconds, text, reasoning, calls, finishReason, usage }: AnswerParts): JsonObject {
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
    choices: [{ index: 0, message, logprobs: null, finish_reason: finishReason }],
    ...(usage !== undefined && { usage }),
  };
}
