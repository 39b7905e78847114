/** OpenAI's JSON of what was drafted: a whole completion, or the chunks of a stream. */
import type { CompletionEvent } from '../../inference/provider.ts';
import type { TokenUsage } from '../../primitives/token-usage.ts';
import type { Draft, Piece } from './draft.ts';

export interface CompletionHead {
  readonly id: string;
  readonly createdSeconds: number;
  readonly model: string;
}

/** Ids of the tool calls, by choice and call. */
export type CallIds = readonly (readonly string[])[];

type JsonObject = Readonly<Record<string, unknown>>;

const fingerprint = 'fp_simulated';

export function completionOf(
  head: CompletionHead,
  drafts: readonly Draft[],
  facts: { readonly usage: TokenUsage; readonly callIds: CallIds },
): JsonObject {
  return {
    ...shared(head, 'chat.completion'),
    choices: drafts.map((draft, index) => ({
      index,
      message: messageOf(draft, facts.callIds[index] ?? []),
      logprobs: null,
      finish_reason: draft.finishReason,
    })),
    usage: usageShape(facts.usage),
  };
}

export function usageShape(usage: TokenUsage): JsonObject {
  return {
    prompt_tokens: usage.inputTokens,
    completion_tokens: usage.outputTokens,
    total_tokens: usage.inputTokens + usage.outputTokens,
    prompt_tokens_details: { cached_tokens: usage.cacheReadTokens ?? 0, audio_tokens: 0 },
    completion_tokens_details: {
      reasoning_tokens: usage.reasoningTokens ?? 0,
      audio_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  };
}

/** Writes the chunks of one stream. Usage was asked for, so every chunk has `usage: null` but the last. */
export class ChunkWriter {
  readonly #shared: JsonObject;
  readonly #callIds: CallIds;
  readonly #begunCalls = new Set<string>();

  constructor(head: CompletionHead, callIds: CallIds) {
    this.#shared = shared(head, 'chat.completion.chunk');
    this.#callIds = callIds;
  }

  begin(choice: number): CompletionEvent {
    return this.#chunk(choice, { role: 'assistant', content: '', refusal: null }, null);
  }

  /** A piece of a tool call is preceded by the fragment that names the call. */
  piece(choice: number, draft: Draft, piece: Piece): readonly CompletionEvent[] {
    if (piece.call === undefined) return [this.#chunk(choice, { content: piece.text }, null)];
    const continued = this.#chunk(choice, { tool_calls: [{ index: piece.call, function: { arguments: piece.text } }] }, null);
    const key = `${choice}/${piece.call}`;
    if (this.#begunCalls.has(key)) return [continued];
    this.#begunCalls.add(key);
    return [this.#chunk(choice, { tool_calls: [this.#callHead(choice, draft, piece.call)] }, null), continued];
  }

  finish(choice: number, draft: Draft): CompletionEvent {
    return this.#chunk(choice, {}, draft.finishReason);
  }

  usage(usage: TokenUsage): CompletionEvent {
    return event({ ...this.#shared, choices: [], usage: usageShape(usage) });
  }

  #callHead(choice: number, draft: Draft, call: number): JsonObject {
    const name = draft.calls[call]?.name ?? '';
    return { index: call, id: this.#callIds[choice]?.[call], type: 'function', function: { name, arguments: '' } };
  }

  #chunk(index: number, delta: JsonObject, finishReason: Draft['finishReason'] | null): CompletionEvent {
    return event({ ...this.#shared, choices: [{ index, delta, logprobs: null, finish_reason: finishReason }], usage: null });
  }
}

function event(parsed: JsonObject): CompletionEvent {
  return { json: JSON.stringify(parsed), parsed };
}

function shared(head: CompletionHead, object: string): JsonObject {
  const { id, createdSeconds, model } = head;
  return { id, object, created: createdSeconds, model, service_tier: 'default', system_fingerprint: fingerprint };
}

function messageOf(draft: Draft, ids: readonly string[]): JsonObject {
  const text = textOf(draft.pieces, undefined);
  const calls = draft.calls.map((call, index) => ({
    id: ids[index],
    type: 'function',
    function: { name: call.name, arguments: textOf(draft.pieces, index) },
  }));
  const content = text === '' && calls.length > 0 ? null : text;
  return { role: 'assistant', content, refusal: null, annotations: [], ...(calls.length > 0 && { tool_calls: calls }) };
}

function textOf(pieces: readonly Piece[], call: number | undefined): string {
  return pieces
    .filter((piece) => piece.call === call)
    .map((piece) => piece.text)
    .join('');
}
