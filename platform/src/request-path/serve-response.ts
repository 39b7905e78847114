/**
 * The Responses API on top of the inference path:
 *
 *   history (previous_response_id) -> 4 retrieval (file_search) -> assemble -> serve-inference -> transcript -> store
 *
 * The transcript is fed the same way whether the client streams or not; a streaming client sees its events as they come.
 */
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { UsageEvent } from '../metering/usage-event.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import { type AssembledContext, assembleContext, citationsIn } from '../rag/assemble.ts';
import type { RetrievedChunk, StoredResponse } from '../tenancy/capabilities.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { InferenceCall, ServedFacts } from './inference-call.ts';
import { chatBodyOf, questionOf } from './responses/messages.ts';
import type { JsonRecord, ResponseRequest } from './responses/request.ts';
import { type ResponseEvent, ResponseTranscript } from './responses/transcript.ts';
import { type InferenceParts, serveCompletion, serveStream } from './serve-inference.ts';
import type { RetrievalPath } from './serve-retrieval.ts';
import type { ServedStream } from './served-stream.ts';

export interface ResponseParts extends InferenceParts {
  readonly retrieval: RetrievalPath;
  readonly ids: IdSource;
  readonly clock: Clock;
  /** Most tokens of retrieved text in one prompt. */
  readonly contextTokensMax: number;
}

export interface ResponseCall {
  readonly scope: TenantScope;
  readonly requestId: string;
  readonly sessionId?: string | undefined;
  readonly request: ResponseRequest;
  readonly signal: AbortSignal;
}

export interface ServedResponse extends ServedFacts {
  readonly response: JsonRecord;
}

export interface StreamedResponse {
  readonly facts: ServedFacts;
  /** Events in order; the last is `response.completed`, `.incomplete` or `.failed`. Stored before the last is yielded. */
  events(): AsyncGenerator<readonly ResponseEvent[]>;
}

/** The whole response at once. */
export async function serveResponse(parts: ResponseParts, call: ResponseCall): Promise<ServedResponse> {
  const prepared = await prepare(parts, call);
  const served = await serveCompletion(parts, prepared.inference);
  const { transcript } = prepared;
  const message = feedCompletion(transcript, served.parsed);
  const response = transcript.finish({ ...message, ...endOf(parts, prepared, served.event) });
  await store(parts, call, response);
  return { ...served, response };
}

/** The response as events. Errors before the first upstream byte reject here, so they are ordinary HTTP errors. */
export async function serveResponseStream(parts: ResponseParts, call: ResponseCall): Promise<StreamedResponse> {
  const prepared = await prepare(parts, call);
  const stream = await serveStream(parts, prepared.inference);
  return { facts: stream.facts, events: () => responseEvents(parts, call, { prepared, stream }) };
}

interface Prepared {
  readonly transcript: ResponseTranscript;
  readonly inference: InferenceCall;
  readonly context: AssembledContext | undefined;
}

async function prepare(parts: ResponseParts, call: ResponseCall): Promise<Prepared> {
  const { scope, request, requestId, sessionId, signal } = call;
  const chain = await chainOf(scope, request);
  const responseId = parts.ids.next('resp_');
  const found = await searchFiles(parts, call);
  const context = found === undefined ? undefined : assembleContext(scope, found.chunks, parts.contextTokensMax);
  const transcript = new ResponseTranscript({
    responseId,
    createdAtSeconds: Math.floor(parts.clock.nowMs() / 1_000),
    request,
    nextId: (prefix) => parts.ids.next(prefix),
  });
  transcript.begin();
  if (found !== undefined) transcript.fileSearch(found.queries, found.chunks.map(searchResult));
  const body = chatBodyOf(request, itemsOf(chain), context?.systemMessage);
  // The whole conversation has the id of its first response. No header has a space in it.
  const conversationId = `conversation ${chain[0]?.id ?? responseId}`;
  return { transcript, context, inference: { scope, requestId, sessionId, conversationId, signal, endpoint: 'responses', body } };
}

/** The conversation so far, oldest response first. */
async function chainOf(scope: TenantScope, { previousResponseId }: ResponseRequest): Promise<readonly StoredResponse[]> {
  if (previousResponseId === null) return [];
  const chain = await scope.responses.chain(previousResponseId);
  if (chain !== undefined) return chain;
  throw new BulkheadError('not_found', `Previous response with id ${quoteInput(previousResponseId)} not found.`, {
    param: 'previous_response_id',
  });
}

/** Each earlier turn's input, then its output. */
function itemsOf(chain: readonly StoredResponse[]): readonly JsonRecord[] {
  return chain.flatMap(({ inputItems, response }) => [...inputItems, ...((response['output'] ?? []) as readonly JsonRecord[])]);
}

async function searchFiles(parts: ResponseParts, call: ResponseCall) {
  const { scope, requestId, sessionId, request, signal } = call;
  const question = questionOf(request);
  if (request.fileSearch === undefined || question.trim() === '') return undefined;
  const { vectorStoreIds, maxNumResults, scoreThreshold, weights, filter } = request.fileSearch;
  return parts.retrieval.search({
    scope,
    requestId,
    sessionId,
    signal,
    endpoint: 'responses',
    storeIds: vectorStoreIds,
    queries: [question.slice(0, 4_096)],
    // People ask in sentences here; without a model to rewrite them they are searched as they are.
    rewrite: 'by-model',
    limit: maxNumResults,
    scoreThreshold,
    weights,
    filter,
  });
}

function searchResult(chunk: RetrievedChunk): JsonRecord {
  return { file_id: chunk.fileId, filename: chunk.filename, score: chunk.score, attributes: chunk.attributes, text: chunk.text };
}

interface ChatMessage {
  readonly content?: string | null;
  readonly refusal?: string | null;
  readonly tool_calls?: readonly { readonly id?: string; readonly function?: { readonly name?: string; readonly arguments?: string } }[];
}

interface ChatChoice {
  readonly index?: number;
  readonly finish_reason?: string | null;
  readonly message?: ChatMessage;
  readonly delta?: Omit<ChatMessage, 'tool_calls'> & {
    readonly tool_calls?: readonly {
      readonly index?: number;
      readonly id?: string;
      readonly function?: { readonly name?: string; readonly arguments?: string };
    }[];
  };
}

function firstChoice(chunk: JsonRecord): ChatChoice | undefined {
  const choices = chunk['choices'];
  return Array.isArray(choices) ? (choices[0] as ChatChoice | undefined) : undefined;
}

function feedCompletion(
  transcript: ResponseTranscript,
  completion: JsonRecord,
): { readonly finishReason: string; readonly serviceTier: string | null } {
  const choice = firstChoice(completion);
  transcript.textDelta(choice?.message?.content ?? '');
  transcript.refusalDelta(choice?.message?.refusal ?? '');
  (choice?.message?.tool_calls ?? []).forEach((call, index) => {
    transcript.toolCallDelta(index, fragmentOf(call));
  });
  return { finishReason: choice?.finish_reason ?? 'stop', serviceTier: tierOf(completion) };
}

function feedChunk(transcript: ResponseTranscript, chunk: JsonRecord): string | undefined {
  const choice = firstChoice(chunk);
  transcript.textDelta(choice?.delta?.content ?? '');
  transcript.refusalDelta(choice?.delta?.refusal ?? '');
  for (const call of choice?.delta?.tool_calls ?? []) transcript.toolCallDelta(call.index ?? 0, fragmentOf(call));
  return choice?.finish_reason ?? undefined;
}

function fragmentOf(call: { readonly id?: string; readonly function?: { readonly name?: string; readonly arguments?: string } }) {
  return {
    ...(call.id !== undefined && { id: call.id }),
    ...(call.function?.name !== undefined && { name: call.function.name }),
    ...(call.function?.arguments !== undefined && { arguments: call.function.arguments }),
  };
}

async function* responseEvents(
  parts: ResponseParts,
  call: ResponseCall,
  running: { readonly prepared: Prepared; readonly stream: ServedStream },
): AsyncGenerator<readonly ResponseEvent[]> {
  const { prepared, stream } = running;
  const { transcript } = prepared;
  let finishReason = 'stop';
  let serviceTier: string | null = null;
  try {
    yield transcript.takeEvents();
    for await (const batch of stream.batches()) {
      for (const event of batch) {
        finishReason = feedChunk(transcript, event.parsed) ?? finishReason;
        serviceTier = tierOf(event.parsed) ?? serviceTier;
      }
      const events = transcript.takeEvents();
      if (events.length > 0) yield events;
    }
    const response = transcript.finish({ finishReason, serviceTier, ...endOf(parts, prepared, stream.event) });
    await store(parts, call, response);
    yield transcript.takeEvents();
  } catch (error) {
    if (call.signal.aborted || !(error instanceof BulkheadError)) throw error;
    transcript.fail({ code: error.code, message: error.message });
    yield transcript.takeEvents();
  } finally {
    await stream[Symbol.asyncDispose]();
  }
}

function endOf(parts: ResponseParts, prepared: Prepared, event: UsageEvent | undefined) {
  return {
    usage: event?.usage ?? { inputTokens: 0, outputTokens: 0 },
    citations: prepared.context === undefined ? [] : citationsIn(prepared.transcript.text, prepared.context),
    completedAtSeconds: Math.floor(parts.clock.nowMs() / 1_000),
  };
}

async function store(parts: ResponseParts, call: ResponseCall, response: JsonRecord): Promise<void> {
  if (!call.request.store) return;
  const stored: StoredResponse = {
    id: String(response['id']),
    createdAtMs: parts.clock.nowMs(),
    ...(call.request.previousResponseId !== null && { previousResponseId: call.request.previousResponseId }),
    response,
    inputItems: call.request.input.map((item) => withId(item, parts.ids)),
  };
  await call.scope.responses.create(stored);
}

function withId(item: JsonRecord, ids: IdSource): JsonRecord {
  const type = item['type'] ?? 'message';
  const content = item['content'];
  const listed = type === 'message' && typeof content === 'string' ? { content: [{ type: textPartOf(item), text: content }] } : {};
  return { ...item, type, id: item['id'] ?? ids.next('msg_'), status: item['status'] ?? 'completed', ...listed };
}

function textPartOf(item: JsonRecord): string {
  return item['role'] === 'assistant' ? 'output_text' : 'input_text';
}

function tierOf(body: JsonRecord): string | null {
  return typeof body['service_tier'] === 'string' ? body['service_tier'] : null;
}
