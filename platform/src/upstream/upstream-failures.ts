/**
 * What a provider's failure becomes for a tenant, whatever its dialect. Its text is never passed on, except the explanation of a refused
 * request, cleaned and cut; its 401 is ours to solve and must not look like the tenant's; no waiting time is believed beyond a minute.
 */
import { BulkheadError, type BulkheadErrorOptions } from '../errors/bulkhead-error.ts';
import type { ErrorCode } from '../errors/catalogue.ts';
import { type QuotaReport, type UpstreamLimit, UpstreamRefusal } from '../inference/provider.ts';
import type { UpstreamHead } from './upstream-head.ts';

/** Clients ignore a longer wait anyway (openai-node: 60 s), and a hostile one would shut the model for everybody. */
const retryAfterMsMax = 60_000;
const messageCharactersMax = 300;

/** What a provider said of its failure. */
export interface Explanation {
  /** Shown, cleaned, when the request was refused; else never. */
  readonly message: string | undefined;
  readonly param?: string | undefined;
  /** When the provider wants to be asked again. */
  readonly retryAfterMs?: number | undefined;
  /** Of the provider's own capacity, when that is why it failed. */
  readonly limit?: UpstreamLimit | undefined;
  readonly quota?: QuotaReport | undefined;
}

export function failureOf(code: ErrorCode, { message, param, retryAfterMs: waitMs, limit, quota }: Explanation): BulkheadError {
  const options: BulkheadErrorOptions = waitMs === undefined || !isWorthWaiting(code) ? {} : { retryAfterMs: waitMs };
  const fixed = fixedMessages[code];
  if (fixed !== undefined) {
    return limit === undefined
      ? new BulkheadError(code, fixed, options)
      : new UpstreamRefusal(limit, { code, message: fixed, options, quota });
  }
  const shown = message === undefined ? 'The model provider refused the request.' : clean(message);
  return new BulkheadError(code, shown, param === undefined ? {} : { param });
}

/** What a status other than 200 means where the dialect says nothing else. */
export function codeOfStatus(status: number): ErrorCode {
  switch (status) {
    case 400:
    case 404:
    case 413:
    case 422:
      return 'upstream_rejected';
    case 408:
    case 504:
      return 'upstream_timeout';
    case 429:
      return 'upstream_rate_limited';
    default:
      return status >= 500 || status < 300 ? 'upstream_error' : 'upstream_misconfigured';
  }
}

/** The wait its headers ask for. `nowMs` is for a date. */
export function retryAfterMs(headers: UpstreamHead['headers'], nowMs: number): number | undefined {
  const milliseconds = numberIn(headers['retry-after-ms']);
  if (milliseconds !== undefined) return clampWait(milliseconds);
  const seconds = numberIn(headers['retry-after']);
  if (seconds !== undefined) return clampWait(seconds * 1_000);
  const date = headers['retry-after'];
  // Date.parse takes anything with a digit for a date.
  const dateMs = typeof date === 'string' && /^\w{3}, .{4,32} GMT$/.test(date) ? Date.parse(date) : Number.NaN;
  return Number.isNaN(dateMs) ? undefined : clampWait(dateMs - nowMs);
}

/** Undici's errors. Their texts may quote what the provider sent, so only their codes are kept. */
export function failureOfTransport(error: unknown): BulkheadError {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown';
  const cause = new Error(`transport: ${code}`);
  if (timeoutCodes.has(code)) return new BulkheadError('upstream_timeout', 'The model provider did not answer in time.', { cause });
  if (code === 'UND_ERR_INVALID_ARG') {
    return new BulkheadError('upstream_misconfigured', 'The model provider is not configured correctly.', { cause });
  }
  return new BulkheadError('upstream_error', 'The connection to the model provider failed.', { cause });
}

export function malformed(what: string): BulkheadError {
  return new BulkheadError('upstream_error', `The model provider sent ${what}.`);
}

/** Given to undici when we end an exchange ourselves; no caller sees it. */
export function interrupted(): BulkheadError {
  return new BulkheadError('upstream_error', 'The call to the model provider was ended.');
}

const timeoutCodes: ReadonlySet<string> = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'ETIMEDOUT',
]);

const fixedMessages: Partial<Record<ErrorCode, string>> = {
  upstream_misconfigured: 'The model provider does not accept this configuration. The operator has to act; trying again does not help.',
  upstream_timeout: 'The model provider did not answer in time.',
  upstream_rate_limited: 'The model provider is limiting its rate. Try again later.',
  upstream_error: 'The model provider failed.',
};

function isWorthWaiting(code: ErrorCode): boolean {
  return code === 'upstream_rate_limited' || code === 'upstream_error' || code === 'upstream_timeout';
}

function numberIn(header: UpstreamHead['headers'][string]): number | undefined {
  return typeof header === 'string' && /^\d{1,15}(\.\d{1,6})?$/.test(header) ? Number(header) : undefined;
}

function clampWait(ms: number): number {
  return Math.min(Math.max(Math.ceil(ms), 0), retryAfterMsMax);
}

/** Control characters out, whatever looks like a credential or names our account out, then cut. */
function clean(message: string): string {
  const text = message
    .slice(0, messageCharactersMax * 4)
    .replace(/[\p{Cc}\p{Cf}\p{Z}]+/gu, ' ')
    .replace(/\b(?:sk|pk|key|org|proj|Bearer|Basic)[-_ ][\w.~+/=-]{6,}/gi, '[redacted]')
    .replace(/[\w.~+/-]{40,}/g, '[redacted]')
    .trim();
  return text.length > messageCharactersMax ? `${text.slice(0, messageCharactersMax - 1)}…` : text;
}
