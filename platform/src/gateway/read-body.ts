/** Reads a request's body into memory, under limits that hold while reading, whatever was declared. */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { BodyBudget } from './body-budget.ts';
import type { OpenExchange } from './open-exchange.ts';

/** True when the request announces a body, even an empty chunked one. */
export function announcesBody(exchange: OpenExchange): boolean {
  const { headers } = exchange;
  if (headers['transfer-encoding'] !== undefined) return true;
  const length = headers['content-length'];
  return length !== undefined && length !== '0';
}

export interface BodyLimits {
  readonly bytesMax: number;
  /** Shared by every exchange. What is taken here counts in `exchange.bodyBytes`; whoever serves the exchange gives it back. */
  readonly budget: BodyBudget;
  /** From the request's first byte to its last. */
  readonly timeoutMs: number;
}

/**
 * What `parse` makes of the whole body; it runs as the last byte arrives. Throws, or rejects with what it throws; with `body_too_large` before
 * reading when the declared length is over `bytesMax`, and while reading otherwise; with `request_timeout`, `malformed_request` or
 * `client_closed_request` when the rest does not come; with `capacity_unavailable` when too many bodies are in memory. Tells a client that
 * waits for `100 Continue` to go on.
 */
export function readBody<Parsed>(exchange: OpenExchange, limits: BodyLimits, parse: (body: Buffer) => Parsed): Promise<Parsed> {
  const { request, response } = exchange;
  const { bytesMax, budget, timeoutMs } = limits;
  const tenantId = exchange.openedScope?.tenantId;
  const declared = Number(request.headers['content-length'] ?? 0);
  if (declared > bytesMax) throw bodyTooLarge(bytesMax, declared);
  budget.assertRoom(tenantId, declared);
  if (request.headers.expect !== undefined) response.writeContinue();
  exchange.readDeadlineMs = exchange.startedAtMs + timeoutMs;
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let received = 0;
    const fail = (error: unknown): void => {
      exchange.onBroken(undefined);
      request.off('data', onChunk).off('end', onEnd);
      chunks.length = 0;
      reject(error as Error);
    };
    const onChunk = (chunk: Buffer): void => {
      received += chunk.length;
      try {
        if (received > bytesMax) throw bodyTooLarge(bytesMax, received);
        budget.take(tenantId, chunk.length);
        exchange.bodyBytes += chunk.length;
        chunks.push(chunk);
      } catch (error) {
        fail(error);
      }
    };
    const onEnd = (): void => {
      exchange.onBroken(undefined);
      const [first] = chunks;
      try {
        resolve(parse(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks, received)));
      } catch (error) {
        reject(error as Error);
      }
    };
    request.on('data', onChunk).on('end', onEnd);
    exchange.onBroken(fail);
  });
}

export function bodyTooLarge(bytesMax: number, bytes: number): BulkheadError {
  return new BulkheadError('body_too_large', `the body may have ${bytesMax} bytes; this one has ${bytes} or more`, {
    details: { limit_bytes: bytesMax },
  });
}
