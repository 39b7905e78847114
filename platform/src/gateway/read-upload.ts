/** Reads an upload to disk as it arrives: the client is held back while the disk is behind, and little of it is ever in memory. */
import type { UploadSpool } from '../tenancy/upload-spool.ts';
import type { BodyBudget } from './body-budget.ts';
import type { Upload } from './exchange.ts';
import { uploadOverheadBytes, uploadWindowBytes } from './gateway-bounds.ts';
import { boundaryOf, IncomingUpload } from './multipart.ts';
import type { OpenExchange } from './open-exchange.ts';
import { bodyTooLarge } from './read-body.ts';

export interface UploadLimits {
  readonly fileBytesMax: number;
  /** Of memory: what is held of an upload while it is read. */
  readonly bodies: BodyBudget;
  /** Of disk. What is taken counts in `exchange.spooledBytes`, as that of memory does in `exchange.bodyBytes`. */
  readonly spooled: BodyBudget;
  readonly spool: UploadSpool;
}

/**
 * The parts, the file of them on disk until the exchange was served. Rejects like `readBody`, with what `IncomingUpload` throws, and with
 * `capacity_unavailable` when too much is on disk already.
 */
export async function readUpload(exchange: OpenExchange, limits: UploadLimits): Promise<Upload> {
  const { request, response } = exchange;
  const boundary = boundaryOf(request.headers['content-type']);
  const bytesMax = limits.fileBytesMax + uploadOverheadBytes;
  const declared = Number(request.headers['content-length'] ?? 0);
  const tenantId = exchange.openedScope?.tenantId;
  if (declared > bytesMax) throw bodyTooLarge(bytesMax, declared);
  limits.spooled.assertRoom(tenantId, declared);
  limits.bodies.take(tenantId, uploadWindowBytes);
  exchange.bodyBytes += uploadWindowBytes;
  const incoming = new IncomingUpload({ boundary, spool: limits.spool, fileBytesMax: limits.fileBytesMax });
  exchange.onServed(incoming);
  if (request.headers.expect !== undefined) response.writeContinue();
  let received = 0;
  await eachChunk(exchange, (chunk) => {
    received += chunk.length;
    if (received > bytesMax) throw bodyTooLarge(bytesMax, received);
    limits.spooled.take(tenantId, chunk.length);
    exchange.spooledBytes += chunk.length;
    return incoming.push(chunk);
  });
  return incoming.finish();
}

/** Calls `take` with one chunk after the other, never two at a time. Rejects with what it throws, or with a fault of the transport. */
function eachChunk(exchange: OpenExchange, take: (chunk: Buffer) => Promise<void>): Promise<void> {
  const { request } = exchange;
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      exchange.onBroken(undefined);
      request.off('data', onChunk).off('end', onEnd);
    };
    const fail = (error: unknown): void => {
      stop();
      reject(error as Error);
    };
    let taken: Promise<void> = Promise.resolve();
    const onChunk = (chunk: Buffer): void => {
      request.pause();
      taken = Promise.try(take, chunk);
      taken.then(() => request.resume(), fail);
    };
    // A paused stream may end while its last chunk is being taken.
    const onEnd = (): void => {
      taken.then(() => {
        stop();
        resolve();
      }, fail);
    };
    request.on('data', onChunk).on('end', onEnd);
    exchange.onBroken(fail);
  });
}
