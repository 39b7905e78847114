/** Fastify with everything off that the edge does itself, and Node's parser at its strictest. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { type FastifyInstance, fastify } from 'fastify';
import type { GatewayBounds } from './gateway-bounds.ts';
import type { Route } from './route.ts';

export interface HttpEvents {
  /** A request that no route takes. */
  readonly onUnrouted: (request: IncomingMessage, response: ServerResponse) => void;
  /** What Node's parser refused, and connections that ran into a timeout. */
  readonly onBrokenConnection: (error: NodeJS.ErrnoException, socket: Socket) => void;
}

export function createHttpServer(bounds: GatewayBounds, events: HttpEvents): FastifyInstance<Server> {
  const { headersTimeoutMs, requestTimeoutMs } = bounds;
  const server: FastifyInstance<Server> = fastify({
    logger: false,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: bounds.keepAliveMs,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    // Parameters are bounded by the header limit; a second limit would be a second kind of 404.
    routerOptions: { maxParamLength: bounds.headerBytesMax },
    http: {
      maxHeaderSize: bounds.headerBytesMax,
      headersTimeout: Math.min(headersTimeoutMs, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: Math.max(20, Math.min(1_000, Math.floor(headersTimeoutMs / 4), Math.floor(requestTimeoutMs / 4))),
      // Checked by the edge, which answers with a body that says so.
      requireHostHeader: false,
      insecureHTTPParser: false,
    },
    frameworkErrors: (_, request, reply) => {
      reply.hijack();
      events.onUnrouted(request.raw, reply.raw);
    },
    clientErrorHandler: (error, socket) => events.onBrokenConnection(error, socket),
  });
  server.removeAllContentTypeParsers();
  // Passes the body on unread: the exchange reads it once its sender is known.
  server.addContentTypeParser('*', (_request, _payload, done) => done(null));
  server.setNotFoundHandler((request, reply) => {
    reply.hijack();
    events.onUnrouted(request.raw, reply.raw);
  });
  server.setErrorHandler((_, request, reply) => {
    reply.hijack();
    events.onUnrouted(request.raw, reply.raw);
  });
  server.server.maxConnections = bounds.connectionsMax;
  // 16 KB bound the headers; a limit by count would drop the rest silently, and with them a second Host.
  server.server.maxHeadersCount = 0;
  // Without these Node would answer `Expect` by itself, before anybody knows who asks.
  server.server.on('checkContinue', (request, response) => server.routing(request, response));
  server.server.on('checkExpectation', (request, response) => server.routing(request, response));
  return server;
}

const methods: readonly Route['method'][] = ['GET', 'POST', 'DELETE'];

/** The methods that have a route at this path. A path that ends in a slash has none, though the router would take it for an empty parameter. */
export function methodsOf(server: FastifyInstance<Server>, path: string): readonly string[] {
  if (path.endsWith('/')) return [];
  return methods.filter((method) => server.findRoute({ method, url: path }) !== null);
}
