/**
 * Builds one Response object and, on the way, its stream events. Feed it what the model delivers; it keeps the output items,
 * numbers the events, and satisfies both OpenAI's Response schema and Open Responses (every nullable field present).
 * Order of events after https://platform.openai.com/docs/api-reference/responses-streaming.
 */
import type { TokenUsage } from '../../primitives/token-usage.ts';
import type { JsonRecord, ResponseRequest } from './request.ts';

export interface ResponseEvent {
  readonly type: string;
  readonly sequence_number: number;
  readonly [field: string]: unknown;
}

export interface Citation {
  /** Offset in the text, UTF-16 units. */
  readonly index: number;
  readonly fileId: string;
  readonly filename: string;
}

export interface TranscriptFacts {
  readonly responseId: string;
  readonly createdAtSeconds: number;
  readonly request: ResponseRequest;
  readonly nextId: (prefix: 'msg_' | 'fs_' | 'fc_' | 'call_') => string;
}

type MutableItem = Record<string, unknown>;

interface OpenToolCall {
  readonly item: MutableItem;
  readonly outputIndex: number;
  arguments: string;
}

export class ResponseTranscript {
  readonly #facts: TranscriptFacts;
  readonly #output: MutableItem[] = [];
  readonly #toolCalls = new Map<number, OpenToolCall>();
  #events: ResponseEvent[] = [];
  #sequence = 0;
  #message: { readonly item: MutableItem; readonly outputIndex: number } | undefined;
  #text = '';
  #refusal = '';
  #openPart: 'output_text' | 'refusal' | undefined;

  constructor(facts: TranscriptFacts) {
    this.#facts = facts;
  }

  /** The text delivered so far. */
  get text(): string {
    return this.#text;
  }

  /** Events since the last call. */
  takeEvents(): readonly ResponseEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  begin(): void {
    this.#emit('response.created', { response: this.#snapshot('in_progress') });
    this.#emit('response.in_progress', { response: this.#snapshot('in_progress') });
  }

  /** A finished file search; `results` are shown only when the client asked to include them. */
  fileSearch(queries: readonly string[], results: readonly JsonRecord[]): void {
    const include = this.#facts.request.include.includes('file_search_call.results');
    const item: MutableItem = { type: 'file_search_call', id: this.#facts.nextId('fs_'), status: 'in_progress', queries, results: null };
    const outputIndex = this.#output.push(item) - 1;
    const place = { output_index: outputIndex, item_id: item['id'] };
    this.#emit('response.output_item.added', { output_index: outputIndex, item: { ...item } });
    this.#emit('response.file_search_call.in_progress', place);
    this.#emit('response.file_search_call.searching', place);
    item['status'] = 'completed';
    if (include) item['results'] = results;
    this.#emit('response.file_search_call.completed', place);
    this.#emit('response.output_item.done', { output_index: outputIndex, item: { ...item } });
  }

  textDelta(delta: string): void {
    if (delta === '') return;
    this.#openContent('output_text');
    this.#text += delta;
    this.#emit('response.output_text.delta', { ...this.#contentPlace(), delta, logprobs: [] });
  }

  refusalDelta(delta: string): void {
    if (delta === '') return;
    this.#openContent('refusal');
    this.#refusal += delta;
    this.#emit('response.refusal.delta', { ...this.#contentPlace(), delta });
  }

  toolCallDelta(index: number, fragment: { readonly id?: string; readonly name?: string; readonly arguments?: string }): void {
    const call = this.#toolCalls.get(index) ?? this.#openToolCall(index, fragment);
    if (!fragment.arguments) return;
    call.arguments += fragment.arguments;
    this.#emit('response.function_call_arguments.delta', {
      item_id: call.item['id'],
      output_index: call.outputIndex,
      delta: fragment.arguments,
    });
  }

  /** Closes everything that is open and ends the response. */
  finish(end: {
    readonly finishReason: string;
    readonly usage: TokenUsage;
    readonly citations: readonly Citation[];
    readonly serviceTier: string | null;
    readonly completedAtSeconds: number;
  }): JsonRecord {
    const incomplete = incompleteReason(end.finishReason);
    const status = incomplete === undefined ? 'completed' : 'incomplete';
    this.#closeContent(end.citations, status);
    for (const call of this.#toolCalls.values()) this.#closeToolCall(call, status);
    const response = {
      ...this.#snapshot(status),
      completed_at: status === 'completed' ? end.completedAtSeconds : null,
      incomplete_details: incomplete === undefined ? null : { reason: incomplete },
      service_tier: end.serviceTier ?? 'default',
      usage: responseUsage(end.usage),
    };
    this.#emit(status === 'completed' ? 'response.completed' : 'response.incomplete', { response });
    return response;
  }

  fail(error: { readonly code: string; readonly message: string }): JsonRecord {
    const response = { ...this.#snapshot('failed'), error: { code: 'server_error', message: error.message } };
    this.#emit('response.failed', { response });
    return response;
  }

  #openContent(kind: 'output_text' | 'refusal'): void {
    if (this.#openPart === kind) return;
    this.#message ??= this.#openMessage();
    if (this.#openPart !== undefined) this.#closePart([]);
    this.#openPart = kind;
    const part = kind === 'output_text' ? textPart('', []) : { type: 'refusal', refusal: '' };
    (this.#message.item['content'] as unknown[]).push(part);
    this.#emit('response.content_part.added', { ...this.#contentPlace(), part });
  }

  #openMessage(): { readonly item: MutableItem; readonly outputIndex: number } {
    const item: MutableItem = { type: 'message', id: this.#facts.nextId('msg_'), status: 'in_progress', role: 'assistant', content: [] };
    const outputIndex = this.#output.push(item) - 1;
    this.#emit('response.output_item.added', { output_index: outputIndex, item: { ...item, content: [] } });
    return { item, outputIndex };
  }

  #contentPlace(): JsonRecord {
    const content = this.#message?.item['content'] as readonly unknown[];
    return { item_id: this.#message?.item['id'], output_index: this.#message?.outputIndex, content_index: content.length - 1 };
  }

  #closeContent(citations: readonly Citation[], status: string): void {
    if (this.#message === undefined) return;
    this.#closePart(citations);
    this.#message.item['status'] = status;
    this.#emit('response.output_item.done', { output_index: this.#message.outputIndex, item: { ...this.#message.item } });
  }

  #closePart(citations: readonly Citation[]): void {
    const content = this.#message?.item['content'] as unknown[];
    const place = this.#contentPlace();
    if (this.#openPart === 'refusal') {
      const part = { type: 'refusal', refusal: this.#refusal };
      content[content.length - 1] = part;
      this.#emit('response.refusal.done', { ...place, refusal: this.#refusal });
      this.#emit('response.content_part.done', { ...place, part });
      return;
    }
    const annotations = citations.map((citation) => ({
      type: 'file_citation',
      index: citation.index,
      file_id: citation.fileId,
      filename: citation.filename,
    }));
    annotations.forEach((annotation, index) => {
      this.#emit('response.output_text.annotation.added', { ...place, annotation_index: index, annotation });
    });
    const part = textPart(this.#text, annotations);
    content[content.length - 1] = part;
    this.#emit('response.output_text.done', { ...place, text: this.#text, logprobs: [] });
    this.#emit('response.content_part.done', { ...place, part });
  }

  #openToolCall(index: number, fragment: { readonly id?: string; readonly name?: string }): OpenToolCall {
    const item: MutableItem = {
      type: 'function_call',
      id: this.#facts.nextId('fc_'),
      call_id: fragment.id ?? this.#facts.nextId('call_'),
      name: fragment.name ?? '',
      arguments: '',
      status: 'in_progress',
    };
    const call: OpenToolCall = { item, outputIndex: this.#output.push(item) - 1, arguments: '' };
    this.#toolCalls.set(index, call);
    this.#emit('response.output_item.added', { output_index: call.outputIndex, item: { ...item } });
    return call;
  }

  #closeToolCall(call: OpenToolCall, status: string): void {
    call.item['arguments'] = call.arguments;
    call.item['status'] = status;
    const { id, name } = call.item;
    this.#emit('response.function_call_arguments.done', { item_id: id, output_index: call.outputIndex, name, arguments: call.arguments });
    this.#emit('response.output_item.done', { output_index: call.outputIndex, item: { ...call.item } });
  }

  #emit(type: string, fields: JsonRecord): void {
    this.#events.push({ type, sequence_number: this.#sequence++, ...fields });
  }

  #snapshot(status: string): JsonRecord {
    const { request, responseId, createdAtSeconds } = this.#facts;
    return {
      id: responseId,
      object: 'response',
      created_at: createdAtSeconds,
      completed_at: null,
      status,
      error: null,
      incomplete_details: null,
      model: request.model,
      output: structuredClone(this.#output),
      ...echoOf(request),
      service_tier: request.serviceTier ?? 'default',
    };
  }
}

/** The request's settings as the response repeats them. */
function echoOf(request: ResponseRequest): JsonRecord {
  return {
    instructions: request.instructions,
    previous_response_id: request.previousResponseId,
    tools: request.tools,
    tool_choice: request.toolChoice,
    parallel_tool_calls: request.parallelToolCalls,
    max_output_tokens: request.maxOutputTokens,
    max_tool_calls: null,
    temperature: request.temperature ?? 1,
    top_p: request.topP ?? 1,
    presence_penalty: 0,
    frequency_penalty: 0,
    top_logprobs: request.topLogprobs ?? 0,
    text: request.text,
    reasoning: request.reasoning,
    truncation: request.truncation,
    store: request.store,
    background: false,
    metadata: request.metadata,
    safety_identifier: request.safetyIdentifier,
    prompt_cache_key: request.promptCacheKey,
    // The one field of the schema that may be absent and may not be null.
    ...(request.user !== null && { user: request.user }),
  };
}

function textPart(text: string, annotations: readonly JsonRecord[]): JsonRecord {
  return { type: 'output_text', text, annotations, logprobs: [] };
}

function incompleteReason(finishReason: string): string | undefined {
  if (finishReason === 'length') return 'max_output_tokens';
  return finishReason === 'content_filter' ? 'content_filter' : undefined;
}

function responseUsage(usage: TokenUsage): JsonRecord {
  return {
    input_tokens: usage.inputTokens,
    input_tokens_details: { cached_tokens: usage.cacheReadTokens ?? 0, cache_write_tokens: usage.cacheWrite5mTokens ?? 0 },
    output_tokens: usage.outputTokens,
    output_tokens_details: { reasoning_tokens: usage.reasoningTokens ?? 0 },
    total_tokens: usage.inputTokens + usage.outputTokens,
  };
}
