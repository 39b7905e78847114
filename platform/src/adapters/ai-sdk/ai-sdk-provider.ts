/**
 * Adapter of the `Provider` port over the AI SDK's provider packages: every provider one of them speaks to, Google's Gemini and Amazon
 * Bedrock among them. The package translates between its specification and the provider's dialect; we translate between OpenAI's and the
 * specification, and make the requests (docs/reference/ai-sdk.md, docs/rfd/0021-ai-sdk.md).
 */
import type { LanguageModelV4StreamPart } from '@ai-sdk/provider';
import type { AiSdkProviderConfig } from '../../config/schema.ts';
import type { Completion, CompletionEvent, CompletionStream, Provider, ProviderCall } from '../../inference/provider.ts';
import type { Clock } from '../../primitives/clock.ts';
import { extractUsage } from '../../primitives/token-usage.ts';
import { isObject } from '../../upstream/json-object.ts';
import { UpstreamConnection } from '../../upstream/upstream-connection.ts';
import { malformed } from '../../upstream/upstream-failures.ts';
import { AnswerChunks } from './answer-chunks.ts';
import { callOptions } from './call-options.ts';
import { CallTransport } from './call-transport.ts';
import { embeddingsOf } from './embeddings.ts';
import { rehearse } from './rehearsal.ts';
import { failureOfSdk, failureOfStatus } from './sdk-failures.ts';
import { loadSdk, type OpenSdk, type SdkTraits, traitsOf } from './sdk-models.ts';
import { type AnswerHead, completionOf } from './whole-answer.ts';

const answerBytesMax = 32 * 1_024 * 1_024;
const embeddingsBytesMax = 128 * 1_024 * 1_024;

export class AiSdkProvider implements Provider {
  readonly id: string;
  readonly #connection: UpstreamConnection;
  readonly #origin: string;
  readonly #clock: Clock;
  readonly #openSdk: OpenSdk;
  readonly #traits: SdkTraits;

  private constructor(config: AiSdkProviderConfig, openSdk: OpenSdk, clock: Clock) {
    this.id = config.id;
    this.#clock = clock;
    this.#openSdk = openSdk;
    this.#traits = traitsOf(config);
    this.#origin = new URL(config.baseUrl).origin;
    this.#connection = new UpstreamConnection({
      ...config,
      failureOfStatus: (head, explanation) => failureOfStatus(head, explanation, clock.nowMs()),
    });
  }

  /** Throws a ConfigError when the package is not installed. */
  static async open(config: AiSdkProviderConfig, clock: Clock): Promise<AiSdkProvider> {
    return new AiSdkProvider(config, await loadSdk(config), clock);
  }

  async complete(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    signal.throwIfAborted();
    const options = await this.#optionsOf(call, signal);
    const transport = this.#transport(signal, answerBytesMax);
    const model = this.#openSdk(transport.fetch).languageModel(call.upstreamModel);
    const result = await told(signal, () => model.doGenerate({ ...options, abortSignal: signal }));
    const parsed = completionOf(result, this.#headOf(call));
    return { body: Buffer.from(JSON.stringify(parsed)), parsed, usage: extractUsage(parsed['usage']) };
  }

  async stream(call: ProviderCall, signal: AbortSignal): Promise<CompletionStream> {
    signal.throwIfAborted();
    const options = await this.#optionsOf(call, signal);
    const transport = this.#transport(signal, null);
    const model = this.#openSdk(transport.fetch).languageModel(call.upstreamModel);
    const { stream } = await told(signal, () => model.doStream({ ...options, abortSignal: signal }));
    const { stream_options: asked } = call.body;
    const chunks = new AnswerChunks(this.#headOf(call), { isUsageAsked: isObject(asked) && asked['include_usage'] === true });
    return {
      batches: batchesOf(stream, { chunks, transport, signal }),
      [Symbol.asyncDispose]: async () => transport.abort(),
    };
  }

  async embed(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    signal.throwIfAborted();
    const open = (until: AbortSignal) => {
      const sdk = this.#openSdk(this.#transport(until, embeddingsBytesMax).fetch);
      return sdk.embeddingModel?.(call.upstreamModel);
    };
    return told(signal, () => embeddingsOf(call, { open, traits: this.#traits, signal }));
  }

  /** Ends every call that is still running. */
  async close(): Promise<void> {
    await this.#connection.close();
  }

  /** Nothing is sent, nor paid for, that the package would not say whole. */
  async #optionsOf(call: ProviderCall, signal: AbortSignal) {
    const options = callOptions(call, this.#traits);
    await told(signal, () => rehearse(this.#openSdk, call.upstreamModel, options));
    return options;
  }

  #transport(signal: AbortSignal, bytesMax: number | null): CallTransport {
    return new CallTransport(this.#connection, { origin: this.#origin, signal, answerBytesMax: bytesMax });
  }

  #headOf({ requestId, upstreamModel }: ProviderCall): AnswerHead {
    return { id: `chatcmpl-${requestId}`, model: upstreamModel, createdSeconds: Math.floor(this.#clock.nowMs() / 1_000) };
  }
}

/** What `work` throws as the failure it means, or the caller's reason when the caller has gone. */
async function told<T>(signal: AbortSignal, work: () => PromiseLike<T>, transport?: CallTransport): Promise<T> {
  try {
    return await work();
  } catch (error) {
    signal.throwIfAborted();
    throw transport?.failure ?? failureOfSdk(error);
  }
}

async function* batchesOf(
  stream: ReadableStream<LanguageModelV4StreamPart>,
  call: { readonly chunks: AnswerChunks; readonly transport: CallTransport; readonly signal: AbortSignal },
): AsyncGenerator<readonly CompletionEvent[], void> {
  const { chunks, transport, signal } = call;
  const reader = stream.getReader();
  try {
    while (!chunks.hasFinished) {
      const { done, value: part } = await told(signal, () => reader.read(), transport);
      if (done) throw malformed('a stream that breaks off');
      transport.answered();
      const events = chunks.accept(part);
      if (events.length > 0) yield events;
    }
  } finally {
    transport.abort();
    // The pipes between: they fail by the abort, and nobody waits for them.
    reader.cancel().catch(() => {});
  }
}
