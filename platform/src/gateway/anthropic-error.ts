/**
 * Errors in the shape of Anthropic's Messages API (platform.claude.com/docs/en/api/errors), in place for the day its route exists; OpenAI's
 * are in `openai-error.ts`, and the catalogue behind both is the same.
 */
import type { LimitState } from '../admission/limit-store.ts';
import type { BulkheadError } from '../errors/bulkhead-error.ts';
import { type ErrorAnswer, knownError } from './openai-error.ts';

type AnthropicErrorType =
  | 'invalid_request_error'
  | 'authentication_error'
  | 'billing_error'
  | 'permission_error'
  | 'not_found_error'
  | 'request_too_large'
  | 'rate_limit_error'
  | 'timeout_error'
  | 'api_error'
  | 'overloaded_error';

/**
 * The answer to a refusal or a failure: `{"type":"error","error":{"type","message","details"},"request_id"}`, where `details.error_code` is
 * our code, as the API names its own causes. Anything but a `BulkheadError` becomes an `api_error` with a fixed text.
 */
export function anthropicErrorAnswer(error: unknown, requestId: string): ErrorAnswer {
  const known = knownError(error);
  const { status, type } = anthropicRule(known);
  const body = JSON.stringify({
    type: 'error',
    error: { type, message: messageOf(known), details: { ...known.details, error_code: known.code } },
    request_id: requestId,
  });
  const { closesConnection = false } = known.rule;
  return { status, code: known.code, headers: headersOf(known, requestId), body, closesConnection };
}

/**
 * `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`: for each kind the scope with the least
 * remaining. A reset is when the bucket is full again, in RFC 3339, whole seconds, never too early. `nowMs`: wall clock.
 */
export function anthropicLimitHeaders(states: readonly LimitState[], nowMs: number): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [dimension, name] of dimensions) {
    let tightest: LimitState | undefined;
    for (const state of states) {
      if (state.dimension === dimension && (tightest === undefined || state.remaining < tightest.remaining)) tightest = state;
    }
    if (tightest === undefined) continue;
    const resetMs = Math.ceil((nowMs + Math.max(0, tightest.resetMs)) / 1_000) * 1_000;
    headers[`anthropic-ratelimit-${name}-limit`] = String(tightest.limit);
    headers[`anthropic-ratelimit-${name}-remaining`] = String(tightest.remaining);
    headers[`anthropic-ratelimit-${name}-reset`] = new Date(resetMs).toISOString().replace('.000Z', 'Z');
  }
  return headers;
}

const dimensions = [
  ['requests', 'requests'],
  ['tokens', 'tokens'],
  ['input_tokens', 'input-tokens'],
  ['output_tokens', 'output-tokens'],
] as const;

interface AnthropicRule {
  readonly status: number;
  readonly type: AnthropicErrorType;
}

/** Money is 402 here, not OpenAI's 429, and a lack of capacity is the API's own 529. The rest follows from the status. */
function anthropicRule({ code, rule: { status } }: BulkheadError): AnthropicRule {
  switch (code) {
    case 'budget_exceeded':
      return { status: 402, type: 'billing_error' };
    case 'capacity_unavailable':
    case 'shutting_down':
      return { status: 529, type: 'overloaded_error' };
    default:
      return { status, type: typeOfStatus(status) };
  }
}

function typeOfStatus(status: number): AnthropicErrorType {
  switch (status) {
    case 401:
      return 'authentication_error';
    case 403:
      return 'permission_error';
    case 404:
      return 'not_found_error';
    case 413:
      return 'request_too_large';
    case 429:
      return 'rate_limit_error';
    case 504:
      return 'timeout_error';
    default:
      return status >= 500 ? 'api_error' : 'invalid_request_error';
  }
}

/** The API names the parameter in its text. */
function messageOf({ message, param }: BulkheadError): string {
  return param === null || message.startsWith(param) ? message : `${param}: ${message}`;
}

/** Whole seconds and no milliseconds: Claude Code reads integers alone. A spent budget says no time, as the API's spend limits do not. */
function headersOf(error: BulkheadError, requestId: string): Record<string, string> {
  const headers: Record<string, string> = { 'request-id': requestId };
  const { shouldRetry } = error.rule;
  if (shouldRetry !== undefined) headers['x-should-retry'] = String(shouldRetry);
  if (error.retryAfterMs !== undefined && error.code !== 'budget_exceeded') {
    headers['retry-after'] = String(Math.max(1, Math.ceil(error.retryAfterMs / 1_000)));
  }
  return headers;
}
