/**
 * `Idempotency-Key`: a repeated request gets the first one's answer instead of a second run (Stripe's semantics, per tenant and route,
 * 24 hours). Works on POST routes of tenants. A stream cannot be replayed, so a key on one is refused rather than ignored.
 *
 * Only answers are kept; a request that failed has released its key, so that a retry runs. While the first still runs, a repetition is
 * told to come back: 425 Too Early with `x-should-retry: true`, which SDKs obey (409 they would retry even when told not to).
 */
import { createHash } from 'node:crypto';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { IdempotencyCabinet } from '../tenancy/capabilities.ts';
import type { Answer } from './exchange.ts';
import type { OpenExchange } from './open-exchange.ts';
import { errorAnswer } from './openai-error.ts';
import type { TenantRoute } from './route.ts';

export interface KeyedRequest {
  readonly exchange: OpenExchange;
  readonly route: TenantRoute;
  readonly key: string;
  readonly body: Buffer | undefined;
}

const keyPattern = /^[\x21-\x7e]{1,255}$/;
const retryAfterMs = 1_000;

/** The key of a POST; undefined without one. Throws `invalid_value` for a malformed key, `unsupported_parameter` for a streamed answer. */
export function idempotencyKeyOf(exchange: OpenExchange): string | undefined {
  const key = exchange.headers['idempotency-key'];
  if (key === undefined || exchange.request.method !== 'POST') return undefined;
  if (typeof key !== 'string' || !keyPattern.test(key)) {
    throw new BulkheadError('invalid_value', 'Idempotency-Key must be 1 to 255 printable ASCII characters', { param: 'Idempotency-Key' });
  }
  if (exchange.body['stream'] === true) {
    throw new BulkheadError('unsupported_parameter', 'a stream cannot be replayed: leave out Idempotency-Key or stream', {
      param: 'Idempotency-Key',
    });
  }
  return key;
}

/** Runs `produce` once per key and body; repetitions get the kept answer with `idempotency-replayed: true`. */
export async function answerOnce(
  { logger, bytesMax }: { readonly logger: Logger; readonly bytesMax: number },
  { exchange, route, key, body }: KeyedRequest,
  produce: () => Promise<Answer>,
): Promise<Answer> {
  const cabinet = exchange.scope.idempotency;
  const claim = await cabinet.claim(route.path, key, digestOf(exchange, body));
  switch (claim.kind) {
    case 'done':
      return { kind: 'json', status: claim.status, headers: { 'idempotency-replayed': 'true' }, body: Buffer.from(claim.body) };
    case 'mismatch':
      throw new BulkheadError('idempotency_mismatch', 'this Idempotency-Key was used with a different request', {
        param: 'Idempotency-Key',
      });
    case 'running':
      throw new BulkheadError('idempotency_in_progress', 'the first request with this Idempotency-Key is still running', { retryAfterMs });
    case 'claimed':
      break;
    default:
      claim satisfies never;
  }
  const answer = await produceOrRelease({ cabinet, path: route.path, key }, produce);
  if (answer.kind !== 'json') {
    await cabinet.release(route.path, key);
    return answer;
  }
  const text = Buffer.isBuffer(answer.body) ? answer.body.toString('utf8') : JSON.stringify(answer.body);
  try {
    await cabinet.complete(route.path, key, keptAnswer(answer.status, text, bytesMax, exchange.requestId));
  } catch (error) {
    // The work is done and paid for: the client gets its answer. A retry is told to wait until the claim runs out.
    logger.error(
      { requestId: exchange.requestId, route: route.path, stack: error instanceof Error ? error.name : undefined },
      'an answer could not be kept for its Idempotency-Key',
    );
  }
  return { ...answer, body: Buffer.from(text) };
}

async function produceOrRelease(
  claim: { readonly cabinet: IdempotencyCabinet; readonly path: string; readonly key: string },
  produce: () => Promise<Answer>,
): Promise<Answer> {
  try {
    return await produce();
  } catch (error) {
    // A key that cannot be released only delays the retry; the client needs to hear why the request failed.
    await claim.cabinet.release(claim.path, claim.key).catch(() => undefined);
    throw error;
  }
}

/** Too large an answer is not kept, but neither is the work done twice: a repetition is told so. */
function keptAnswer(status: number, text: string, bytesMax: number, requestId: string): { readonly status: number; readonly body: string } {
  const bytes = Buffer.byteLength(text);
  if (bytes <= bytesMax) return { status, body: text };
  const error = new BulkheadError(
    'idempotency_answer_not_kept',
    `the first request with this Idempotency-Key succeeded, but its answer of ${bytes} bytes is over the ${bytesMax} that are kept`,
    { details: { first_request_id: requestId } },
  );
  const answer = errorAnswer(error, requestId);
  return { status: answer.status, body: answer.body };
}

/**
 * The path is part of it: the same body for another vector store is another request. Of an upload the parts count, not the bytes:
 * every attempt has a boundary of its own.
 */
function digestOf({ request, upload }: OpenExchange, body: Buffer | undefined): string {
  const hash = createHash('sha256').update(`${request.url ?? ''}\n`);
  if (upload === undefined) return hash.update(body ?? '').digest('hex');
  hash.update(JSON.stringify([upload.fields, upload.file?.filename ?? null]));
  return hash.update(upload.file?.body.sha256 ?? '').digest('hex');
}
