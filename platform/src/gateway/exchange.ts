/** What a route handler receives and returns; independent of the HTTP framework. */
import type { IncomingHttpHeaders } from 'node:http';
import type { FileBody } from '../tenancy/capabilities.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';

/** A JSON object that passed the strict parser: bounded depth and keys, no duplicate or prototype keys, well-formed strings. */
export type JsonObject = Readonly<Record<string, unknown>>;

export interface Exchange {
  readonly requestId: string;
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** Aborted when the client leaves or the request's time is up. */
  readonly signal: AbortSignal;
  /** Monotonic milliseconds when the request's first byte was handled. */
  readonly startedAtMs: number;
  /** The parsed body of a `json` route; an empty object when an optional body was absent. */
  readonly body: JsonObject;
  /** The parts of a `multipart` route. */
  readonly upload: Upload | undefined;
}

export interface TenantExchange extends Exchange {
  readonly scope: TenantScope;
}

export interface Upload {
  readonly fields: Readonly<Record<string, string>>;
  readonly file: { readonly filename: string; readonly contentType: string; readonly body: FileBody } | undefined;
}

export type Answer = JsonAnswer | BytesAnswer | PartsAnswer | EventsAnswer;

export interface JsonAnswer {
  readonly kind: 'json';
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** A Buffer is sent as it is; anything else is serialised. */
  readonly body: unknown;
}

export interface BytesAnswer {
  readonly kind: 'bytes';
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly contentType: string;
  readonly body: Uint8Array;
}

/** A body that is larger than memory should hold: read as the client takes it. */
export interface PartsAnswer {
  readonly kind: 'parts';
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly contentType: string;
  readonly bytes: number;
  /** Exactly `bytes` bytes. What is thrown before the first part is an ordinary error answer; later, the connection ends. */
  readonly parts: AsyncIterable<Uint8Array>;
}

/** A server-sent event stream. Headers go out when the first event is sent, so an error before that is an ordinary error answer. */
export interface EventsAnswer {
  readonly kind: 'events';
  readonly headers?: Readonly<Record<string, string>>;
  /** Produces the events. An error thrown after the first event is sent as an error event, then the stream ends. */
  run(writer: EventWriter): Promise<void>;
}

export interface EventWriter {
  /** Sends one event whose data is one line of JSON (or `[DONE]`). Returns a promise only when the client's socket is full: await it. */
  send(data: string, event?: string): Promise<void> | undefined;
}
