/** The audit's way in: real sockets to the address where clients come in, kept open and shared by all tenants of a run, as a client's pool would. */
import { Agent, request as openRequest } from 'node:http';
import type { AuditAnswer, AuditRequest, AuditTarget } from '../audit/audit-ports.ts';

/** Fewer than requests under way at once, so that tenants follow each other on a connection. */
const connectionsMax = 6;
const answerBytesMax = 16 * 1_024 * 1_024;
const timeoutMs = 60_000;

export interface SocketTarget extends AuditTarget, Disposable {}

/** `baseUrl` is asked for at the first request. */
export function openSocketTarget(baseUrl: () => Promise<string>): SocketTarget {
  const agent = new Agent({ keepAlive: true, maxSockets: connectionsMax, scheduling: 'fifo' });
  return {
    send: async (request, signal) => exchange(await baseUrl(), { agent, request, signal }),
    [Symbol.dispose]: () => agent.destroy(),
  };
}

interface Sending {
  readonly agent: Agent;
  readonly request: AuditRequest;
  readonly signal: AbortSignal;
}

function exchange(baseUrl: string, { agent, request, signal }: Sending): Promise<AuditAnswer> {
  const { method, path, leaveAfter = Number.POSITIVE_INFINITY } = request;
  const payload = payloadOf(request.body);
  const json = payload === undefined || Buffer.isBuffer(request.body) ? {} : { 'content-type': 'application/json' };
  const headers = { ...json, ...(payload && { 'content-length': String(payload.length) }), ...request.headers };
  const beganMs = performance.now();
  return new Promise((resolve, reject) => {
    const bounded = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    const outgoing = openRequest(baseUrl + path, { method, agent, headers, signal: bounded }, (incoming) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      const done = () => {
        const { statusCode: status = 0 } = incoming;
        const body = Buffer.concat(chunks).toString('utf8');
        resolve({ status, headers: plainHeaders(incoming.headers), body, durationMs: performance.now() - beganMs });
      };
      incoming.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes < Math.min(leaveAfter, answerBytesMax)) return;
        done();
        outgoing.destroy();
      });
      incoming.on('end', done).on('error', reject);
    });
    outgoing.on('error', reject).end(payload);
  });
}

function payloadOf(body: unknown): Buffer | undefined {
  if (body === undefined) return undefined;
  return Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
}

function plainHeaders(headers: NodeJS.Dict<string | string[]>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));
}
