import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { CompletionEvent } from '../../inference/provider.ts';
import type { EventInterpreter, Understood } from '../../upstream/completion-stream.ts';
import { isObject, type JsonObject, parseObject } from '../../upstream/json-object.ts';
import type { SseEvent } from '../../upstream/sse-reader.ts';
import { malformed } from '../../upstream/upstream-failures.ts';
import { finishReasonOf, serviceTierOf, usageOf } from './message-answer.ts';
import { failureInBody } from './reported-failures.ts';

/** Open at once; the API opens one. */
const openCallsMax = 1_024;

/** What of it is kept; a stream that makes up names for ever fills nothing. */
const usageFields = [
  'input_tokens',
  'output_tokens',
  'cache_read_input_tokens',
  'cache_creation_input_tokens',
  'cache_creation',
  'output_tokens_details',
  'service_tier',
];

interface OpenCall {
  /** Among the tool calls of the answer. */
  readonly index: number;
  /** What the block began with. */
  readonly input: unknown;
  hasArguments: boolean;
}

/**
 * The events of one message -> chunks of a chat completion: `message_start`, blocks with their deltas, `message_delta` with the reason and
 * the usage, `message_stop`. A stream that ends without `message_stop` has broken off. Events and blocks that are not known are passed over,
 * as the API asks of its clients; the signatures of thinking, which OpenAI's dialect cannot carry back, are too.
 */
export class MessageEvents implements EventInterpreter {
  readonly #createdSeconds: number;
  /** Where usage was asked for, every chunk but the last has `usage: null`, as OpenAI's have. */
  readonly #asked: { readonly usage?: null };
  #message: { readonly id: string; readonly model: string } | undefined;
  /** The first chunk waits for content: a provider that fails at once can still be exchanged for another. */
  #hasOpened = false;
  #usage: JsonObject = {};
  #callCount = 0;
  readonly #openCalls = new Map<unknown, OpenCall>();

  constructor(createdSeconds: number, options: { readonly isUsageAsked: boolean }) {
    this.#createdSeconds = createdSeconds;
    this.#asked = options.isUsageAsked ? { usage: null } : {};
  }

  understand(received: readonly SseEvent[]): Understood {
    const events: CompletionEvent[] = [];
    for (const { data } of received) {
      const parsed = parseObject(data);
      if (parsed === undefined) return { events, failure: malformed('an event that is not a JSON object'), isDone: false };
      const failure = failureInBody(parsed) ?? this.#accept(parsed, events);
      if (failure !== undefined) return { events, failure, isDone: false };
      if (parsed['type'] === 'message_stop') return { events, failure: undefined, isDone: true };
    }
    return { events, failure: undefined, isDone: false };
  }

  endEarly(): BulkheadError {
    return malformed('a stream that breaks off');
  }

  #accept(event: JsonObject, events: CompletionEvent[]): BulkheadError | undefined {
    switch (event['type']) {
      case 'message_start':
        return this.#start(event['message']);
      case 'content_block_start':
        return this.#emit(events, this.#openBlock(event));
      case 'content_block_delta':
        return this.#emit(events, this.#continueBlock(event));
      case 'content_block_stop':
        return this.#emit(events, this.#closeBlock(event['index']));
      case 'message_delta':
        return this.#finish(event, events);
      case 'message_stop':
        return this.#stop(events);
      default:
        return undefined;
    }
  }

  #start(message: unknown): BulkheadError | undefined {
    if (!isObject(message) || typeof message['id'] !== 'string' || typeof message['model'] !== 'string') {
      return malformed('something else than a message');
    }
    this.#message = { id: message['id'], model: message['model'] };
    this.#count(message['usage']);
    return undefined;
  }

  /** Undefined: a block that says nothing in OpenAI's dialect yet. */
  #openBlock({ index, content_block: block }: JsonObject): JsonObject | BulkheadError | undefined {
    if (!isObject(block)) return malformed('a block without content');
    switch (block['type']) {
      case 'text':
        return typeof block['text'] === 'string' && block['text'] !== '' ? { content: block['text'] } : {};
      case 'tool_use':
        return this.#openCall(index, block);
      default:
        return {};
    }
  }

  #openCall(blockIndex: unknown, { id, name, input }: JsonObject): JsonObject | BulkheadError {
    if (typeof id !== 'string' || typeof name !== 'string') return malformed('a tool call without id or name');
    if (this.#openCalls.size === openCallsMax) return malformed(`more than ${openCallsMax} open tool calls`);
    const index = this.#callCount++;
    this.#openCalls.set(blockIndex, { index, input, hasArguments: false });
    return { tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] };
  }

  #continueBlock({ index, delta }: JsonObject): JsonObject | BulkheadError | undefined {
    if (!isObject(delta)) return malformed('a delta without content');
    const { type, text, thinking, partial_json: piece } = delta;
    if (type === 'text_delta' && typeof text === 'string') return { content: text };
    if (type === 'thinking_delta' && typeof thinking === 'string') return { reasoning_content: thinking };
    const call = this.#openCalls.get(index);
    if (type !== 'input_json_delta' || typeof piece !== 'string' || piece === '' || call === undefined) return undefined;
    call.hasArguments = true;
    return { tool_calls: [{ index: call.index, function: { arguments: piece } }] };
  }

  /** A call without arguments sends none here, but OpenAI's clients parse what they get: an empty object. */
  #closeBlock(index: unknown): JsonObject | undefined {
    const call = this.#openCalls.get(index);
    this.#openCalls.delete(index);
    if (call === undefined || call.hasArguments) return undefined;
    return { tool_calls: [{ index: call.index, function: { arguments: JSON.stringify(isObject(call.input) ? call.input : {}) } }] };
  }

  #finish({ delta, usage }: JsonObject, events: CompletionEvent[]): BulkheadError | undefined {
    this.#count(usage);
    const reason = isObject(delta) ? delta['stop_reason'] : undefined;
    return typeof reason === 'string' ? this.#emit(events, {}, finishReasonOf(reason)) : undefined;
  }

  #stop(events: CompletionEvent[]): BulkheadError | undefined {
    const usage = usageOf(this.#usage);
    if (this.#message === undefined) return malformed('an end without a message');
    if (usage !== undefined) events.push(this.#chunk(this.#message, { choices: [], usage }));
    return undefined;
  }

  #emit(
    events: CompletionEvent[],
    said: JsonObject | BulkheadError | undefined,
    finishReason: string | null = null,
  ): BulkheadError | undefined {
    if (said instanceof BulkheadError) return said;
    if (this.#message === undefined) return malformed('content without a message');
    if (said === undefined) return undefined;
    const delta = this.#hasOpened ? said : { role: 'assistant', content: '', ...said };
    if (Object.keys(delta).length === 0 && finishReason === null) return undefined;
    this.#hasOpened = true;
    events.push(this.#chunk(this.#message, { choices: [{ index: 0, delta, logprobs: null, finish_reason: finishReason }] }));
    return undefined;
  }

  #chunk({ id, model }: { readonly id: string; readonly model: string }, rest: JsonObject): CompletionEvent {
    const tier = serviceTierOf(this.#usage);
    const parsed = { id, object: 'chat.completion.chunk', created: this.#createdSeconds, model, ...this.#asked, ...rest, ...tier };
    return { json: JSON.stringify(parsed), parsed };
  }

  /** Counts are cumulative and may come in either event; a null or a zero says nothing new. */
  #count(usage: unknown): void {
    if (!isObject(usage)) return;
    const told = usageFields.flatMap((name) => (usage[name] ? [[name, usage[name]]] : []));
    this.#usage = { ...this.#usage, ...(Object.fromEntries(told) as JsonObject) };
  }
}
