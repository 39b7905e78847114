/**
 * Adapter of the `Provider` port for everything that speaks OpenAI's dialect over HTTP: OpenAI, Azure, vLLM, Ollama, TEI and so on.
 * One pool of HTTP/1.1 connections for each provider. The provider's key leaves this folder only towards the provider, and nothing the
 * provider says reaches a tenant without having been parsed, bounded and cleaned.
 */
import { Pool } from 'undici';
import type { OpenAiCompatibleProviderConfig } from '../../config/schema.ts';
import type { Completion, CompletionStream, Provider, ProviderCall } from '../../inference/provider.ts';
import type { Clock } from '../../primitives/clock.ts';
import { extractUsage } from '../../primitives/token-usage.ts';
import { parseObject, SseCompletionStream } from './completion-stream.ts';
import { readEmbeddings } from './embeddings-answer.ts';
import { quotaOf } from './quota-headers.ts';
import { type CacheField, completionBody, embeddingsBody, streamBody } from './upstream-body.ts';
import { UpstreamExchange } from './upstream-exchange.ts';
import { failureInBody, failureOfStatus, malformed } from './upstream-failures.ts';
import type { UpstreamHead } from './upstream-head.ts';

const completionBytesMax = 32 * 1_024 * 1_024;
/** 2,048 vectors of 3,072 dimensions are 80 MB of digits. */
const embeddingsBytesMax = 128 * 1_024 * 1_024;
const errorBytesMax = 65_536;

interface Route {
  readonly path: string;
  readonly headers: readonly string[];
}

export class OpenAiCompatibleProvider implements Provider {
  readonly id: string;
  readonly #pool: Pool;
  readonly #clock: Clock;
  readonly #cacheField: CacheField;
  readonly #chat: Route;
  readonly #embeddings: Route;

  constructor(config: OpenAiCompatibleProviderConfig, clock: Clock) {
    this.id = config.id;
    this.#clock = clock;
    this.#cacheField = cacheFieldOf(config.promptCacheSalt);
    const url = new URL(config.baseUrl);
    this.#pool = openPool(url, config);
    const headers = ['content-type', 'application/json', 'user-agent', 'bulkhead'];
    if (config.apiKey !== undefined) headers.push('authorization', `Bearer ${config.apiKey}`);
    this.#chat = { path: pathUnder(url, 'chat/completions'), headers };
    this.#embeddings = { path: pathUnder(url, 'embeddings'), headers };
  }

  async complete(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    const body = completionBody(call, this.#cacheField);
    const { bytes, quota } = await this.#fetch(
      { route: this.#chat, body, requestId: call.requestId, bytesMax: completionBytesMax },
      signal,
    );
    const parsed = parseObject(bytes.toString('utf8'));
    if (parsed === undefined) throw malformed('an answer that is not a JSON object');
    const failure = failureInBody(parsed);
    if (failure !== undefined) throw failure;
    if (!Array.isArray(parsed['choices'])) throw malformed('an answer without choices');
    return { body: bytes, parsed, usage: extractUsage(parsed['usage']), quota };
  }

  async stream(call: ProviderCall, signal: AbortSignal): Promise<CompletionStream> {
    const body = streamBody(call, this.#cacheField);
    const exchange = this.#send({ route: this.#chat, body, requestId: call.requestId }, signal);
    const head = await this.#acceptedHead(exchange, signal);
    if (isEventStream(head)) return new SseCompletionStream(exchange, quotaOf(head.headers));
    exchange.abort();
    throw malformed('something else than a stream of events');
  }

  async embed(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    const body = embeddingsBody(call);
    const { bytes, quota } = await this.#fetch(
      { route: this.#embeddings, body, requestId: call.requestId, bytesMax: embeddingsBytesMax },
      signal,
    );
    return { ...readEmbeddings(bytes, call.body), quota };
  }

  /** Ends every call that is still running. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  async #fetch(request: SentRequest & { readonly bytesMax: number }, signal: AbortSignal) {
    const exchange = this.#send(request, signal);
    const head = await this.#acceptedHead(exchange, signal);
    return { bytes: await readAll(exchange, request.bytesMax), quota: quotaOf(head.headers) };
  }

  #send({ route, body, requestId }: SentRequest, signal: AbortSignal): UpstreamExchange {
    const headers = [...route.headers, 'x-client-request-id', requestId];
    return UpstreamExchange.send(this.#pool, { path: route.path, headers, body }, signal);
  }

  async #acceptedHead(exchange: UpstreamExchange, signal: AbortSignal): Promise<UpstreamHead> {
    const head = await exchange.head();
    if (head.status === 200) return head;
    const explanation = await readStart(exchange, errorBytesMax);
    signal.throwIfAborted();
    throw failureOfStatus(head, explanation, this.#clock.nowMs());
  }
}

interface SentRequest {
  readonly route: Route;
  readonly body: string;
  readonly requestId: string;
}

function cacheFieldOf(setting: OpenAiCompatibleProviderConfig['promptCacheSalt']): CacheField {
  if (setting === false) return undefined;
  return setting === true ? 'prompt_cache_key' : setting;
}

function openPool(url: URL, config: OpenAiCompatibleProviderConfig): Pool {
  return new Pool(url.origin, {
    connections: config.connectionsMax,
    pipelining: 1,
    // Streams of one HTTP/2 connection share its flow-control window: two tenants that read slowly would stop everybody else's answers.
    allowH2: false,
    headersTimeout: config.headersTimeoutMs,
    bodyTimeout: config.idleTimeoutMs,
    // Not longer than servers keep theirs (uvicorn, under vLLM: 5 s), or requests are sent into closing connections.
    keepAliveTimeout: 4_000,
  });
}

function pathUnder(base: URL, endpoint: string): string {
  return `${base.pathname.replace(/\/+$/, '')}/${endpoint}${base.search}`;
}

function isEventStream(head: UpstreamHead): boolean {
  const type = head.headers['content-type'];
  return type === undefined || /^text\/(event-stream|plain)\b/i.test(String(type));
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
