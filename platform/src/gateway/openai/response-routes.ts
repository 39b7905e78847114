/** `/v1/responses`: OpenAI's Responses API with file search, citations and stored conversations. */
import type { Clock } from '../../primitives/clock.ts';
import { type ResponseCall, type ResponseParts, serveResponse, serveResponseStream } from '../../request-path/serve-response.ts';
import type { Answer, EventWriter, TenantExchange } from '../exchange.ts';
import type { TenantRoute } from '../route.ts';
import { sessionIdOf } from '../session-header.ts';
import { notFound, pageRequestOf, validateBody } from '../validate.ts';
import { responseRequestOf, responsesBodySchema } from './responses-request.ts';
import { servedHeaders } from './served-headers.ts';

export interface ResponseRouteParts extends ResponseParts {
  readonly clock: Clock;
}

export function responseRoutes(parts: ResponseRouteParts): readonly TenantRoute[] {
  const byId = '/v1/responses/:responseId';
  return [
    { auth: 'tenant', method: 'POST', path: '/v1/responses', body: 'json', spends: true, handle: (exchange) => create(parts, exchange) },
    { auth: 'tenant', method: 'GET', path: byId, body: 'none', spends: false, handle: retrieve },
    { auth: 'tenant', method: 'DELETE', path: byId, body: 'none', spends: false, handle: remove },
    { auth: 'tenant', method: 'GET', path: `${byId}/input_items`, body: 'none', spends: false, handle: inputItems },
  ];
}

async function create(parts: ResponseRouteParts, exchange: TenantExchange): Promise<Answer> {
  const request = responseRequestOf(validateBody(responsesBodySchema, exchange.body));
  const { scope, requestId, signal } = exchange;
  const call: ResponseCall = { scope, requestId, request, signal, sessionId: sessionIdOf(exchange) };
  if (!request.stream) {
    const served = await serveResponse(parts, call);
    return { kind: 'json', status: 200, headers: servedHeaders(served, parts.clock, exchange.startedAtMs), body: served.response };
  }
  const stream = await serveResponseStream(parts, call);
  return {
    kind: 'events',
    headers: servedHeaders(stream.facts, parts.clock, exchange.startedAtMs),
    async run(writer: EventWriter) {
      for await (const batch of stream.events()) {
        for (const event of batch) {
          const full = writer.send(JSON.stringify(event), event.type);
          if (full !== undefined) await full;
        }
      }
    },
  };
}

async function retrieve(exchange: TenantExchange): Promise<Answer> {
  const stored = await exchange.scope.responses.get(idOf(exchange));
  if (stored === undefined) throw notFound('response', idOf(exchange));
  return { kind: 'json', status: 200, body: stored.response };
}

async function remove(exchange: TenantExchange): Promise<Answer> {
  const id = idOf(exchange);
  if (!(await exchange.scope.responses.delete(id))) throw notFound('response', id);
  return { kind: 'json', status: 200, body: { id, object: 'response', deleted: true } };
}

async function inputItems(exchange: TenantExchange): Promise<Answer> {
  const page = pageRequestOf(exchange.query);
  const stored = await exchange.scope.responses.get(idOf(exchange));
  if (stored === undefined) throw notFound('response', idOf(exchange));
  const ordered = page.order === 'asc' ? stored.inputItems : stored.inputItems.toReversed();
  const after = page.after === undefined ? -1 : ordered.findIndex((item) => item['id'] === page.after);
  const data = ordered.slice(after + 1, after + 1 + page.limit);
  const hasMore = data.length > 0 && ordered.length > after + 1 + page.limit;
  const edges = { first_id: data[0]?.['id'] ?? null, last_id: data.at(-1)?.['id'] ?? null };
  return { kind: 'json', status: 200, body: { object: 'list', data, ...edges, has_more: hasMore } };
}

function idOf(exchange: TenantExchange): string {
  return exchange.params['responseId'] ?? '';
}
