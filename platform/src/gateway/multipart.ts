/**
 * `multipart/form-data` uploads as OpenAI's clients send them: one file named `file` and a few text fields (RFC 7578, RFC 2046).
 * Parses the body as a whole: it is in memory anyway, searching it for the boundary is linear, and every part is a view, not a copy.
 * Stricter than a browser form needs: what two parsers could read differently is refused.
 */
import { isUtf8 } from 'node:buffer';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Upload } from './exchange.ts';
import { dotted } from './json-fault.ts';
import { dispositionOf, safeFilename } from './part-header.ts';

const fieldsMax = 20;
const fieldBytesMax = 65_536;
const fieldNameCharactersMax = 128;
const partHeaderBytesMax = 8_192;
const crlf = Buffer.from('\r\n');
const headerEnd = Buffer.from('\r\n\r\n');

/** The boundary of a multipart content type. Throws `unsupported_media_type` for another type, `invalid_multipart` without a usable boundary. */
export function boundaryOf(contentType: string | undefined): string {
  const type = contentType ?? '';
  if (!/^multipart\/form-data\s*(?:;|$)/i.test(type)) {
    throw new BulkheadError('unsupported_media_type', 'the content type must be multipart/form-data');
  }
  const match = /;\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))(?=\s*(?:;|$))/i.exec(type.slice(0, 512));
  const boundary = match?.[1] ?? match?.[2];
  if (boundary === undefined || !/^[0-9A-Za-z'()+_,\-./:=? ]*[0-9A-Za-z'()+_,\-./:=?]$/.test(boundary)) {
    throw invalid('the content type has no boundary of 1 to 70 characters');
  }
  return boundary;
}

/**
 * The file and the fields. Throws `invalid_multipart` (framing, too many parts, a second file, a repeated name), `body_too_large` for a
 * file over `fileBytesMax`, `invalid_value`, `invalid_encoding` and `invalid_string` for a field.
 */
export function parseUpload(body: Buffer, boundary: string, fileBytesMax: number): Upload {
  const fields: Record<string, string> = Object.create(null);
  let file: Upload['file'];
  let fieldCount = 0;
  for (const part of partsOf(body, boundary)) {
    const { name, filename, contentType } = partFacts(part.head);
    if (filename === undefined) {
      if (++fieldCount > fieldsMax) throw invalid(`an upload may have ${fieldsMax} fields; this one has more`);
      if (name in fields) throw invalid('a field was sent twice', name);
      fields[name] = fieldText(name, part.content);
      continue;
    }
    if (file !== undefined) throw invalid('an upload may have one file; this one has more', name);
    if (name !== 'file') throw invalid('the file must be in the part named file', name);
    if (part.content.length > fileBytesMax) throw fileTooLarge(part.content.length, fileBytesMax);
    file = { filename, contentType, body: part.content };
  }
  return { fields, file };
}

interface Part {
  readonly head: Buffer;
  readonly content: Buffer;
}

/** Splits at the delimiters; every part must be closed, and nothing may stand before the first or after the last. */
function* partsOf(body: Buffer, boundary: string): Generator<Part> {
  const delimiter = Buffer.from(`\r\n--${boundary}`);
  const opening = delimiter.subarray(2);
  let position = body.subarray(0, 2).equals(crlf) ? 2 : 0;
  if (!body.subarray(position, position + opening.length).equals(opening)) throw invalid('the body does not begin with the boundary');
  position += opening.length;
  while (!isClosing(body, position)) {
    const headStart = afterDelimiter(body, position);
    const headStop = body.subarray(headStart, headStart + partHeaderBytesMax + headerEnd.length).indexOf(headerEnd);
    if (headStop === -1) throw invalid(`the header of a part does not end within ${partHeaderBytesMax} bytes`);
    const contentStart = headStart + headStop + headerEnd.length;
    const contentEnd = body.indexOf(delimiter, contentStart - crlf.length);
    if (contentEnd === -1) throw invalid('the body ends inside a part');
    yield {
      head: body.subarray(headStart, headStart + headStop),
      content: body.subarray(contentStart, Math.max(contentStart, contentEnd)),
    };
    position = contentEnd + delimiter.length;
  }
}

/** True at the last delimiter's `--`; at most one line end may follow. */
function isClosing(body: Buffer, position: number): boolean {
  if (body[position] !== 0x2d || body[position + 1] !== 0x2d) return false;
  const rest = body.subarray(position + 2);
  if (rest.length > 0 && !rest.equals(crlf)) throw invalid('something follows the last boundary');
  return true;
}

function afterDelimiter(body: Buffer, position: number): number {
  if (body[position] !== 0x0d || body[position + 1] !== 0x0a)
    throw invalid('the boundary occurs in the content or is not followed by a line end');
  return position + 2;
}

interface PartFacts {
  readonly name: string;
  readonly filename: string | undefined;
  readonly contentType: string;
}

function partFacts(head: Buffer): PartFacts {
  if (!isUtf8(head)) throw invalid('the header of a part is not UTF-8');
  const headers = headersOf(head.toString('utf8'));
  const disposition = dispositionOf(headers.get('content-disposition') ?? '');
  if (disposition === undefined) throw invalid('a part has no content-disposition of form-data with a name');
  const coding = headers.get('content-transfer-encoding') ?? 'binary';
  if (!/^(?:7bit|8bit|binary)$/i.test(coding)) throw invalid('a part has a content-transfer-encoding');
  const contentType = headers.get('content-type') ?? 'application/octet-stream';
  const { name, filename } = disposition;
  if (name.length > fieldNameCharactersMax || name === '__proto__') throw invalid('the name of a part is not accepted');
  return {
    name,
    filename: filename === undefined ? undefined : safeFilename(filename),
    contentType: /^[\x20-\x7e]{1,256}$/.test(contentType) ? contentType : 'application/octet-stream',
  };
}

function headersOf(head: string): ReadonlyMap<string, string> {
  const headers = new Map<string, string>();
  for (const line of head.split('\r\n')) {
    const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}):([^\r\n\0]*)$/.exec(line);
    const name = match?.[1]?.toLowerCase();
    if (name === undefined) throw invalid('a header line of a part is malformed');
    if (headers.has(name)) throw invalid('a header of a part was sent twice');
    headers.set(name, (match?.[2] ?? '').trim());
  }
  return headers;
}

function fieldText(name: string, content: Buffer): string {
  const param = dotted([name]);
  if (content.length > fieldBytesMax) {
    throw new BulkheadError('invalid_value', `a field may have ${fieldBytesMax} bytes; this one has ${content.length}`, { param });
  }
  if (!isUtf8(content)) throw new BulkheadError('invalid_encoding', 'the field is not UTF-8', { param });
  if (content.includes(0)) throw new BulkheadError('invalid_string', 'a field may not hold U+0000', { param });
  return content.toString('utf8');
}

function fileTooLarge(bytes: number, bytesMax: number): BulkheadError {
  return new BulkheadError('body_too_large', `the file may have ${bytesMax} bytes; this one has ${bytes}`, {
    param: 'file',
    details: { limit_bytes: bytesMax },
  });
}

function invalid(message: string, name?: string): BulkheadError {
  return new BulkheadError('invalid_multipart', message, name === undefined ? {} : { param: dotted([name]) });
}
