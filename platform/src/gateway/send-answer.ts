/** Puts an answer, or an error, on the wire. The only place that writes response heads. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { BodyBudget } from './body-budget.ts';
import { EventStream } from './event-stream.ts';
import type { Answer, EventsAnswer, PartsAnswer } from './exchange.ts';
import type { GatewayBounds } from './gateway-bounds.ts';
import type { OpenExchange } from './open-exchange.ts';
import { type ErrorAnswer, errorAnswer } from './openai-error.ts';

export interface SendParts {
  readonly bounds: GatewayBounds;
  readonly clock: Clock;
  readonly logger: Logger;
  /** True from the moment the server closes: connections are not kept. */
  readonly isDraining: () => boolean;
  readonly bodies: BodyBudget;
}

/** Hands the answer to the socket; a promise for what is produced as it is sent, resolving after its end and rejecting with its producer's error. */
export function sendAnswer(parts: SendParts, exchange: OpenExchange, answer: Answer): Promise<void> | undefined {
  switch (answer.kind) {
    case 'json': {
      const body = Buffer.isBuffer(answer.body) ? answer.body : JSON.stringify(answer.body);
      sendWhole(parts, exchange, { status: answer.status, headers: answer.headers, contentType: 'application/json', body });
      return undefined;
    }
    case 'bytes':
      sendWhole(parts, exchange, answer);
      return undefined;
    case 'parts':
      return sendParts(parts, exchange, answer);
    case 'events':
      return sendEvents(parts, exchange, answer);
    default:
      return answer satisfies never;
  }
}

/** Answers with the error if nothing was sent yet, else as the stream's last event. Returns the error's status and code. */
export function sendError(parts: SendParts, exchange: OpenExchange, error: unknown): ErrorAnswer {
  const answer = errorAnswer(error, exchange.requestId);
  const { stream, response } = exchange;
  if (stream?.hasStarted === true) stream.fail(answer.body);
  else if (response.headersSent) response.destroy();
  else sendWhole(parts, exchange, { ...answer, contentType: 'application/json' });
  return answer;
}

interface WholeAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly contentType: string;
  readonly body: string | Uint8Array;
  readonly closesConnection?: boolean;
}

/** A body this small is read away by Node itself while the connection lives on. */
const unreadBytesKept = 65_536;

function sendWhole(parts: SendParts, exchange: OpenExchange, answer: WholeAnswer): void {
  const { response } = exchange;
  if (exchange.endedBy?.code === 'client_closed_request' || response.headersSent) return;
  const rest = unreadBody(exchange);
  const closes = answer.closesConnection === true || rest !== 'none' || parts.isDraining();
  const { body } = answer;
  const length = typeof body === 'string' ? Buffer.byteLength(body) : body.byteLength;
  response.writeHead(answer.status, headOf(exchange, { ...answer, length }, closes));
  if (rest === 'linger' && answer.closesConnection !== true) endAfterLinger(parts, exchange, answer.body);
  else endInOneWrite(response, answer.body);
}

/** Up to here, copying the body beside the head costs less than a second buffer on the wire. */
const oneWriteBytesMax = 32_768;

/** Node joins a head with a text body into one write, and sends a Buffer as a second one; latin1 carries the same bytes. */
function endInOneWrite(response: ServerResponse, body: string | Uint8Array): void {
  if (Buffer.isBuffer(body) && body.length <= oneWriteBytesMax) response.end(body.toString('latin1'), 'latin1');
  else response.end(body);
}

interface HeadFacts {
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly contentType: string;
  readonly length: number;
}

function headOf(exchange: OpenExchange, answer: HeadFacts, closes: boolean): string[] {
  const head = ['content-type', answer.contentType, 'content-length', String(answer.length), 'x-request-id', exchange.requestId];
  for (const name in answer.headers) head.push(name, answer.headers[name] ?? '');
  if (exchange.openedScope !== undefined) head.push('cache-control', 'no-store');
  if (closes) head.push('connection', 'close');
  return head;
}

/** `close`: what remains will not come or is not wanted. `linger`: it is on its way and has to be read away first. */
function unreadBody({ request }: OpenExchange): 'none' | 'close' | 'linger' {
  if (request.complete) return 'none';
  const { headers } = request;
  const isChunked = headers['transfer-encoding'] !== undefined;
  const length = Number(headers['content-length'] ?? 0);
  if (!isChunked && length === 0) return 'none';
  if (headers.expect !== undefined) return 'close';
  return isChunked || length > unreadBytesKept ? 'linger' : 'none';
}

/**
 * Sends the whole answer but keeps the connection half alive while the client still writes: closing at once would reset it, and the
 * client would see a broken pipe instead of the refusal (RFC 9112 section 9.6).
 */
function endAfterLinger({ bounds }: SendParts, exchange: OpenExchange, body: string | Uint8Array): void {
  const { request, response } = exchange;
  let readAway = 0;
  const end = (): void => {
    clearTimeout(timer);
    request.off('data', onChunk).off('end', end).off('close', end);
    response.end();
  };
  const onChunk = (chunk: Buffer): void => {
    readAway += chunk.length;
    if (readAway > bounds.lingerBytesMax) end();
  };
  const timer = setTimeout(end, bounds.lingerMs);
  response.write(body);
  request.on('data', onChunk).on('end', end).on('close', end).resume();
}

/** One part that is read and one that the socket has not taken. */
const partsHeldBytes = 2 * 1_024 * 1_024;

/** Reads a part when the socket has taken the one before; the first before the head is written, so that its failure is an ordinary error. */
async function sendParts(parts: SendParts, exchange: OpenExchange, answer: PartsAnswer): Promise<void> {
  const { response } = exchange;
  const heldBytes = Math.min(answer.bytes, partsHeldBytes);
  parts.bodies.take(exchange.openedScope?.tenantId, heldBytes);
  exchange.bodyBytes += heldBytes;
  let hasHead = false;
  for await (const part of answer.parts) {
    if (exchange.endedBy !== undefined) return;
    if (!hasHead) response.writeHead(answer.status, headOf(exchange, { ...answer, length: answer.bytes }, parts.isDraining()));
    hasHead = true;
    if (!response.write(part)) await untilTaken(exchange, parts.bounds.streamStallMaxMs);
  }
  response.end();
}

async function untilTaken({ response, signal }: OpenExchange, stallMaxMs: number): Promise<void> {
  try {
    await once(response, 'drain', { signal: AbortSignal.any([signal, AbortSignal.timeout(stallMaxMs)]) });
  } catch {
    response.destroy();
    throw new BulkheadError('client_closed_request', 'the client left or reads too slowly');
  }
}

async function sendEvents(parts: SendParts, exchange: OpenExchange, answer: EventsAnswer): Promise<void> {
  const stream = openStream(parts, exchange, answer.headers ?? {});
  exchange.stream = stream;
  // Run even for a client that has gone: the producer holds things that only its own end releases.
  if (exchange.endedBy !== undefined) stream.abandon();
  await answer.run(stream);
  stream.end();
}

function openStream(
  { bounds, clock, logger, isDraining }: SendParts,
  exchange: OpenExchange,
  headers: Readonly<Record<string, string>>,
): EventStream {
  const { requestId } = exchange;
  return new EventStream({
    response: exchange.response,
    headers: { ...headers, 'x-request-id': requestId, ...(isDraining() && { connection: 'close' }) },
    bounds: { backlogBytesMax: bounds.streamBacklogBytesMax, stallMaxMs: bounds.streamStallMaxMs, heartbeatMs: bounds.heartbeatMs },
    clock,
    onDrop: (reason) => {
      logger.info(
        { requestId, route: exchange.route?.path, tenantId: exchange.openedScope?.tenantId, reason },
        'dropped a client that reads too slowly',
      );
      exchange.end(new BulkheadError('client_closed_request', 'the client reads too slowly'));
    },
  });
}

/** For a connection on which no exchange is open: the parser refused what came. */
export function rawErrorAnswer(error: BulkheadError, requestId: string): string {
  const { status, headers, body } = errorAnswer(error, requestId);
  const fields = {
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    'x-request-id': requestId,
    ...headers,
    connection: 'close',
  };
  const head = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${reasonOf(status)}\r\n${head.join('')}\r\n${body}`;
}

function reasonOf(status: number): string {
  return reasons.get(status) ?? 'Error';
}

const reasons: ReadonlyMap<number, string> = new Map([
  [400, 'Bad Request'],
  [405, 'Method Not Allowed'],
  [408, 'Request Timeout'],
  [413, 'Payload Too Large'],
  [431, 'Request Header Fields Too Large'],
]);
