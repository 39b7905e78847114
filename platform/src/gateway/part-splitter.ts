/**
 * Cuts a `multipart/form-data` body into its parts as it arrives (RFC 2046 section 5.1). Every part must be closed, and nothing may stand before the
 * first or after the last. Holds at most a chunk, a part's header and a delimiter.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { dotted } from './json-fault.ts';

const partHeaderBytesMax = 8_192;
const crlf = Buffer.from('\r\n');
const headerEnd = Buffer.from('\r\n\r\n');

/** What was pushed may be a view of the chunk: use it before the next one. */
export type PartEvent =
  | { readonly kind: 'head'; readonly head: Buffer }
  | { readonly kind: 'content'; readonly bytes: Buffer }
  | { readonly kind: 'end' };

export class PartSplitter {
  readonly #delimiter: Buffer;
  #mode: 'opening' | 'delimited' | 'head' | 'content' | 'closed' = 'opening';
  #rest: Buffer = Buffer.alloc(0);
  /** Bytes of the rest that end the header and not begin the content: a delimiter may follow a header at once. */
  #headerBytes = 0;

  constructor(boundary: string) {
    this.#delimiter = Buffer.from(`\r\n--${boundary}`);
  }

  /** Throws `invalid_multipart`. Must be iterated to its end. */
  *push(chunk: Buffer): Generator<PartEvent> {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (let isStuck = false; !isStuck; ) {
      switch (this.#mode) {
        case 'opening':
          isStuck = !this.#open();
          break;
        case 'delimited':
          isStuck = !this.#passDelimiter();
          break;
        case 'head':
          isStuck = !(yield* this.#readHead());
          break;
        case 'content':
          isStuck = !(yield* this.#readContent());
          break;
        case 'closed':
          if (this.#rest.length > crlf.length) throw invalid('something follows the last boundary');
          isStuck = true;
          break;
        default:
          this.#mode satisfies never;
      }
    }
  }

  /** The body has ended. Throws `invalid_multipart` where it should not have. */
  finish(): void {
    if (this.#mode === 'opening') throw invalid('the body does not begin with the boundary');
    if (this.#mode !== 'closed') throw invalid('the body ends inside a part');
    if (this.#rest.length > 0 && !this.#rest.equals(crlf)) throw invalid('something follows the last boundary');
  }

  #open(): boolean {
    const opening = this.#delimiter.subarray(crlf.length);
    if (this.#rest.length < this.#delimiter.length) return false;
    const start = this.#rest.subarray(0, crlf.length).equals(crlf) ? crlf.length : 0;
    if (!this.#rest.subarray(start, start + opening.length).equals(opening)) throw invalid('the body does not begin with the boundary');
    return this.#advance(start + opening.length, 'delimited');
  }

  #passDelimiter(): boolean {
    if (this.#rest.length < crlf.length) return false;
    if (this.#rest[0] === 0x2d && this.#rest[1] === 0x2d) return this.#advance(2, 'closed');
    if (this.#rest[0] === 0x0d && this.#rest[1] === 0x0a) return this.#advance(2, 'head');
    throw invalid('the boundary occurs in the content or is not followed by a line end');
  }

  *#readHead(): Generator<PartEvent, boolean> {
    const within = this.#rest.subarray(0, partHeaderBytesMax + headerEnd.length);
    const stop = within.indexOf(headerEnd);
    if (stop === -1) {
      if (within.length < partHeaderBytesMax + headerEnd.length) return false;
      throw invalid(`the header of a part does not end within ${partHeaderBytesMax} bytes`);
    }
    yield { kind: 'head', head: this.#rest.subarray(0, stop) };
    this.#headerBytes = crlf.length;
    return this.#advance(stop + headerEnd.length - crlf.length, 'content');
  }

  *#readContent(): Generator<PartEvent, boolean> {
    const stop = this.#rest.indexOf(this.#delimiter);
    const contentEnd = stop === -1 ? this.#rest.length - this.#delimiter.length + 1 : stop;
    if (contentEnd > this.#headerBytes) {
      yield { kind: 'content', bytes: this.#rest.subarray(this.#headerBytes, contentEnd) };
      this.#headerBytes = 0;
      this.#rest = this.#rest.subarray(contentEnd);
    }
    if (stop === -1) return false;
    yield { kind: 'end' };
    return this.#advance(this.#rest.indexOf(this.#delimiter) + this.#delimiter.length, 'delimited');
  }

  #advance(bytes: number, mode: 'delimited' | 'head' | 'content' | 'closed'): true {
    this.#rest = this.#rest.subarray(bytes);
    this.#mode = mode;
    return true;
  }
}

export function invalid(message: string, name?: string): BulkheadError {
  return new BulkheadError('invalid_multipart', message, name === undefined ? {} : { param: dotted([name]) });
}
