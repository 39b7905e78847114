/** Reads a request's body into memory, under a limit that holds while reading, whatever was declared. */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { OpenExchange } from './open-exchange.ts';

/** True when the request announces a body, even an empty chunked one. */
export function announcesBody(exchange: OpenExchange): boolean {
  const { headers } = exchange;
  if (headers['transfer-encoding'] !== undefined) return true;
  const length = headers['content-length'];
  return length !== undefined && length !== '0';
}

/**
 * The whole body. Throws `body_too_large` before reading when the declared length is over `bytesMax`, and while reading otherwise;
 * `request_timeout`, `malformed_request` or `client_closed_request` when the rest does not come. Tells a client that waits for
 * `100 Continue` to go on.
 */
export function readBody(exchange: OpenExchange, bytesMax: number): Promise<Buffer> {
  const { request, response } = exchange;
  const declared = Number(request.headers['content-length'] ?? 0);
  if (declared > bytesMax) return Promise.reject(tooLarge(bytesMax, declared));
  if (request.headers.expect !== undefined) response.writeContinue();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let received = 0;
    const stop = (): void => {
      exchange.onBroken(undefined);
      request.off('data', onChunk).off('end', onEnd);
    };
    const fail = (error: BulkheadError): void => {
      stop();
      chunks.length = 0;
      reject(error);
    };
    const onChunk = (chunk: Buffer): void => {
      received += chunk.length;
      if (received > bytesMax) fail(tooLarge(bytesMax, received));
      else chunks.push(chunk);
    };
    const onEnd = (): void => {
      stop();
      const [first] = chunks;
      resolve(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks, received));
    };
    request.on('data', onChunk).on('end', onEnd);
    exchange.onBroken(fail);
  });
}

function tooLarge(bytesMax: number, bytes: number): BulkheadError {
  return new BulkheadError('body_too_large', `the body may have ${bytesMax} bytes; this one has ${bytes} or more`, {
    details: { limit_bytes: bytesMax },
  });
}
