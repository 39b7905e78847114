/**
 * Amazon Bedrock's Converse API as its documentation has it, on top of a scripted HTTP server. Streams are frames of
 * `application/vnd.amazon.eventstream`: length, length of headers, CRC-32, headers, payload, CRC-32 (smithy.io, "Amazon Event Stream").
 */
import type { ServerResponse } from 'node:http';
import { crc32 } from 'node:zlib';

export const bedrockSecret = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY';

export function beginBedrock(response: ServerResponse): void {
  const headers = { 'content-type': 'application/vnd.amazon.eventstream', 'x-amzn-requestid': 'b3c5' };
  response.writeHead(200, headers).flushHeaders();
}

/** One event, or an exception in the middle of a stream. */
export function bedrockFrame(name: string, payload: unknown, kind: 'event' | 'exception' = 'event'): Buffer {
  const headers = Buffer.concat([
    header(':message-type', kind),
    header(kind === 'event' ? ':event-type' : ':exception-type', name),
    header(':content-type', 'application/json'),
  ]);
  const body = Buffer.from(JSON.stringify(payload));
  const prelude = Buffer.alloc(12);
  prelude.writeUInt32BE(16 + headers.length + body.length, 0);
  prelude.writeUInt32BE(headers.length, 4);
  prelude.writeUInt32BE(crc32(prelude.subarray(0, 8)), 8);
  const message = Buffer.concat([prelude, headers, body]);
  const end = Buffer.alloc(4);
  end.writeUInt32BE(crc32(message), 0);
  return Buffer.concat([message, end]);
}

/** A header of the type 7, a string. */
function header(name: string, value: string): Buffer {
  const length = Buffer.alloc(3);
  length.writeUInt8(7, 0);
  length.writeUInt16BE(Buffer.byteLength(value), 1);
  return Buffer.concat([Buffer.from([Buffer.byteLength(name)]), Buffer.from(name), length, Buffer.from(value)]);
}
