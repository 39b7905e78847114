import { type ErrorCode, type ErrorRule, errorRule } from './catalogue.ts';

export interface BulkheadErrorOptions {
  /** The request field at fault, in dotted form (`messages.0.role`). */
  readonly param?: string;
  /** When a lone retry would succeed. */
  readonly retryAfterMs?: number;
  /** Facts for the error body beside the four standard keys (limit, scope, used ...). Never content, never secrets. */
  readonly details?: Readonly<Record<string, string | number | boolean | null>>;
  /** Headers the answer carries beside those of every error. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Where OpenAI answers the same code with another status on one route. */
  readonly status?: number;
  readonly cause?: unknown;
}

/** The one expected failure. Programmer errors are `AssertionError`s and answer 500 with a fixed text. */
export class BulkheadError extends Error {
  readonly code: ErrorCode;
  readonly param: string | null;
  readonly retryAfterMs: number | undefined;
  readonly details: Readonly<Record<string, string | number | boolean | null>> | undefined;
  readonly headers: Readonly<Record<string, string>> | undefined;
  readonly #status: number | undefined;

  /** `message` says what was wrong, the limit and the actual size; it never echoes secrets or more than 64 characters of input. */
  constructor(code: ErrorCode, message: string, options: BulkheadErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'BulkheadError';
    this.code = code;
    this.param = options.param ?? null;
    this.retryAfterMs = options.retryAfterMs;
    this.details = options.details;
    this.headers = options.headers;
    this.#status = options.status;
  }

  get rule(): ErrorRule {
    const rule = errorRule(this.code);
    return this.#status === undefined ? rule : { ...rule, status: this.#status };
  }
}

/** Input as it may appear in an error message: control characters escaped, at most 64 characters. */
export function quoteInput(text: string): string {
  const shown = text.length > 64 ? `${text.slice(0, 63)}…` : text;
  return JSON.stringify(shown);
}
