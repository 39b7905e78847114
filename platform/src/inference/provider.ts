/**
 * Port: a model provider, stateless. Bodies are OpenAI chat-completion and embedding objects. To a provider of that dialect whatever we do
 * not know passes through untouched; an adapter that translates refuses what it cannot say. A provider never sees a tenant, only an opaque
 * per-tenant cache salt.
 */
import { BulkheadError, type BulkheadErrorOptions } from '../errors/bulkhead-error.ts';
import type { ErrorCode } from '../errors/catalogue.ts';
import type { TokenUsage } from '../primitives/token-usage.ts';

/** One of our account's limits at the provider, as an answer's headers tell it. */
export interface QuotaLevel {
  readonly limit?: number | undefined;
  readonly remaining?: number | undefined;
  /** Until all of the limit is there again. */
  readonly resetMs?: number | undefined;
}

/** What an answer says of our account. A dimension that is absent was not told. `tokens`: input and output together. */
export interface QuotaReport {
  readonly requests?: QuotaLevel | undefined;
  readonly tokens?: QuotaLevel | undefined;
  readonly inputTokens?: QuotaLevel | undefined;
  readonly outputTokens?: QuotaLevel | undefined;
}

/**
 * Why a provider refused for reasons of its own. `rate`: too much in a time; `concurrency`: too much at once; `overloaded`: the provider as a whole;
 * `account`: money or quota is used up, and no wait of seconds helps.
 */
export type UpstreamLimit = 'rate' | 'concurrency' | 'overloaded' | 'account';

/** A failure of a provider that says something about its capacity. */
export class UpstreamRefusal extends BulkheadError {
  readonly limit: UpstreamLimit;
  readonly quota: QuotaReport | undefined;

  constructor(
    limit: UpstreamLimit,
    failure: {
      readonly code: ErrorCode;
      readonly message: string;
      readonly options?: BulkheadErrorOptions;
      readonly quota?: QuotaReport | undefined;
    },
  ) {
    super(failure.code, failure.message, failure.options);
    this.limit = limit;
    this.quota = failure.quota;
  }
}

export interface ProviderCall {
  /** The provider's own name of the model. */
  readonly upstreamModel: string;
  /** Parsed request body; a provider of OpenAI's dialect replaces `model` and asks for usage, and changes nothing else. Never mutated. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly requestId: string;
  /** Opaque per tenant: an upstream cache that is keyed by it can tell no tenant about another. Absent means: use no cache. */
  readonly cacheSalt?: string | undefined;
  /** The model's longest answer, for a provider that demands a limit. */
  readonly outputTokensMax?: number | undefined;
}

export interface Completion {
  /** The upstream's JSON, byte for byte, or what it was translated to. */
  readonly body: Buffer;
  readonly parsed: Readonly<Record<string, unknown>>;
  /** Absent when the upstream reported none; the caller counts then and marks the event estimated. */
  readonly usage?: TokenUsage | undefined;
  readonly quota?: QuotaReport | undefined;
}

/** One `data:` event of a completion stream. */
export interface CompletionEvent {
  /** The event's JSON text, one line. */
  readonly json: string;
  readonly parsed: Readonly<Record<string, unknown>>;
}

export interface CompletionStream extends AsyncDisposable {
  readonly quota?: QuotaReport | undefined;
  /**
   * Events in order, in the batches they arrived in. Ends after the upstream's `[DONE]` or end of body. Throws a BulkheadError when the
   * stream breaks or carries an error object. Breaking out of the loop aborts the upstream request.
   */
  readonly batches: AsyncIterable<readonly CompletionEvent[]>;
}

export interface Provider {
  readonly id: string;
  /**
   * Throws `upstream_*` errors (never with the upstream's key or its raw text), `unsupported_parameter` or `invalid_value` for a body that
   * the provider's dialect cannot say, or the signal's reason. Abort reaches the upstream within 1 s.
   */
  complete(call: ProviderCall, signal: AbortSignal): Promise<Completion>;
  /** Resolves when response headers are there. Usage is always requested upstream; the caller strips it if the client did not ask. */
  stream(call: ProviderCall, signal: AbortSignal): Promise<CompletionStream>;
  /**
   * `body.input` etc. as OpenAI's embeddings endpoint takes them; always asks for floats or base64 as `body.encoding_format` says.
   * A provider without embeddings throws `upstream_misconfigured`.
   */
  embed(call: ProviderCall, signal: AbortSignal): Promise<Completion>;
  close(): Promise<void>;
}
