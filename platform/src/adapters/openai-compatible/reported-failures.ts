/** Failures as OpenAI's dialect tells them: a status and an error object, or an error object in a 200 or in the middle of a stream. */
import type { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { ErrorCode } from '../../errors/catalogue.ts';
import type { UpstreamLimit } from '../../inference/provider.ts';
import { isObject, parseObject } from '../../upstream/json-object.ts';
import { codeOfStatus, type Explanation, failureOf, retryAfterMs } from '../../upstream/upstream-failures.ts';
import type { UpstreamHead } from '../../upstream/upstream-head.ts';
import { quotaOf } from './quota-headers.ts';

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
  const reported = reportedError(parseObject(body));
  const { status, headers } = head;
  const told = { retryAfterMs: retryAfterMs(headers, nowMs), quota: quotaOf(headers), limit: limitOf(status, reported) };
  return failureOf(codeOf(status, reported), { ...explained(reported), ...told });
}

/** The failure that a 200 carries: an error object instead of an answer, or in the middle of a stream. Undefined when it carries none. */
export function failureInBody(body: Readonly<Record<string, unknown>>): BulkheadError | undefined {
  if (!body['error']) return undefined;
  const reported = reportedError(body);
  const status = reported?.status ?? statusOfCode(reported);
  return failureOf(codeOf(status, reported), { ...explained(reported), limit: limitOf(status, reported) });
}

function explained(reported: ReportedError | undefined): Explanation {
  return { message: reported?.message, param: reported?.param };
}

function codeOf(status: number, reported: ReportedError | undefined): ErrorCode {
  if (isOutOfQuota(reported)) return 'upstream_misconfigured';
  if (reported?.code === 'model_not_found') return 'upstream_misconfigured';
  const code = codeOfStatus(status);
  // Without an error object it is not the API that answered: a wrong base URL.
  if (status === 404 && reported === undefined) return 'upstream_misconfigured';
  if (code === 'upstream_rejected' && status !== 404 && reported?.code === 'context_length_exceeded') return 'context_length_exceeded';
  return code;
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

/** An error in the middle of a stream has no status; its code or type tells. */
function statusOfCode(reported: ReportedError | undefined): number {
  const code = reported?.code ?? reported?.type;
  if (code === 'rate_limit_exceeded' || code === 'rate_limit_error') return 429;
  return code === 'context_length_exceeded' ? 400 : 502;
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
