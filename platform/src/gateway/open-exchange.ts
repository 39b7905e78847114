/** One request while it is being served: what handlers see of it, and who is told when the client leaves. */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { EventStream } from './event-stream.ts';
import type { JsonObject, TenantExchange, Upload } from './exchange.ts';
import type { Route } from './route.ts';
import type { Match } from './router.ts';

const emptyBody: JsonObject = Object.freeze({});

export class OpenExchange implements TenantExchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly requestId: string;
  readonly startedAtMs: number;
  body: JsonObject = emptyBody;
  upload: Upload | undefined;
  /** Taken from the body budget. Written by `readBody`, given back by whoever serves the exchange. */
  bodyBytes = 0;
  /** Taken from the budget of uploads on disk; the same. */
  spooledBytes = 0;
  /** Monotonic milliseconds at which a body that is still being read is given up. */
  readDeadlineMs: number | undefined;
  stream: EventStream | undefined;
  /** Written by `OpenExchanges` alone; undefined when it is not open. */
  slot: number | undefined;
  #match: Match | undefined;
  #scope: TenantScope | undefined;
  #query: URLSearchParams | undefined;
  #abort: AbortController | undefined;
  #endedBy: BulkheadError | undefined;
  #failReading: ((error: BulkheadError) => void) | undefined;
  #broken: BulkheadError | undefined;
  #held: AsyncDisposable | undefined;

  constructor(request: IncomingMessage, response: ServerResponse, facts: { readonly requestId: string; readonly startedAtMs: number }) {
    this.request = request;
    this.response = response;
    this.requestId = facts.requestId;
    this.startedAtMs = facts.startedAtMs;
  }

  /** Undefined until the request was dispatched. */
  get route(): Route | undefined {
    return this.#match?.route;
  }

  get params(): Readonly<Record<string, string>> {
    return this.#match?.params ?? {};
  }

  dispatch(match: Match): Route {
    assert(this.#match === undefined, 'an exchange is dispatched once');
    this.#match = match;
    return match.route;
  }

  get headers(): IncomingHttpHeaders {
    return this.request.headers;
  }

  /** Name, value, name, value ... as they arrived: shows what was sent twice. */
  get rawHeaders(): readonly string[] {
    return this.request.rawHeaders;
  }

  /** Made at the first look: most requests have none. */
  get query(): URLSearchParams {
    this.#query ??= new URLSearchParams(queryText(this.request.url ?? ''));
    return this.#query;
  }

  get scope(): TenantScope {
    assert(this.#scope !== undefined, 'only tenant routes have a scope');
    return this.#scope;
  }

  /** Undefined until the credential was verified. */
  get openedScope(): TenantScope | undefined {
    return this.#scope;
  }

  openScope(scope: TenantScope): void {
    assert(this.#scope === undefined, 'an exchange has one scope');
    this.#scope = scope;
  }

  /** Made at the first look, 1 µs; aborted already when the end came before. */
  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#endedBy !== undefined) this.#abort.abort(this.#endedBy);
    }
    return this.#abort.signal;
  }

  /** Why the exchange was ended from outside; its handler's errors no longer matter. */
  get endedBy(): BulkheadError | undefined {
    return this.#endedBy;
  }

  /** Aborts the handler's work, once. */
  end(reason: BulkheadError): void {
    if (this.#endedBy !== undefined) return;
    this.#endedBy = reason;
    this.#abort?.abort(reason);
  }

  /** What is disposed of when the exchange was served, however it ended. */
  onServed(held: AsyncDisposable): void {
    assert(this.#held === undefined, 'an exchange holds one thing');
    this.#held = held;
  }

  async release(): Promise<void> {
    await this.#held?.[Symbol.asyncDispose]();
  }

  /** The connection has closed under the request. */
  clientLeft(): void {
    this.stream?.abandon();
    const left = new BulkheadError('client_closed_request', 'the client closed the connection');
    this.#failReading?.(left);
    this.end(left);
  }

  /** While the body is read. `fail` is called at most once, with a fault of the transport. */
  onBroken(fail: ((error: BulkheadError) => void) | undefined): void {
    this.#failReading = fail;
    if (fail === undefined) this.readDeadlineMs = undefined;
    if (fail !== undefined && this.#broken !== undefined) fail(this.#broken);
  }

  /** The rest of the body will never come; false when nothing can be answered any more. */
  breakOff(error: BulkheadError): boolean {
    if (this.response.headersSent || this.request.complete) return false;
    this.#broken ??= error;
    this.#failReading?.(error);
    return true;
  }
}

function queryText(target: string): string {
  const mark = target.indexOf('?');
  return mark === -1 ? '' : target.slice(mark + 1);
}
