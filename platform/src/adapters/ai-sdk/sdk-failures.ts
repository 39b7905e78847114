/**
 * Failures of providers behind the AI SDK. A status other than 200 never reaches the SDK: our transport turns it into a failure, from what
 * Google (`google.rpc.Status`), Amazon (`x-amzn-errortype` and `message`) and most others (`message`) say. What the SDK itself throws is told by its name.
 */
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { ErrorCode } from '../../errors/catalogue.ts';
import type { UpstreamLimit } from '../../inference/provider.ts';
import { isObject, type JsonObject, parseObject } from '../../upstream/json-object.ts';
import { codeOfStatus, failureOf, malformed, retryAfterMs } from '../../upstream/upstream-failures.ts';
import type { UpstreamHead } from '../../upstream/upstream-head.ts';

interface Reported {
  /** Google's `status` and reasons, Amazon's type: names, each a word. */
  readonly names: readonly string[];
  readonly message: string | undefined;
  readonly retryDelay: string | undefined;
}

const contextTexts =
  /\b(?:(?:input|prompt|context)[^.]{0,40} too long|token count[^.]{0,40} exceeds|exceed[^.]{0,40}(?:context|maximum number of tokens)|too many (?:input )?tokens)\b/i;
/** The operator's account: its key, its bill, its contract. */
const accountNames =
  /^(?:API_KEY_INVALID|BILLING_DISABLED|FAILED_PRECONDITION|ServiceQuotaExceededException|ExpiredTokenException|UnrecognizedClientException|AccessDeniedException)$/;

/** `body`: what could be read of it. */
export function failureOfStatus(head: UpstreamHead, body: string, nowMs: number): BulkheadError {
  const reported = reportedIn(head, body);
  const { message, retryDelay } = reported;
  const waitMs = retryAfterMs(head.headers, nowMs) ?? retryAfterMs({ 'retry-after': retryDelay }, nowMs);
  const limit = limitOf(head.status, reported);
  return failureOf(codeOf(head.status, reported, limit), { message, retryAfterMs: waitMs, limit });
}

function codeOf(status: number, { names, message = '' }: Reported, limit: UpstreamLimit | undefined): ErrorCode {
  if (limit === 'account' || names.some((name) => accountNames.test(name))) return 'upstream_misconfigured';
  // An unknown model, or a wrong base URL.
  if (status === 404) return 'upstream_misconfigured';
  // Amazon's for a model that failed.
  if (status === 424) return 'upstream_error';
  return status === 400 && contextTexts.test(message) ? 'context_length_exceeded' : codeOfStatus(status);
}

function limitOf(status: number, { names }: Reported): UpstreamLimit | undefined {
  // A day's quota is no matter of seconds.
  if (status === 402 || names.some((name) => name === 'ServiceQuotaExceededException' || /PerDay/.test(name))) return 'account';
  if (status === 429) return names.includes('ModelNotReadyException') ? 'overloaded' : 'rate';
  return status === 503 || status === 529 ? 'overloaded' : undefined;
}

function reportedIn({ headers }: UpstreamHead, body: string): Reported {
  const parsed = parseObject(body.trimStart().startsWith('[') ? firstOf(body) : body) ?? {};
  const error = isObject(parsed['error']) ? parsed['error'] : parsed;
  const details = Array.isArray(error['details']) ? error['details'].filter(isObject) : [];
  const violations = details.flatMap(({ violations: list }) => (Array.isArray(list) ? list.filter(isObject) : []));
  const [amazonType] = String(headers['x-amzn-errortype'] ?? '').split(':');
  const names = [amazonType, error['status'], ...details.map(({ reason }) => reason), ...violations.map(({ quotaId }) => quotaId)];
  return {
    names: names.filter((name): name is string => typeof name === 'string' && name !== ''),
    message: textAt(error, 'message') ?? textAt(error, 'Message') ?? textAt(error, 'detail'),
    // `google.rpc.RetryInfo`: a duration in seconds, `34.4s`.
    retryDelay: details.map((detail) => textAt(detail, 'retryDelay')?.replace(/s$/, '')).find((delay) => delay !== undefined),
  };
}

/** Google answers a stream that fails with a list of one. */
function firstOf(list: string): string {
  try {
    return JSON.stringify((JSON.parse(list) as readonly unknown[])[0]);
  } catch {
    return '';
  }
}

function textAt(object: JsonObject, key: string): string | undefined {
  const value = object[key];
  return typeof value === 'string' ? value.slice(0, 4_096) : undefined;
}

/** What was thrown in, or by, a call of the SDK. */
export function failureOfSdk(error: unknown): BulkheadError {
  if (error instanceof BulkheadError) return error;
  const { name = '', statusCode, functionality } = (error ?? {}) as { name?: string; statusCode?: unknown; functionality?: unknown };
  switch (name) {
    case 'AI_UnsupportedFunctionalityError':
      return new BulkheadError(
        'unsupported_parameter',
        `The provider of this model does not support ${String(functionality).slice(0, 100)}.`,
      );
    case 'AI_InvalidPromptError':
    case 'AI_InvalidArgumentError':
      return new BulkheadError('invalid_value', 'The provider of this model cannot be asked this.');
    case 'AI_LoadAPIKeyError':
    case 'AI_LoadSettingError':
      return failureOf('upstream_misconfigured', { message: undefined });
    default:
      // In the middle of a stream, where a number stands for the status.
      if (typeof statusCode === 'number' && statusCode >= 400) return failureInStream(statusCode);
      return malformed('an answer that cannot be understood');
  }
}

function failureInStream(status: number): BulkheadError {
  const nothing = { names: [], message: undefined, retryDelay: undefined };
  const limit = limitOf(status, nothing);
  return failureOf(codeOf(status, nothing, limit), { message: undefined, limit });
}
