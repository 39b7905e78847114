/**
 * A `fetch` to hand to the official client (`new OpenAI({ fetch: createRecordingFetch().fetch })`): it holds every JSON answer and
 * every streamed event to OpenAI's schemas while the client reads them, and keeps what it saw. The client's call fails on the first
 * answer that does not conform, so a test cannot forget to ask; the SDK wraps that failure, the report is its `cause`.
 */
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { type SchemaCheck, streamValidatorFor, validatorFor } from './openai-schema.ts';
import { chatStreamRules, responseStreamRules, type StreamRules } from './stream-rules.ts';

export interface RecordedExchange {
  readonly method: string;
  /** Path without the query. */
  readonly path: string;
  readonly status: number;
  readonly requestBody: unknown;
  readonly headers: Headers;
  /** The decoded JSON answer; undefined for streams and other content. */
  body: unknown;
  /** Decoded events of a stream in order, without `[DONE]`. */
  readonly events: unknown[];
  readonly violations: string[];
}

export interface RecordingFetch {
  readonly fetch: typeof fetch;
  /** Newest last. */
  readonly exchanges: readonly RecordedExchange[];
  /** Throws when nothing was recorded or when any answer or event broke its schema or its stream's rules. */
  expectConforming(): void;
}

const exchangesMax = 10_000;

export interface RecordingFetchOptions {
  /** What really fetches; the global one by default. */
  readonly inner?: typeof fetch;
  /** `collect` lets the client go on; the report waits in `expectConforming`. */
  readonly onViolation?: 'fail' | 'collect';
}

export function createRecordingFetch(options: RecordingFetchOptions = {}): RecordingFetch {
  const { inner = fetch, onViolation = 'fail' } = options;
  const failAtOnce = onViolation === 'fail' ? failOnViolation : () => {};
  const exchanges: RecordedExchange[] = [];
  return {
    exchanges,
    fetch: async (input, init) => {
      const response = await inner(input, init);
      const exchange = startExchange(new Request(input, withoutBody(init)), init?.body, response);
      exchanges.push(exchange);
      if (exchanges.length > exchangesMax) throw new Error(`a recorder keeps ${exchangesMax} exchanges at most`);
      return record(exchange, response, failAtOnce);
    },
    expectConforming() {
      if (exchanges.length === 0) throw new Error('nothing was recorded: the client did not use this fetch');
      for (const exchange of exchanges) failOnViolation(exchange);
    },
  };
}

function failOnViolation({ method, path, status, violations }: RecordedExchange): void {
  if (violations.length === 0) return;
  throw new Error(`${method} ${path} -> ${status} does not conform:\n  ${violations.join('\n  ')}`);
}

function withoutBody(init: RequestInit | undefined): RequestInit {
  return { method: init?.method ?? 'GET' };
}

function startExchange(request: Request, body: unknown, response: Response): RecordedExchange {
  const violations = response.headers.has('x-request-id') ? [] : ['no x-request-id header'];
  const path = new URL(request.url).pathname;
  const requestBody = typeof body === 'string' ? decodeJson(body) : undefined;
  const { status, headers } = response;
  return { method: request.method, path, status, requestBody, headers, body: undefined, events: [], violations };
}

type FailAtOnce = (exchange: RecordedExchange) => void;

async function record(exchange: RecordedExchange, response: Response, failAtOnce: FailAtOnce): Promise<Response> {
  const mediaType = response.headers.get('content-type') ?? '';
  const streamCheck = mediaType.startsWith('text/event-stream') ? streamValidatorFor(routeOf(exchange)) : undefined;
  if (streamCheck && response.body) {
    const body = response.body.pipeThrough(watch(exchange, { check: streamCheck, rules: rulesFor(exchange), failAtOnce }));
    return new Response(body, response);
  }
  const passedOn = mediaType.startsWith('application/json') ? await recordJson(exchange, response) : recordOther(exchange, response);
  failAtOnce(exchange);
  return passedOn;
}

async function recordJson(exchange: RecordedExchange, response: Response): Promise<Response> {
  const text = await response.text();
  exchange.body = decodeJson(text);
  const check = validatorFor(routeOf(exchange), exchange.status);
  exchange.violations.push(...(check?.violations(exchange.body) ?? []));
  return new Response(text, response);
}

/** Content of a file, an answer without a body, and whatever should have been JSON. */
function recordOther(exchange: RecordedExchange, response: Response): Response {
  const check = validatorFor(routeOf(exchange), exchange.status);
  if (check) exchange.violations.push(`a ${check.schemaName} was due, got content-type ${response.headers.get('content-type')}`);
  return response;
}

interface StreamWatch {
  readonly check: SchemaCheck;
  readonly rules: StreamRules;
  readonly failAtOnce: FailAtOnce;
}

/** Passes bytes on untouched and reads the events on the way. A stream that the client leaves is not held to the rules of its end. */
function watch(exchange: RecordedExchange, stream: StreamWatch): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
  const decoder = new TextDecoder();
  const parser = createParser({ onEvent: (message) => recordEvent(exchange, message, stream) });
  return new TransformStream({
    transform(chunk, controller) {
      parser.feed(decoder.decode(chunk, { stream: true }));
      stream.failAtOnce(exchange);
      controller.enqueue(chunk);
    },
    flush() {
      exchange.violations.push(...stream.rules.end());
      stream.failAtOnce(exchange);
    },
  });
}

function recordEvent(exchange: RecordedExchange, message: EventSourceMessage, { check, rules }: StreamWatch): void {
  const { data, event } = message;
  const isLast = data === '[DONE]';
  const value = isLast ? undefined : decodeJson(data);
  const at = isLast ? '[DONE]' : `event ${exchange.events.length}`;
  if (!isLast) exchange.events.push(value);
  const faults = [...(isLast ? [] : check.violations(value)), ...rules.next({ name: event, text: data, value })];
  exchange.violations.push(...faults.map((fault) => `${at}: ${fault}`));
}

function rulesFor(exchange: RecordedExchange): StreamRules {
  return exchange.path.endsWith('/chat/completions') ? chatStreamRules(exchange.requestBody) : responseStreamRules();
}

function routeOf(exchange: RecordedExchange): string {
  return `${exchange.method} ${exchange.path}`;
}

function decodeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
