/**
 * Adapter of the `Provider` port for everything that speaks OpenAI's dialect over HTTP: OpenAI, Azure, vLLM, Ollama, TEI and so on.
 * The provider's key leaves this folder only towards the provider, and nothing the provider says reaches a tenant without having been
 * parsed, bounded and cleaned.
 */
import type { OpenAiCompatibleProviderConfig } from '../../config/schema.ts';
import type { Completion, CompletionStream, Provider, ProviderCall } from '../../inference/provider.ts';
import type { Clock } from '../../primitives/clock.ts';
import { extractUsage } from '../../primitives/token-usage.ts';
import { SseCompletionStream } from '../../upstream/completion-stream.ts';
import { readEmbeddings } from '../../upstream/embeddings-answer.ts';
import { parseObject } from '../../upstream/json-object.ts';
import { UpstreamConnection } from '../../upstream/upstream-connection.ts';
import { malformed } from '../../upstream/upstream-failures.ts';
import { openAiEvents } from './completion-events.ts';
import { quotaOf } from './quota-headers.ts';
import { failureInBody, failureOfStatus } from './reported-failures.ts';
import { type CacheField, completionBody, embeddingsBody, streamBody } from './upstream-body.ts';

const completionBytesMax = 32 * 1_024 * 1_024;
/** 2,048 vectors of 3,072 dimensions are 80 MB of digits. */
const embeddingsBytesMax = 128 * 1_024 * 1_024;

export class OpenAiCompatibleProvider implements Provider {
  readonly id: string;
  readonly #connection: UpstreamConnection;
  readonly #cacheField: CacheField;
  readonly #headers: readonly string[];

  constructor(config: OpenAiCompatibleProviderConfig, clock: Clock) {
    this.id = config.id;
    this.#cacheField = cacheFieldOf(config.promptCacheSalt);
    this.#connection = new UpstreamConnection({
      ...config,
      failureOfStatus: (head, explanation) => failureOfStatus(head, explanation, clock.nowMs()),
    });
    const headers = ['content-type', 'application/json', 'user-agent', 'bulkhead'];
    if (config.apiKey !== undefined) headers.push('authorization', `Bearer ${config.apiKey}`);
    this.#headers = headers;
  }

  async complete(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    const body = completionBody(call, this.#cacheField);
    const request = this.#request('chat/completions', call, body);
    const { bytes, headers } = await this.#connection.fetch({ ...request, bytesMax: completionBytesMax }, signal);
    const parsed = parseObject(bytes.toString('utf8'));
    if (parsed === undefined) throw malformed('an answer that is not a JSON object');
    const failure = failureInBody(parsed);
    if (failure !== undefined) throw failure;
    if (!Array.isArray(parsed['choices'])) throw malformed('an answer without choices');
    return { body: bytes, parsed, usage: extractUsage(parsed['usage']), quota: quotaOf(headers) };
  }

  async stream(call: ProviderCall, signal: AbortSignal): Promise<CompletionStream> {
    const body = streamBody(call, this.#cacheField);
    const { exchange, headers } = await this.#connection.openStream(this.#request('chat/completions', call, body), signal);
    return new SseCompletionStream(exchange, openAiEvents, quotaOf(headers));
  }

  async embed(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    const request = this.#request('embeddings', call, embeddingsBody(call));
    const { bytes, headers } = await this.#connection.fetch({ ...request, bytesMax: embeddingsBytesMax }, signal);
    return { ...readEmbeddings(bytes, call.body), quota: quotaOf(headers) };
  }

  /** Ends every call that is still running. */
  async close(): Promise<void> {
    await this.#connection.close();
  }

  #request(endpoint: string, { requestId }: ProviderCall, body: string) {
    return { path: this.#connection.pathOf(endpoint), headers: [...this.#headers, 'x-client-request-id', requestId], body };
  }
}

function cacheFieldOf(setting: OpenAiCompatibleProviderConfig['promptCacheSalt']): CacheField {
  if (setting === false) return undefined;
  return setting === true ? 'prompt_cache_key' : setting;
}
