import type { LanguageModelV4StreamPart } from '@ai-sdk/provider';
import type { CompletionEvent } from '../../inference/provider.ts';
import type { JsonObject } from '../../upstream/json-object.ts';
import { malformed } from '../../upstream/upstream-failures.ts';
import { assertNothingDropped, extraContentOf, finishReasonOf, usageOf } from './answer-values.ts';
import { failureOfSdk } from './sdk-failures.ts';
import type { AnswerHead } from './whole-answer.ts';

/** Open at once. */
const callsMax = 1_024;

type ToolCall = Extract<LanguageModelV4StreamPart, { readonly type: 'tool-call' }>;

interface OpenCall {
  readonly index: number;
  hasArguments: boolean;
}

/** Parts of an AI SDK stream -> chunks of a chat completion. What OpenAI's dialect has no word for (sources, files) is passed over. */
export class AnswerChunks {
  readonly #head: AnswerHead;
  /** Where usage was asked for, every chunk but the last has `usage: null`, as OpenAI's have. */
  readonly #asked: { readonly usage?: null };
  /** The first chunk waits for content: a provider that fails at once can still be exchanged for another. */
  #hasOpened = false;
  readonly #calls = new Map<string, OpenCall>();
  #hasFinished = false;

  constructor(head: AnswerHead, options: { readonly isUsageAsked: boolean }) {
    this.#head = head;
    this.#asked = options.isUsageAsked ? { usage: null } : {};
  }

  /** The answer is whole; what follows is ignored. */
  get hasFinished(): boolean {
    return this.#hasFinished;
  }

  /** Throws what ends the stream. */
  accept(part: LanguageModelV4StreamPart): readonly CompletionEvent[] {
    switch (part.type) {
      case 'stream-start':
        assertNothingDropped(part.warnings);
        return [];
      case 'text-delta':
        return part.delta === '' ? [] : this.#say({ content: part.delta });
      case 'reasoning-delta':
        return part.delta === '' ? [] : this.#say({ reasoning_content: part.delta });
      case 'tool-input-start':
        return part.providerExecuted === true ? [] : this.#openCall(part.id, part.toolName, '');
      case 'tool-input-delta':
        return this.#continueCall(part.id, part.delta);
      case 'tool-call':
        return part.providerExecuted === true ? [] : this.#closeCall(part);
      case 'finish':
        return this.#finish(part);
      case 'error':
        throw failureOfSdk(part.error);
      default:
        return [];
    }
  }

  #openCall(id: string, name: string, input: string, extra: JsonObject = {}): readonly CompletionEvent[] {
    if (this.#calls.size === callsMax) throw malformed(`more than ${callsMax} tool calls`);
    const index = this.#calls.size;
    this.#calls.set(id, { index, hasArguments: input !== '' });
    return this.#say({ tool_calls: [{ index, id, type: 'function', function: { name, arguments: input }, ...extra }] });
  }

  #continueCall(id: string, piece: string): readonly CompletionEvent[] {
    const call = this.#calls.get(id);
    if (call === undefined || piece === '') return [];
    call.hasArguments = true;
    return this.#say({ tool_calls: [{ index: call.index, function: { arguments: piece } }] });
  }

  /** The whole call, which some packages send alone. A call without arguments has an empty object, because OpenAI's clients parse what they get. */
  #closeCall({ toolCallId, toolName, input, providerMetadata }: ToolCall): readonly CompletionEvent[] {
    const call = this.#calls.get(toolCallId);
    const extra = extraContentOf(providerMetadata);
    const whole = input === '' ? '{}' : input;
    if (call === undefined) return this.#openCall(toolCallId, toolName, whole, extra);
    const rest = call.hasArguments ? extra : { function: { arguments: whole }, ...extra };
    return Object.keys(rest).length === 0 ? [] : this.#say({ tool_calls: [{ index: call.index, ...rest }] });
  }

  #finish({ finishReason, usage }: Extract<LanguageModelV4StreamPart, { readonly type: 'finish' }>): readonly CompletionEvent[] {
    const last = this.#say({}, finishReasonOf(finishReason));
    const counted = usageOf(usage);
    this.#hasFinished = true;
    return counted === undefined ? last : [...last, this.#chunk({ choices: [], usage: counted })];
  }

  #say(said: JsonObject, finishReason: string | null = null): readonly CompletionEvent[] {
    const delta = this.#hasOpened ? said : { role: 'assistant', content: '', ...said };
    this.#hasOpened = true;
    return [this.#chunk({ choices: [{ index: 0, delta, logprobs: null, finish_reason: finishReason }] })];
  }

  #chunk(rest: JsonObject): CompletionEvent {
    const { id, model, createdSeconds } = this.#head;
    const parsed = { id, object: 'chat.completion.chunk', created: createdSeconds, model, ...this.#asked, ...rest };
    return { json: JSON.stringify(parsed), parsed };
  }
}
