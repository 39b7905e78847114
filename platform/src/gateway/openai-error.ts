/** Errors in OpenAI's shape: the one place where a failure becomes status, headers and body. */
import { BulkheadError } from '../errors/bulkhead-error.ts';

export interface ErrorAnswer {
  readonly status: number;
  readonly code: string;
  /** `retry-after` and its kin; not `x-request-id`, which every answer carries. */
  readonly headers: Record<string, string>;
  /** One line of JSON: `{"error":{"message","type","param","code","request_id", ...details}}`, the first five always. */
  readonly body: string;
  readonly closesConnection: boolean;
}

/** Anything but a `BulkheadError` becomes `internal_error` with a fixed text: nothing of it is shown. */
export function errorAnswer(error: unknown, requestId: string): ErrorAnswer {
  const known = knownError(error);
  const { status, type, closesConnection = false } = known.rule;
  const body = JSON.stringify({
    error: { ...known.details, message: known.message, type, param: known.param, code: known.code, request_id: requestId },
  });
  return { status, code: known.code, headers: errorHeaders(known), body, closesConnection };
}

/** What may be shown of an error: itself, or that something went wrong. */
export function knownError(error: unknown): BulkheadError {
  return error instanceof BulkheadError ? error : internalError;
}

/** True for what nobody foresaw: to be logged with its stack, once. */
export function isUnexpected(error: unknown): boolean {
  return !(error instanceof BulkheadError);
}

const internalError = new BulkheadError('internal_error', 'The server had an error while processing the request.');

function errorHeaders(error: BulkheadError): Record<string, string> {
  const headers: Record<string, string> = { ...error.headers };
  const { shouldRetry, status } = error.rule;
  if (shouldRetry !== undefined) headers['x-should-retry'] = String(shouldRetry);
  if (status === 401) headers['www-authenticate'] = 'Bearer';
  if (error.retryAfterMs !== undefined) {
    const waitMs = Math.max(0, Math.ceil(error.retryAfterMs));
    headers['retry-after'] = String(Math.max(1, Math.ceil(waitMs / 1_000)));
    headers['retry-after-ms'] = String(waitMs);
  }
  return headers;
}
