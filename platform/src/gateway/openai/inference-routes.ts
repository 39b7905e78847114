/** `/v1/chat/completions`, `/v1/embeddings`, `/v1/models`: OpenAI's dialect of the inference path. */
import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { InferenceCall } from '../../request-path/inference-call.ts';
import { type InferenceParts, serveCompletion, serveEmbedding, serveStream } from '../../request-path/serve-inference.ts';
import type { Answer, EventWriter, TenantExchange } from '../exchange.ts';
import type { TenantRoute } from '../route.ts';
import { sessionIdOf } from '../session-header.ts';
import { validateBody } from '../validate.ts';
import { chatRequestSchema, checkChatRequest } from './chat-request.ts';
import { embeddingsRequestSchema } from './embeddings-request.ts';
import { servedHeaders } from './served-headers.ts';

export interface InferenceRouteParts extends InferenceParts {
  readonly clock: Clock;
}

export function inferenceRoutes(parts: InferenceRouteParts): readonly TenantRoute[] {
  return [
    {
      auth: 'tenant',
      method: 'POST',
      path: '/v1/chat/completions',
      body: 'json',
      spends: true,
      handle: (exchange) => chat(parts, exchange),
    },
    {
      auth: 'tenant',
      method: 'POST',
      path: '/v1/embeddings',
      body: 'json',
      spends: true,
      handle: (exchange) => embeddings(parts, exchange),
    },
    { auth: 'tenant', method: 'GET', path: '/v1/models', body: 'none', spends: false, handle: async (exchange) => models(parts, exchange) },
    {
      auth: 'tenant',
      method: 'GET',
      path: '/v1/models/:modelId',
      body: 'none',
      spends: false,
      slashInParams: true,
      handle: async (exchange) => model(parts, exchange),
    },
  ];
}

async function chat(parts: InferenceRouteParts, exchange: TenantExchange): Promise<Answer> {
  const request = validateBody(chatRequestSchema, exchange.body);
  checkChatRequest(request);
  // The validated copy is only for checking: what goes upstream is what came in.
  const call = callOf(exchange, 'chat.completions');
  if (request.stream === true) return streamChat(parts, exchange, call);
  const served = await serveCompletion(parts, call);
  return { kind: 'json', status: 200, headers: servedHeaders(served, parts.clock, exchange.startedAtMs), body: served.body };
}

async function streamChat(parts: InferenceRouteParts, exchange: TenantExchange, call: InferenceCall): Promise<Answer> {
  const stream = await serveStream(parts, call);
  return {
    kind: 'events',
    headers: servedHeaders(stream.facts, parts.clock, exchange.startedAtMs),
    async run(writer: EventWriter) {
      await using owned = stream;
      for await (const batch of owned.batches()) {
        for (const event of batch) {
          const full = writer.send(event.json);
          if (full !== undefined) await full;
        }
      }
      await writer.send('[DONE]');
    },
  };
}

async function embeddings(parts: InferenceRouteParts, exchange: TenantExchange): Promise<Answer> {
  validateBody(embeddingsRequestSchema, exchange.body);
  const served = await serveEmbedding(parts, callOf(exchange, 'embeddings'));
  return { kind: 'json', status: 200, headers: servedHeaders(served, parts.clock, exchange.startedAtMs), body: served.body };
}

function callOf(exchange: TenantExchange, endpoint: InferenceCall['endpoint']): InferenceCall {
  const { scope, requestId, body, signal } = exchange;
  return { scope, requestId, endpoint, body, signal, sessionId: sessionIdOf(exchange) };
}

function models(parts: InferenceRouteParts, exchange: TenantExchange): Answer {
  const data = parts.inference.modelsFor(exchange.scope.policy).map(modelShape);
  return { kind: 'json', status: 200, body: { object: 'list', data } };
}

function model(parts: InferenceRouteParts, exchange: TenantExchange): Answer {
  const id = exchange.params['modelId'] ?? '';
  const found = parts.inference.modelsFor(exchange.scope.policy).find((entry) => entry.id === id);
  if (found === undefined)
    throw new BulkheadError('model_not_found', `The model ${quoteInput(id)} does not exist or you do not have access to it.`, {
      param: 'model',
    });
  return { kind: 'json', status: 200, body: modelShape(found) };
}

/** Models have no birthday here; the SDK's type wants a number. */
const createdSeconds = Date.UTC(2026, 0, 1) / 1_000;

function modelShape(entry: { readonly id: string }) {
  return { id: entry.id, object: 'model', created: createdSeconds, owned_by: 'bulkhead' };
}
