import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { bytesWithoutEventMax } from '../../upstream/sse-reader.ts';
import type { UpstreamConnection } from '../../upstream/upstream-connection.ts';
import type { UpstreamExchange } from '../../upstream/upstream-exchange.ts';
import { malformed } from '../../upstream/upstream-failures.ts';

/** Beside the event: what is in the pipes between socket and reader. */
const unansweredBytesMax = 2 * bytesWithoutEventMax;
/** A package may go on with an answer that a provider sends in two. */
const requestsMax = 4;
const streamTypes = ['text/plain', 'application/vnd.amazon.eventstream'];

/**
 * The `fetch` that a package makes one call by: our own exchange instead of the global one, so that an abort reaches the provider, a slow
 * reader stops it, and no answer fills our memory. A status other than 200 is thrown as the failure it is. Nothing goes to another origin.
 */
export class CallTransport {
  readonly #connection: UpstreamConnection;
  readonly #origin: string;
  readonly #signal: AbortSignal;
  /** Null: a stream is read. Else the bytes of a whole answer. */
  readonly #answerBytesMax: number | null;
  readonly #exchanges: UpstreamExchange[] = [];
  #requests = 0;
  #unansweredBytes = 0;
  #failure: BulkheadError | undefined;

  constructor(
    connection: UpstreamConnection,
    call: { readonly origin: string; readonly signal: AbortSignal; readonly answerBytesMax: number | null },
  ) {
    this.#connection = connection;
    this.#origin = call.origin;
    this.#signal = call.signal;
    this.#answerBytesMax = call.answerBytesMax;
  }

  readonly fetch = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const url = new URL(input instanceof Request ? input.url : input);
    if (url.origin !== this.#origin || typeof init.body !== 'string' || ++this.#requests > requestsMax) {
      throw malformed('a reason for a request that may not be made');
    }
    const headers = [...new Headers(init.headers)].flat();
    const request = { path: url.pathname + url.search, headers, body: init.body };
    if (this.#answerBytesMax !== null) {
      const { bytes, headers: answered } = await this.#connection.fetch({ ...request, bytesMax: this.#answerBytesMax }, this.#signal);
      return new Response(new Uint8Array(bytes), { headers: flat(answered) });
    }
    const { exchange, headers: answered } = await this.#connection.openStream(request, this.#signal, streamTypes);
    this.#exchanges.push(exchange);
    return new Response(this.#bodyOf(exchange), { headers: flat(answered) });
  };

  /** What ended the reading of a body, whatever the package made of it. */
  get failure(): BulkheadError | undefined {
    return this.#failure;
  }

  /** Something was understood of what has arrived. */
  answered(): void {
    this.#unansweredBytes = 0;
  }

  /** Destroys what is still open. */
  abort(): void {
    for (const exchange of this.#exchanges) exchange.abort();
  }

  async #read(exchange: UpstreamExchange): Promise<readonly Buffer[] | undefined> {
    const chunks = await exchange.read();
    for (const chunk of chunks ?? []) this.#unansweredBytes += chunk.length;
    if (this.#unansweredBytes <= unansweredBytesMax) return chunks;
    exchange.abort();
    throw malformed(`more than ${unansweredBytesMax} bytes without completing an event`);
  }

  #bodyOf(exchange: UpstreamExchange): ReadableStream<Uint8Array<ArrayBuffer>> {
    return new ReadableStream(
      {
        pull: async (controller) => {
          try {
            const chunks = await this.#read(exchange);
            if (chunks === undefined) return controller.close();
            for (const chunk of chunks) controller.enqueue(new Uint8Array(chunk));
          } catch (error) {
            if (error instanceof BulkheadError) this.#failure = error;
            throw error;
          }
        },
        cancel: () => exchange.abort(),
      },
      { highWaterMark: 0 },
    );
  }
}

function flat(headers: Readonly<Record<string, string | readonly string[] | undefined>>): [string, string][] {
  return Object.entries(headers).flatMap(([name, value]) => (typeof value === 'string' ? [[name, value] as [string, string]] : []));
}
