import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { CompletionEvent, CompletionStream, QuotaReport } from '../../inference/provider.ts';
import { type SseEvent, SseReader } from './sse-reader.ts';
import type { UpstreamExchange } from './upstream-exchange.ts';
import { failureInBody, malformed } from './upstream-failures.ts';

/** A completion stream read from an exchange. Parsing happens when the consumer asks, so a slow consumer costs nothing but bytes. */
export class SseCompletionStream implements CompletionStream {
  readonly batches: AsyncIterable<readonly CompletionEvent[]>;
  readonly quota: QuotaReport | undefined;
  readonly #exchange: UpstreamExchange;

  constructor(exchange: UpstreamExchange, quota: QuotaReport | undefined) {
    this.quota = quota;
    this.#exchange = exchange;
    this.batches = readBatches(exchange);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#exchange.abort();
  }
}

async function* readBatches(exchange: UpstreamExchange): AsyncGenerator<readonly CompletionEvent[], void> {
  const reader = new SseReader();
  let isDone = false;
  try {
    while (!isDone) {
      const chunks = await exchange.read();
      const { events, failure, sawDone } = understand(chunks === undefined ? reader.end() : chunks.flatMap((chunk) => reader.read(chunk)));
      isDone = sawDone || chunks === undefined;
      if (events.length > 0) yield events;
      if (failure !== undefined) throw failure;
    }
  } finally {
    if (isDone) exchange.leave();
    else exchange.abort();
  }
}

interface Understood {
  readonly events: readonly CompletionEvent[];
  /** Comes after the events. */
  readonly failure: BulkheadError | undefined;
  readonly sawDone: boolean;
}

/** Whatever follows the first `[DONE]` is ignored, another `[DONE]` included. */
function understand(received: readonly SseEvent[]): Understood {
  const events: CompletionEvent[] = [];
  for (const event of received) {
    if (event.data === '[DONE]') return { events, failure: undefined, sawDone: true };
    const read = readEvent(event);
    if (read instanceof BulkheadError) return { events, failure: read, sawDone: false };
    events.push(read);
  }
  return { events, failure: undefined, sawDone: false };
}

function readEvent({ data, name }: SseEvent): CompletionEvent | BulkheadError {
  const parsed = parseObject(data);
  if (parsed === undefined) return malformed('an event that is not a JSON object');
  if (name === 'error') return failureInBody({ error: parsed['error'] ?? parsed }) ?? malformed('an error event');
  const failure = failureInBody(parsed);
  if (failure !== undefined) return failure;
  // An event of several data lines is joined by line feeds, which would break the framing when it is sent on.
  return { json: data.includes('\n') ? JSON.stringify(parsed) : data, parsed };
}

/** Undefined for anything but a JSON object. */
export function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
