/**
 * Calls to one model provider over HTTP, for the adapters of the `Provider` port: one pool of HTTP/1.1 connections, and bounds on what
 * comes back. What the bytes mean is the adapter's; a status other than 200 it turns into a failure by its `failureOfStatus`.
 */
import { Pool } from 'undici';
import type { BulkheadError } from '../errors/bulkhead-error.ts';
import { UpstreamExchange, type UpstreamRequest } from './upstream-exchange.ts';
import { malformed } from './upstream-failures.ts';
import type { UpstreamHead } from './upstream-head.ts';

const errorBytesMax = 65_536;

export interface UpstreamConnectionOptions {
  readonly baseUrl: string;
  readonly connectionsMax: number;
  readonly headersTimeoutMs: number;
  /** Longest silence in the middle of an answer. */
  readonly idleTimeoutMs: number;
  /** `explanation`: the beginning of the body, as much as could be read. */
  readonly failureOfStatus: (head: UpstreamHead, explanation: string) => BulkheadError;
}

export class UpstreamConnection {
  readonly #pool: Pool;
  readonly #baseUrl: URL;
  readonly #failureOfStatus: UpstreamConnectionOptions['failureOfStatus'];

  constructor(options: UpstreamConnectionOptions) {
    this.#baseUrl = new URL(options.baseUrl);
    this.#failureOfStatus = options.failureOfStatus;
    this.#pool = openPool(this.#baseUrl, options);
  }

  /** `endpoint` without a leading slash, under the path of the base URL; its query stays. */
  pathOf(endpoint: string): string {
    return `${this.#baseUrl.pathname.replace(/\/+$/, '')}/${endpoint}${this.#baseUrl.search}`;
  }

  /** The whole body of a 200, and its headers. Throws `upstream_*` errors, or the signal's reason. */
  async fetch(request: UpstreamRequest & { readonly bytesMax: number }, signal: AbortSignal) {
    const exchange = UpstreamExchange.send(this.#pool, request, signal);
    const { headers } = await this.#acceptedHead(exchange, signal);
    return { bytes: await readAll(exchange, request.bytesMax), headers };
  }

  /**
   * Resolves when the headers of an event stream are there; throws as `fetch` does. The exchange must be read to its end or aborted.
   * `contentTypes`: what else than `text/event-stream` a stream of the dialect calls itself.
   */
  async openStream(request: UpstreamRequest, signal: AbortSignal, contentTypes: readonly string[] = ['text/plain']) {
    const exchange = UpstreamExchange.send(this.#pool, request, signal);
    const head = await this.#acceptedHead(exchange, signal);
    if (isStream(head, contentTypes)) return { exchange, headers: head.headers };
    exchange.abort();
    throw malformed('something else than a stream of events');
  }

  /** Ends every call that is still running. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  async #acceptedHead(exchange: UpstreamExchange, signal: AbortSignal): Promise<UpstreamHead> {
    const head = await exchange.head();
    if (head.status === 200) return head;
    const explanation = await readStart(exchange, errorBytesMax);
    signal.throwIfAborted();
    throw this.#failureOfStatus(head, explanation);
  }
}

function openPool(url: URL, options: UpstreamConnectionOptions): Pool {
  return new Pool(url.origin, {
    connections: options.connectionsMax,
    pipelining: 1,
    // Streams of one HTTP/2 connection share its flow-control window: two tenants that read slowly would stop everybody else's answers.
    allowH2: false,
    headersTimeout: options.headersTimeoutMs,
    bodyTimeout: options.idleTimeoutMs,
    // Not longer than servers keep theirs (uvicorn, under vLLM: 5 s), or requests are sent into closing connections.
    keepAliveTimeout: 4_000,
  });
}

function isStream(head: UpstreamHead, contentTypes: readonly string[]): boolean {
  const type = head.headers['content-type'];
  if (type === undefined) return true;
  const [name = ''] = String(type).toLowerCase().split(';');
  return name.trim() === 'text/event-stream' || contentTypes.includes(name.trim());
}

async function readAll(exchange: UpstreamExchange, bytesMax: number): Promise<Buffer> {
  const { bytes, isWhole } = await readUpTo(exchange, bytesMax);
  if (isWhole) return bytes;
  throw malformed(`an answer of more than ${bytesMax} bytes`);
}

/** The beginning of an error's body; a body that breaks off is as good as a short one. */
async function readStart(exchange: UpstreamExchange, bytesMax: number): Promise<string> {
  try {
    const { bytes } = await readUpTo(exchange, bytesMax);
    return bytes.toString('utf8', 0, bytesMax);
  } catch {
    return '';
  }
}

async function readUpTo(exchange: UpstreamExchange, bytesMax: number): Promise<{ readonly bytes: Buffer; readonly isWhole: boolean }> {
  const read: Buffer[] = [];
  let bytes = 0;
  for (;;) {
    const chunks = await exchange.read();
    if (chunks === undefined) return { bytes: Buffer.concat(read), isWhole: true };
    for (const chunk of chunks) bytes += chunk.length;
    read.push(...chunks);
    if (bytes > bytesMax) {
      exchange.abort();
      return { bytes: Buffer.concat(read), isWhole: false };
    }
  }
}
