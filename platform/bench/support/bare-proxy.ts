/** The least a gateway can be: `node:http` in front, undici behind, bytes passed on unread. The yardstick of what Bulkhead adds. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type Dispatcher, Pool } from 'undici';
import { serveAsPart } from './part-life.ts';

const [upstream = ''] = process.argv.slice(2);
const connectionsMax = 4_096;
const pool = new Pool(upstream, { connections: connectionsMax, pipelining: 1 });

serveAsPart(createServer({ keepAliveTimeout: 60_000, noDelay: true }, proxy));

function proxy(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => forward(request, Buffer.concat(chunks), response));
}

function forward(request: IncomingMessage, body: Buffer, response: ServerResponse): void {
  const headers = { 'content-type': request.headers['content-type'] ?? 'application/json' };
  pool.dispatch({ method: 'POST', path: request.url ?? '/', headers, body }, passOn(response));
}

function passOn(response: ServerResponse): Dispatcher.DispatchHandler {
  return {
    onRequestStart(controller) {
      response.once('close', () => {
        if (!response.writableFinished) controller.abort(new Error('the client left'));
      });
    },
    onResponseStart(_controller, status, headers) {
      response.writeHead(status, passedHeaders(headers));
    },
    onResponseData(_controller, chunk) {
      response.write(chunk);
    },
    onResponseEnd() {
      response.end();
    },
    onResponseError() {
      if (!response.headersSent) response.writeHead(502);
      response.end();
    },
  };
}

function passedHeaders(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  const passed: Record<string, string> = { 'content-type': String(headers['content-type']) };
  if (headers['content-length'] !== undefined) passed['content-length'] = String(headers['content-length']);
  return passed;
}
