/** A real HTTP server on loopback that answers as a test says, and sees what its clients do to it. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ReceivedRequest {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Readonly<Record<string, unknown>>;
}

export type UpstreamScript = (response: ServerResponse, request: ReceivedRequest) => void | Promise<void>;

export class ScriptedUpstream implements AsyncDisposable {
  readonly received: ReceivedRequest[] = [];
  /** Answers that were begun and whose connection is still open. */
  running = 0;
  readonly #server: Server;
  #script: UpstreamScript;

  private constructor(script: UpstreamScript) {
    this.#script = script;
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  static async start(script: UpstreamScript): Promise<ScriptedUpstream> {
    const upstream = new ScriptedUpstream(script);
    upstream.#server.listen(0, '127.0.0.1');
    await once(upstream.#server, 'listening');
    return upstream;
  }

  get baseUrl(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${port}/v1`;
  }

  /** From the next request on. */
  answerWith(script: UpstreamScript): void {
    this.#script = script;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const received = {
      path: request.url ?? '',
      headers: request.headers,
      body: JSON.parse(Buffer.concat(chunks).toString()) as ReceivedRequest['body'],
    };
    this.received.push(received);
    this.running++;
    response.on('close', () => {
      this.running--;
    });
    await this.#script(response, received);
  }
}

/** Sends these bytes as a stream of events, each piece as a chunk of its own. */
export function eventStream(...pieces: readonly (string | Buffer)[]): UpstreamScript {
  return async (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const piece of pieces) await new Promise<void>((resolve) => response.write(piece, () => resolve()));
    response.end();
  };
}

/** Sends these and leaves the stream open. */
export function openStream(...pieces: readonly string[]): UpstreamScript {
  return (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(pieces.join(''));
  };
}

export function answer(status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): UpstreamScript {
  return (response) => {
    response.writeHead(status, { 'content-type': typeof body === 'string' ? 'text/html' : 'application/json', ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };
}
