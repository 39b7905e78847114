import type { BulkheadError } from '../errors/bulkhead-error.ts';
import type { CompletionEvent, CompletionStream, QuotaReport } from '../inference/provider.ts';
import { type SseEvent, SseReader } from './sse-reader.ts';
import type { UpstreamExchange } from './upstream-exchange.ts';

/** What a batch of a dialect's events says. */
export interface Understood {
  readonly events: readonly CompletionEvent[];
  /** Comes after the events. */
  readonly failure: BulkheadError | undefined;
  /** Whatever follows is ignored. */
  readonly isDone: boolean;
}

/** One stream's reading of a provider's dialect; may keep state. */
export interface EventInterpreter {
  /** Events in order. Not called again after a failure or the end. */
  understand(received: readonly SseEvent[]): Understood;
  /** The body has ended and the dialect's own end had not come: the failure that is, if it is one. */
  endEarly(): BulkheadError | undefined;
}

/** A completion stream read from an exchange. Parsing happens when the consumer asks, so a slow consumer costs nothing but bytes. */
export class SseCompletionStream implements CompletionStream {
  readonly batches: AsyncIterable<readonly CompletionEvent[]>;
  readonly quota: QuotaReport | undefined;
  readonly #exchange: UpstreamExchange;

  constructor(exchange: UpstreamExchange, interpreter: EventInterpreter, quota: QuotaReport | undefined) {
    this.quota = quota;
    this.#exchange = exchange;
    this.batches = readBatches(exchange, interpreter);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#exchange.abort();
  }
}

async function* readBatches(exchange: UpstreamExchange, interpreter: EventInterpreter): AsyncGenerator<readonly CompletionEvent[], void> {
  const reader = new SseReader();
  let isDone = false;
  try {
    while (!isDone) {
      const chunks = await exchange.read();
      const understood = interpreter.understand(chunks === undefined ? reader.end() : chunks.flatMap((chunk) => reader.read(chunk)));
      isDone = understood.isDone || chunks === undefined;
      if (understood.events.length > 0) yield understood.events;
      const failure = understood.failure ?? (isDone && !understood.isDone ? interpreter.endEarly() : undefined);
      if (failure !== undefined) throw failure;
    }
  } finally {
    if (isDone) exchange.leave();
    else exchange.abort();
  }
}
