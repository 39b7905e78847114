/**
 * The HTTP edge: connections in, exchanges out. Before it: sockets. After it: the handlers of the route table.
 *
 * Invariants: every answer carries `x-request-id` and every refusal is an error in OpenAI's shape, faults of the transport too; no body
 * is read before the sender is known; an exchange ends exactly once, and its handler's signal is aborted when its client leaves; nothing
 * waits longer than a named bound.
 *
 * HTTP/1.1 only: HTTP/2 and TLS are the load balancer's.
 */
import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { UploadSpool } from '../tenancy/upload-spool.ts';
import { BodyBudget } from './body-budget.ts';
import { transportError } from './client-error.ts';
import { type ConfiguredBounds, defaultEdgeBounds, type EdgeBounds, type GatewayBounds } from './gateway-bounds.ts';
import { createHttpServer, type InjectedAnswer, type InjectedRequest, injectRequest } from './http-server.ts';
import { OpenExchange } from './open-exchange.ts';
import { OpenExchanges } from './open-exchanges.ts';
import type { Route } from './route.ts';
import { createRouter } from './router.ts';
import { rawErrorAnswer, sendError } from './send-answer.ts';
import { type EdgeAuthentication, type ServeParts, serveExchange } from './serve-exchange.ts';

export type { InjectedAnswer, InjectedRequest };

export interface GatewayParts {
  readonly routes: readonly Route[];
  readonly authenticate: EdgeAuthentication;
  readonly bounds: ConfiguredBounds & Partial<EdgeBounds>;
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly logger: Logger;
  /** Where the files of uploads wait until they are stored. */
  readonly spool: UploadSpool;
  readonly metrics?: GatewayMetrics | undefined;
  /** `host` or `host:port` as clients send it; absent: any. */
  readonly allowedHosts?: readonly string[] | undefined;
}

/** Port: what the edge counts. `route` is the pattern, never the path. */
export interface GatewayMetrics {
  observeHttp(route: string, method: string, status: number): void;
  observeRefusal(tenantId: string, code: string): void;
}

export interface Gateway extends AsyncDisposable {
  /** Binds and serves; port 0 takes a free one. Returns the address in use. */
  listen(address: {
    readonly host: string;
    readonly port: number;
  }): Promise<{ readonly host: string; readonly port: number; readonly url: string }>;
  /** Serves a request without a socket. */
  inject(request: InjectedRequest): Promise<InjectedAnswer>;
  /** Exchanges that are being served now. */
  openExchanges(): number;
  /** Ends those of the scopes it names: streams with an error event, others with the error. What was delivered is billed, what was held is given back. */
  endExchanges(isRefused: (scope: TenantScope) => boolean, reason: BulkheadError): number;
  /** Stops accepting, lets what runs finish for `shutdownGraceMs`, then ends it with an error (event). Idempotent. */
  close(): Promise<void>;
}

/** Asserts that no two routes collide. Nothing listens yet. */
export function createGateway(parts: GatewayParts): Gateway {
  const edge = new Edge(parts);
  return {
    listen: (address) => edge.listen(address),
    inject: (request) => edge.inject(request),
    openExchanges: () => edge.openExchanges,
    endExchanges: (isRefused, reason) => edge.endExchanges(isRefused, reason),
    close: () => edge.close(),
    [Symbol.asyncDispose]: () => edge.close(),
  };
}

class Edge {
  readonly #parts: GatewayParts;
  readonly #bounds: GatewayBounds;
  readonly #server: Server;
  readonly #exchanges = new OpenExchanges();
  readonly #serve: ServeParts;
  readonly #sweeper: NodeJS.Timeout;
  #closed: Promise<void> | undefined;

  constructor(parts: GatewayParts) {
    this.#parts = parts;
    this.#bounds = { ...defaultEdgeBounds, ...parts.bounds };
    this.#server = createHttpServer(this.#bounds, {
      onRequest: (request, response) => this.#enter(request, response),
      onBrokenConnection: (error, socket) => this.#failConnection(transportError(error), socket),
      onConnectMethod: (socket) => this.#failConnection(new BulkheadError('method_not_allowed', 'CONNECT is not served here'), socket),
    });
    this.#serve = {
      bounds: this.#bounds,
      clock: parts.clock,
      logger: parts.logger,
      authenticate: parts.authenticate,
      isDraining: () => this.#closed !== undefined,
      headerRules: {
        headersMax: this.#bounds.headersMax,
        allowedHosts: parts.allowedHosts === undefined ? undefined : new Set(parts.allowedHosts.map((host) => host.toLowerCase())),
      },
      router: createRouter(parts.routes),
      bodies: new BodyBudget(this.#bounds.bodyBytesInFlightMax),
      spool: parts.spool,
      spooled: new BodyBudget(this.#bounds.spoolBytesMax, 'disk'),
      onRefusal: parts.metrics && ((tenantId, code) => parts.metrics?.observeRefusal(tenantId, code)),
    };
    this.#sweeper = setInterval(() => this.#sweep(), this.#bounds.sweepMs).unref();
  }

  get openExchanges(): number {
    return this.#exchanges.size;
  }

  endExchanges(isRefused: (scope: TenantScope) => boolean, reason: BulkheadError): number {
    const refused = this.#exchanges.all().filter(({ openedScope }) => openedScope !== undefined && isRefused(openedScope));
    for (const exchange of refused) this.#cut(exchange, reason);
    return refused.length;
  }

  async listen({ host, port }: { readonly host: string; readonly port: number }) {
    this.#server.listen(port, host);
    await once(this.#server, 'listening');
    const bound = this.#server.address() as AddressInfo;
    const name = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
    return { host: bound.address, port: bound.port, url: `http://${name}:${bound.port}` };
  }

  inject(request: InjectedRequest): Promise<InjectedAnswer> {
    return injectRequest(this.#server, request);
  }

  close(): Promise<void> {
    this.#closed ??= this.#drain();
    return this.#closed;
  }

  #enter(request: IncomingMessage, response: ServerResponse): void {
    const { ids, clock } = this.#parts;
    const exchange = new OpenExchange(request, response, { requestId: ids.next('req_'), startedAtMs: clock.monotonicMs() });
    this.#exchanges.add(exchange);
    response.on('close', () => this.#leave(exchange));
    void serveExchange(this.#serve, exchange);
  }

  #leave(exchange: OpenExchange): void {
    const { request, response, route, requestId } = exchange;
    this.#exchanges.remove(exchange);
    if (!response.writableFinished) exchange.clientLeft();
    const { clock, logger, metrics } = this.#parts;
    const method = route?.method ?? '-';
    const pattern = route?.path ?? '-';
    const status = response.writableFinished ? response.statusCode : 499;
    metrics?.observeHttp(pattern, method, status);
    logger.debug(
      {
        requestId,
        clientRequestId: printableId(request.headers['x-client-request-id']),
        tenantId: exchange.openedScope?.tenantId,
        keyId: exchange.openedScope?.principal.keyId,
        route: pattern,
        method,
        status,
        durationMs: clock.monotonicMs() - exchange.startedAtMs,
      },
      'answered',
    );
  }

  #sweep(): void {
    const { streamDurationMaxMs } = this.#bounds;
    this.#exchanges.sweep(this.#parts.clock.monotonicMs(), streamDurationMaxMs, (exchange) =>
      this.#cut(exchange, new BulkheadError('duration_exceeded', `an answer may take ${streamDurationMaxMs} ms`)),
    );
  }

  #cut(exchange: OpenExchange, error: BulkheadError): void {
    exchange.end(error);
    if (exchange.response.writableEnded) exchange.response.destroy();
    else sendError(this.#serve, exchange, error);
  }

  /** The parser gave up on this connection, or its time is up. `error` undefined: nobody is there to read an answer. */
  #failConnection(error: BulkheadError | undefined, socket: Socket): void {
    if (error === undefined || !socket.writable) {
      socket.destroy();
      return;
    }
    const exchange = this.#exchanges.ofSocket(socket);
    if (exchange === undefined) {
      const requestId = this.#parts.ids.next('req_');
      this.#parts.logger.debug({ requestId, code: error.code }, 'refused a malformed request');
      socket.end(rawErrorAnswer(error, requestId), () => socket.destroy());
    } else if (!exchange.breakOff(error)) {
      // An answer is on its way already; after it the connection is worth nothing.
      socket.destroy();
    }
  }

  async #drain(): Promise<void> {
    const closed = this.#server.listening ? once(this.#server, 'close') : undefined;
    // Closes the idle connections too.
    this.#server.close();
    await within(this.#exchanges.whenEmpty(), this.#bounds.shutdownGraceMs);
    const running = this.#exchanges.all();
    for (const exchange of running)
      this.#cut(exchange, new BulkheadError('shutting_down', 'the server is shutting down', { retryAfterMs: 1_000 }));
    await within(this.#exchanges.whenEmpty(), lastWordsMs);
    clearInterval(this.#sweeper);
    this.#server.closeAllConnections();
    await closed;
  }
}

/** For the error events of a shutdown to reach their clients. */
const lastWordsMs = 1_000;

/** Resolves when `work` does, at the latest after `timeoutMs`. */
async function within(work: Promise<void>, timeoutMs: number): Promise<void> {
  const { promise: timeout, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, timeoutMs);
  await Promise.race([work, timeout]);
  clearTimeout(timer);
}

/** The client's own id, for its support ticket: logged when it is at most 512 printable ASCII characters, never used. */
function printableId(text: string | string[] | undefined): string | undefined {
  return typeof text === 'string' && /^[\x20-\x7e]{1,512}$/.test(text) ? text : undefined;
}
