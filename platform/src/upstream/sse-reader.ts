import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { BulkheadError } from '../errors/bulkhead-error.ts';

/** One event, and also what may come between two of them: comments, empty lines, unknown fields. A longer silence of sense is a flood. */
export const bytesWithoutEventMax = 1_048_576;

export interface SseEvent {
  /** Its `data:` lines, joined by line feeds; never empty. */
  readonly data: string;
  /** Its `event:` field; empty when it has none. */
  readonly name: string;
}

/**
 * Server-sent events from bytes that arrive in any pieces (HTML Living Standard, 9.2.6), a character or a line end cut in half included.
 * A hand-written parser of bytes took 0.3 to 0.7 µs an event, this one with its decoder 0.1 to 0.6, beside 1.8 µs for the JSON.
 */
export class SseReader {
  readonly #decoder = new TextDecoder();
  readonly #parser = createParser({ onEvent: (event) => this.#accept(event) });
  readonly #bytesMax: number;
  #events: SseEvent[] = [];
  #bytesWithoutEvent = 0;

  constructor(bytesMax = bytesWithoutEventMax) {
    this.#bytesMax = bytesMax;
  }

  /** The events that `chunk` completes. Throws `upstream_error` past the limit. */
  read(chunk: Buffer): readonly SseEvent[] {
    this.#parser.feed(this.#decoder.decode(chunk, { stream: true }));
    const events = this.#takeEvents();
    this.#bytesWithoutEvent = events.length > 0 ? 0 : this.#bytesWithoutEvent + chunk.length;
    if (this.#bytesWithoutEvent > this.#bytesMax) {
      throw new BulkheadError('upstream_error', `The model provider sent more than ${this.#bytesMax} bytes without completing an event.`);
    }
    return events;
  }

  /** The end of the body: completes an event whose last line breaks are missing, as some servers leave them out. */
  end(): readonly SseEvent[] {
    this.#parser.feed(`${this.#decoder.decode()}\n\n`);
    return this.#takeEvents();
  }

  #accept({ data, event = '' }: EventSourceMessage): void {
    if (data !== '') this.#events.push({ data, name: event });
  }

  #takeEvents(): readonly SseEvent[] {
    const events = this.#events;
    if (events.length > 0) this.#events = [];
    return events;
  }
}
