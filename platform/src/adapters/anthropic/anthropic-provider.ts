/**
 * Adapter of the `Provider` port for Anthropic's Messages API (`POST /v1/messages`, version 2023-06-01): requests in OpenAI's dialect are
 * translated, and so are answers, streams and failures. What has no counterpart is refused by name and never dropped
 * (docs/reference/anthropic.md has the table, docs/rfd/0018-anthropic.md the reasons). No embeddings: the API has none.
 */
import type { AnthropicProviderConfig } from '../../config/schema.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Completion, CompletionStream, Provider, ProviderCall } from '../../inference/provider.ts';
import type { Clock } from '../../primitives/clock.ts';
import { extractUsage } from '../../primitives/token-usage.ts';
import { SseCompletionStream } from '../../upstream/completion-stream.ts';
import { isObject, type JsonObject, parseObject } from '../../upstream/json-object.ts';
import { UpstreamConnection } from '../../upstream/upstream-connection.ts';
import { malformed } from '../../upstream/upstream-failures.ts';
import type { UpstreamHead } from '../../upstream/upstream-head.ts';
import { completionOf } from './message-answer.ts';
import { MessageEvents } from './message-events.ts';
import { messageRequest } from './message-request.ts';
import { quotaOf } from './quota-headers.ts';
import { failureInBody, failureOfStatus } from './reported-failures.ts';

const answerBytesMax = 32 * 1_024 * 1_024;
const version = '2023-06-01';

export class AnthropicProvider implements Provider {
  readonly id: string;
  readonly #connection: UpstreamConnection;
  readonly #clock: Clock;
  readonly #usesPromptCache: boolean;
  readonly #headers: readonly string[];

  constructor(config: AnthropicProviderConfig, clock: Clock) {
    this.id = config.id;
    this.#clock = clock;
    this.#usesPromptCache = config.promptCache;
    this.#connection = new UpstreamConnection({
      ...config,
      failureOfStatus: (head, explanation) => failureOfStatus(head, explanation, clock.nowMs()),
    });
    const headers = ['content-type', 'application/json', 'user-agent', 'bulkhead', 'anthropic-version', version];
    if (config.apiKey !== undefined) headers.push('x-api-key', config.apiKey);
    this.#headers = headers;
  }

  async complete(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    const { bytes, headers } = await this.#connection.fetch({ ...this.#request(this.#translated(call)), bytesMax: answerBytesMax }, signal);
    const message = parseObject(bytes.toString('utf8'));
    if (message === undefined) throw malformed('an answer that is not a JSON object');
    const failure = failureInBody(message);
    if (failure !== undefined) throw failure;
    const parsed = completionOf(message, this.#nowSeconds());
    return { body: Buffer.from(JSON.stringify(parsed)), parsed, usage: extractUsage(parsed['usage']), quota: this.#quotaOf(headers) };
  }

  async stream(call: ProviderCall, signal: AbortSignal): Promise<CompletionStream> {
    const request = this.#request({ ...this.#translated(call), stream: true });
    const { stream_options: options } = call.body;
    const isUsageAsked = isObject(options) && options['include_usage'] === true;
    const { exchange, headers } = await this.#connection.openStream(request, signal);
    return new SseCompletionStream(exchange, new MessageEvents(this.#nowSeconds(), { isUsageAsked }), this.#quotaOf(headers));
  }

  async embed(_call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    signal.throwIfAborted();
    throw new BulkheadError('upstream_misconfigured', 'The model provider of this model has no embeddings. The operator has to act.');
  }

  /** Ends every call that is still running. */
  async close(): Promise<void> {
    await this.#connection.close();
  }

  #translated(call: ProviderCall): JsonObject {
    return messageRequest(call, { usesPromptCache: this.#usesPromptCache });
  }

  #request(body: JsonObject) {
    return { path: this.#connection.pathOf('v1/messages'), headers: this.#headers, body: JSON.stringify(body) };
  }

  #quotaOf(headers: UpstreamHead['headers']) {
    return quotaOf(headers, this.#clock.nowMs());
  }

  #nowSeconds(): number {
    return Math.floor(this.#clock.nowMs() / 1_000);
  }
}
