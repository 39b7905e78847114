/**
 * Failures as the Messages API tells them (platform.claude.com/docs/en/api/errors): a status and `{"type":"error","error":{type, message,
 * details}}`, or that object in the middle of a stream, where the type stands for the status.
 */
import type { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { ErrorCode } from '../../errors/catalogue.ts';
import type { UpstreamLimit } from '../../inference/provider.ts';
import { isObject, type JsonObject, parseObject } from '../../upstream/json-object.ts';
import { codeOfStatus, failureOf, retryAfterMs } from '../../upstream/upstream-failures.ts';
import type { UpstreamHead } from '../../upstream/upstream-head.ts';
import { quotaOf } from './quota-headers.ts';

interface ReportedError {
  readonly type: string | undefined;
  /** `details.error_code`: the stable name of the cause, where there is one. */
  readonly cause: string | undefined;
  readonly message: string | undefined;
}

const statusOfType: ReadonlyMap<string | undefined, number> = new Map([
  ['invalid_request_error', 400],
  ['authentication_error', 401],
  ['billing_error', 402],
  ['permission_error', 403],
  ['not_found_error', 404],
  ['request_too_large', 413],
  ['rate_limit_error', 429],
  ['api_error', 500],
  ['timeout_error', 504],
  ['overloaded_error', 529],
]);

/** Causes that lie with the operator's account, whatever their status: no tenant can help. */
const accountCauses: ReadonlySet<string | undefined> = new Set([
  'enforced_spend_limit_reached',
  'contract_spend_limit_reached',
  'organization_on_hold',
  'cmek_key_disabled',
  'cmek_key_network_blocked',
  'workspace_human_review_disabled',
]);

/** A spend limit of the account answers 400, and only its text tells. Another text is shown as any refusal is. */
const accountTexts = /\b(?:credit balance is too low|(?:reached|exceeded) your (?:specified )?(?:API )?usage limits?)\b/i;
const contextTexts = /\b(?:prompt is too long|exceed(?:s|ed)? context (?:limit|window))\b/i;

/** The failure of an answer whose status is not 200. `body` is what could be read of it. */
export function failureOfStatus(head: UpstreamHead, body: string, nowMs: number): BulkheadError {
  const reported = reportedError(parseObject(body));
  const waitMs = retryAfterMs(head.headers, nowMs);
  // A rate limit says when to come back; a 429 that does not is a spend limit, which lasts until the month is over.
  const isSpent = head.status === 429 && waitMs === undefined;
  const code = isSpent ? 'upstream_misconfigured' : codeOf(head.status, reported);
  const limit = isSpent ? 'account' : limitOf(head.status, reported);
  return failureOf(code, { message: reported?.message, retryAfterMs: waitMs, limit, quota: quotaOf(head.headers, nowMs) });
}

/** The failure that a 200 carries: an error instead of a message, or in the middle of a stream. Undefined when it carries none. */
export function failureInBody(body: JsonObject): BulkheadError | undefined {
  if (body['type'] !== 'error' && !body['error']) return undefined;
  const reported = reportedError(body);
  const status = statusOfType.get(reported?.type) ?? 500;
  return failureOf(codeOf(status, reported), { message: reported?.message, limit: limitOf(status, reported) });
}

/** Whether Anthropic refused for its own capacity or our account there, and which. */
function limitOf(status: number, reported: ReportedError | undefined): UpstreamLimit | undefined {
  const isAccount = status === 402 || accountCauses.has(reported?.cause) || (status === 400 && accountTexts.test(reported?.message ?? ''));
  if (isAccount) return 'account';
  if (status === 429) return /concurren/i.test(reported?.message ?? '') ? 'concurrency' : 'rate';
  return status === 503 || status === 529 ? 'overloaded' : undefined;
}

function codeOf(status: number, reported: ReportedError | undefined): ErrorCode {
  if (accountCauses.has(reported?.cause)) return 'upstream_misconfigured';
  // An unknown model, or without an error object a wrong base URL.
  if (status === 404) return 'upstream_misconfigured';
  if (status === 400 && accountTexts.test(reported?.message ?? '')) return 'upstream_misconfigured';
  if (status === 400 && contextTexts.test(reported?.message ?? '')) return 'context_length_exceeded';
  return codeOfStatus(status);
}

function reportedError(body: JsonObject | undefined): ReportedError | undefined {
  const error = body?.['error'];
  if (!isObject(error)) return undefined;
  const { type, message, details } = error;
  return {
    type: typeof type === 'string' ? type : undefined,
    cause: isObject(details) && typeof details['error_code'] === 'string' ? details['error_code'] : undefined,
    message: typeof message === 'string' ? message.slice(0, 4_096) : undefined,
  };
}
