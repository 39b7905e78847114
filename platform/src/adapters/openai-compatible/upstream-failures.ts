/**
 * What a provider's failure becomes for a tenant. Its text is never passed on, except the explanation of a refused request, cleaned
 * and cut; its 401 is ours to solve and must not look like the tenant's; no waiting time is believed beyond a minute.
 */
import { BulkheadError, type BulkheadErrorOptions } from '../../errors/bulkhead-error.ts';
import type { ErrorCode } from '../../errors/catalogue.ts';
import { type QuotaReport, type UpstreamLimit, UpstreamRefusal } from '../../inference/provider.ts';
import { quotaOf } from './quota-headers.ts';
import type { UpstreamHead } from './upstream-head.ts';

/** Clients ignore a longer wait anyway (openai-node: 60 s), and a hostile one would shut the model for everybody. */
const retryAfterMsMax = 60_000;
const messageCharactersMax = 300;

/** `error` of an OpenAI error body. */
interface ReportedError {
  readonly code: string | undefined;
  readonly type: string | undefined;
  readonly status: number | undefined;
  readonly message: string | undefined;
  readonly param: string | undefined;
}

/** The failure of an answer whose status is not 200. `body` is what could be read of it. */
export function failureOfStatus(head: UpstreamHead, body: string, nowMs: number): BulkheadError {
  const reported = reportedError(parsedOrUndefined(body));
  return failureOf(head.status, reported, { waitMs: retryAfterMs(head.headers, nowMs), quota: quotaOf(head.headers) });
}

/** The failure that a 200 carries: an error object instead of an answer, or in the middle of a stream. Undefined when it carries none. */
export function failureInBody(body: Readonly<Record<string, unknown>>): BulkheadError | undefined {
  if (!body['error']) return undefined;
  const reported = reportedError(body);
  return failureOf(reported?.status ?? statusOfCode(reported), reported, {});
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

interface Told {
  readonly waitMs?: number | undefined;
  readonly quota?: QuotaReport | undefined;
}

function failureOf(status: number, reported: ReportedError | undefined, { waitMs, quota }: Told): BulkheadError {
  const code = codeOf(status, reported);
  const options: BulkheadErrorOptions = waitMs === undefined || !isWorthWaiting(code) ? {} : { retryAfterMs: waitMs };
  const fixed = fixedMessages[code];
  const limit = limitOf(status, reported);
  if (fixed !== undefined) {
    return limit === undefined
      ? new BulkheadError(code, fixed, options)
      : new UpstreamRefusal(limit, { code, message: fixed, options, quota });
  }
  const message = reported?.message === undefined ? 'The model provider refused the request.' : clean(reported.message);
  return new BulkheadError(code, message, reported?.param === undefined ? {} : { param: reported.param });
}

function codeOf(status: number, reported: ReportedError | undefined): ErrorCode {
  if (isOutOfQuota(reported)) return 'upstream_misconfigured';
  if (reported?.code === 'model_not_found') return 'upstream_misconfigured';
  switch (status) {
    case 400:
    case 413:
    case 422:
      return reported?.code === 'context_length_exceeded' ? 'context_length_exceeded' : 'upstream_rejected';
    case 404:
      // Without an error object it is not the API that answered: a wrong base URL.
      return reported === undefined ? 'upstream_misconfigured' : 'upstream_rejected';
    case 408:
    case 504:
      return 'upstream_timeout';
    case 429:
      return 'upstream_rate_limited';
    default:
      return status >= 500 || status < 300 ? 'upstream_error' : 'upstream_misconfigured';
  }
}

/** Whether the provider refused for its own capacity, and which. A quota that is used up is 429 as well, and no wait of seconds helps. */
function limitOf(status: number, reported: ReportedError | undefined): UpstreamLimit | undefined {
  if (isOutOfQuota(reported)) return 'account';
  if (status === 503 || status === 529) return 'overloaded';
  if (status !== 429) return undefined;
  return /concurren/i.test(`${reported?.code} ${reported?.type} ${reported?.message}`) ? 'concurrency' : 'rate';
}

function isOutOfQuota(reported: ReportedError | undefined): boolean {
  return reported?.code === 'insufficient_quota' || reported?.type === 'insufficient_quota';
}

function isWorthWaiting(code: ErrorCode): boolean {
  return code === 'upstream_rate_limited' || code === 'upstream_error' || code === 'upstream_timeout';
}

/** An error in the middle of a stream has no status; its code or type tells. */
function statusOfCode(reported: ReportedError | undefined): number {
  const code = reported?.code ?? reported?.type;
  if (code === 'rate_limit_exceeded' || code === 'rate_limit_error') return 429;
  return code === 'context_length_exceeded' ? 400 : 502;
}

function retryAfterMs(headers: UpstreamHead['headers'], nowMs: number): number | undefined {
  const milliseconds = numberIn(headers['retry-after-ms']);
  if (milliseconds !== undefined) return clampWait(milliseconds);
  const seconds = numberIn(headers['retry-after']);
  if (seconds !== undefined) return clampWait(seconds * 1_000);
  const date = headers['retry-after'];
  // Date.parse takes anything with a digit for a date.
  const dateMs = typeof date === 'string' && /^\w{3}, .{4,32} GMT$/.test(date) ? Date.parse(date) : Number.NaN;
  return Number.isNaN(dateMs) ? undefined : clampWait(dateMs - nowMs);
}

function numberIn(header: UpstreamHead['headers'][string]): number | undefined {
  return typeof header === 'string' && /^\d{1,15}(\.\d{1,6})?$/.test(header) ? Number(header) : undefined;
}

function clampWait(ms: number): number {
  return Math.min(Math.max(Math.ceil(ms), 0), retryAfterMsMax);
}

function parsedOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function reportedError(body: unknown): ReportedError | undefined {
  const error = isObject(body) ? body['error'] : undefined;
  if (typeof error === 'string') return { code: undefined, type: undefined, status: undefined, message: error, param: undefined };
  if (!isObject(error)) return undefined;
  const { code, type, message, param, status } = error;
  return {
    code: wordOrUndefined(code),
    type: wordOrUndefined(type),
    status: statusOrUndefined(status) ?? statusOrUndefined(code),
    message: typeof message === 'string' ? message : undefined,
    param: typeof param === 'string' && /^[\w.[\]-]{1,128}$/.test(param) ? param : undefined,
  };
}

function wordOrUndefined(value: unknown): string | undefined {
  return typeof value === 'string' && /^\w{1,64}$/.test(value) ? value : undefined;
}

function statusOrUndefined(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isInteger(value) && value >= 400 && value <= 599 ? value : undefined;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
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
