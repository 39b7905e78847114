/**
 * `multipart/form-data` uploads as OpenAI's clients send them: one file named `file` and a few text fields (RFC 7578). The file goes to disk as it
 * arrives. Stricter than a browser form needs: what two parsers could read differently is refused.
 */
import { isUtf8 } from 'node:buffer';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { SpooledFile, UploadSpool } from '../tenancy/upload-spool.ts';
import type { Upload } from './exchange.ts';
import { dotted } from './json-fault.ts';
import { dispositionOf, safeFilename } from './part-header.ts';
import { invalid, type PartEvent, PartSplitter } from './part-splitter.ts';

const fieldsMax = 20;
const fieldBytesMax = 65_536;
/** Of all fields together: they are in memory. */
const fieldsBytesMax = 262_144;
const fieldNameCharactersMax = 128;

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

export interface UploadParts {
  readonly boundary: string;
  readonly spool: UploadSpool;
  readonly fileBytesMax: number;
}

type Part =
  | { readonly kind: 'field'; readonly name: string; readonly chunks: Buffer[]; bytes: number }
  | { readonly kind: 'file'; readonly filename: string; readonly contentType: string; readonly file: SpooledFile; bytes: number };

/** An upload while it arrives. Whoever made it disposes of it: its file is on disk until then, also when reading failed. */
export class IncomingUpload implements AsyncDisposable {
  readonly #parts: UploadParts;
  readonly #splitter: PartSplitter;
  readonly #fields: Record<string, string> = Object.create(null);
  #fieldCount = 0;
  #fieldBytes = 0;
  #part: Part | undefined;
  #spooled: SpooledFile | undefined;
  #file: Upload['file'];

  constructor(parts: UploadParts) {
    this.#parts = parts;
    this.#splitter = new PartSplitter(parts.boundary);
  }

  /**
   * Takes the next bytes of the body, one chunk at a time. Throws `invalid_multipart` (framing, too many parts, a second file, a repeated name),
   * `body_too_large` for a file over `fileBytesMax`, `invalid_value`, `invalid_encoding` and `invalid_string` for a field, and what the spool throws.
   */
  async push(chunk: Buffer): Promise<void> {
    for (const event of this.#splitter.push(chunk)) {
      const work = this.#take(event);
      if (work !== undefined) await work;
    }
  }

  /** The body has ended. */
  finish(): Upload {
    this.#splitter.finish();
    return { fields: this.#fields, file: this.#file };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#spooled?.[Symbol.asyncDispose]();
  }

  #take(event: PartEvent): Promise<void> | undefined {
    switch (event.kind) {
      case 'head':
        return this.#begin(event.head);
      case 'content':
        return this.#append(event.bytes);
      case 'end':
        this.#end();
        return undefined;
      default:
        return event satisfies never;
    }
  }

  #begin(head: Buffer): Promise<void> | undefined {
    const { name, filename, contentType } = partFacts(head);
    if (filename !== undefined) return this.#beginFile({ name, filename, contentType });
    if (++this.#fieldCount > fieldsMax) throw invalid(`an upload may have ${fieldsMax} fields; this one has more`);
    if (name in this.#fields) throw invalid('a field was sent twice', name);
    this.#part = { kind: 'field', name, chunks: [], bytes: 0 };
    return undefined;
  }

  async #beginFile({ name, filename, contentType }: PartFacts & { readonly filename: string }): Promise<void> {
    if (this.#spooled !== undefined) throw invalid('an upload may have one file; this one has more', name);
    if (name !== 'file') throw invalid('the file must be in the part named file', name);
    this.#spooled = await this.#parts.spool.open();
    this.#part = { kind: 'file', filename, contentType, file: this.#spooled, bytes: 0 };
  }

  #append(bytes: Buffer): Promise<void> | undefined {
    const part = this.#part;
    if (part === undefined) return undefined;
    part.bytes += bytes.length;
    if (part.kind === 'file') {
      const { fileBytesMax } = this.#parts;
      if (part.bytes > fileBytesMax) throw fileTooLarge(fileBytesMax);
      return part.file.write(bytes);
    }
    this.#fieldBytes += bytes.length;
    if (part.bytes > fieldBytesMax) throw fieldTooLarge(part.name);
    if (this.#fieldBytes > fieldsBytesMax) throw invalid(`the fields of an upload may have ${fieldsBytesMax} bytes together`);
    part.chunks.push(Buffer.from(bytes));
    return undefined;
  }

  #end(): void {
    const part = this.#part;
    this.#part = undefined;
    if (part?.kind === 'file') this.#file = { filename: part.filename, contentType: part.contentType, body: part.file.finish() };
    if (part?.kind === 'field') this.#fields[part.name] = fieldText(part.name, Buffer.concat(part.chunks));
  }
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
  if (!isUtf8(content)) throw new BulkheadError('invalid_encoding', 'the field is not UTF-8', { param });
  if (content.includes(0)) throw new BulkheadError('invalid_string', 'a field may not hold U+0000', { param });
  return content.toString('utf8');
}

function fieldTooLarge(name: string): BulkheadError {
  return new BulkheadError('invalid_value', `a field may have ${fieldBytesMax} bytes; this one has more`, { param: dotted([name]) });
}

export function fileTooLarge(bytesMax: number): BulkheadError {
  return new BulkheadError('body_too_large', `the file may have ${bytesMax} bytes; this one has more`, {
    param: 'file',
    details: { limit_bytes: bytesMax },
  });
}
