/**
 * Node's HTTP server at its strictest, and requests to it without a socket.
 *
 * No framework: Fastify as a bare router cost 6 µs of the 19 µs that a small JSON request costs on `node:http`, and its body parsers,
 * error texts and replies were all switched off (docs/rfd/0007-http-edge.md).
 */
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as openRequest,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import { duplexPair } from 'node:stream';
import type { GatewayBounds } from './gateway-bounds.ts';

export interface HttpEvents {
  readonly onRequest: (request: IncomingMessage, response: ServerResponse) => void;
  /** What Node's parser refused, and connections that ran into a timeout. */
  readonly onBrokenConnection: (error: NodeJS.ErrnoException, socket: Socket) => void;
  readonly onConnectMethod: (socket: Socket) => void;
}

export function createHttpServer(bounds: GatewayBounds, events: HttpEvents): Server {
  const { headersTimeoutMs, requestTimeoutMs } = bounds;
  const server = createServer({
    maxHeaderSize: bounds.headerBytesMax,
    headersTimeout: Math.min(headersTimeoutMs, requestTimeoutMs),
    // Node has one for all: the longest, that of an upload. Other bodies are given up by the edge.
    requestTimeout: Math.max(requestTimeoutMs, bounds.uploadTimeoutMs),
    // Node looks for both timeouts at this interval; its default of 30 s would be three times the first of them.
    connectionsCheckingInterval: Math.max(20, Math.min(1_000, Math.floor(headersTimeoutMs / 4), Math.floor(requestTimeoutMs / 4))),
    keepAliveTimeout: bounds.keepAliveMs,
    // Checked by the edge, which answers with a body that says so.
    requireHostHeader: false,
    insecureHTTPParser: false,
  });
  server.maxConnections = bounds.connectionsMax;
  // 16 KB bound the headers; a limit by count would drop the rest silently, and with them a second Host.
  server.maxHeadersCount = 0;
  // Without the last two Node would answer `Expect` by itself, before anybody knows who asks.
  server.on('request', events.onRequest).on('checkContinue', events.onRequest).on('checkExpectation', events.onRequest);
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => events.onBrokenConnection(error, socket as Socket));
  server.on('connect', (_, socket) => events.onConnectMethod(socket as Socket));
  return server;
}

export interface InjectedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}

export interface InjectedAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Sends a request over a pipe in memory: the same parser, the same path, no port. */
export function injectRequest(server: Server, { method, path, headers = {}, body }: InjectedRequest): Promise<InjectedAnswer> {
  const [clientSide, serverSide] = duplexPair();
  server.emit('connection', serverSide);
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
    const options = {
      createConnection: () => clientSide as Socket,
      method,
      path,
      headers: { host: 'localhost', connection: 'close', ...length, ...headers },
    };
    const outgoing = openRequest(options, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.on('error', reject);
      incoming.on('end', () =>
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(chunks).toString('utf8') }),
      );
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}
