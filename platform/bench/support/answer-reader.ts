/**
 * Reads HTTP/1.1 answers from a connection with as little work as possible, so that the load generator is never what is measured.
 * Knows `content-length` and `chunked`; anything else is an error. Source: RFC 9112 sections 6 and 7.
 */
export interface AnswerSink {
  head?(status: number): void;
  body(part: Buffer): void;
  end(status: number): void;
}

type Mode = 'head' | 'length' | 'chunk-size' | 'chunk' | 'chunk-end' | 'trailer';

const headBytesMax = 65_536;
const lineEnd = Buffer.from('\r\n');
const headEnd = Buffer.from('\r\n\r\n');

export class AnswerReader {
  readonly #sink: AnswerSink;
  #mode: Mode = 'head';
  #status = 0;
  /** Bytes left of the body or of the chunk. */
  #left = 0;
  #pending: Buffer | undefined;

  constructor(sink: AnswerSink) {
    this.#sink = sink;
  }

  feed(received: Buffer): void {
    let bytes = this.#pending ? Buffer.concat([this.#pending, received]) : received;
    this.#pending = undefined;
    while (bytes.length > 0) {
      const taken = this.#take(bytes);
      if (taken < 0) {
        this.#pending = bytes;
        if (bytes.length > headBytesMax) throw new Error('the head of an answer is too large');
        return;
      }
      bytes = bytes.subarray(taken);
    }
  }

  /** Returns how many bytes were used; -1 when more must come first. */
  #take(bytes: Buffer): number {
    switch (this.#mode) {
      case 'head':
        return this.#takeHead(bytes);
      case 'length':
      case 'chunk':
        return this.#takeBody(bytes);
      case 'chunk-size':
        return this.#takeChunkSize(bytes);
      case 'chunk-end':
        this.#mode = 'chunk-size';
        return bytes.length < 2 ? this.#stayIn('chunk-end') : 2;
      case 'trailer':
        return bytes.length < 2 ? -1 : this.#finish(2);
      default:
        return this.#mode satisfies never;
    }
  }

  #takeHead(bytes: Buffer): number {
    const end = bytes.indexOf(headEnd);
    if (end < 0) return -1;
    const head = bytes.toString('latin1', 0, end);
    this.#status = Number(head.slice(9, 12));
    this.#sink.head?.(this.#status);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    this.#left = Number(length ?? 0);
    if (length === undefined && !/\r\ntransfer-encoding: *chunked/i.test(head)) throw new Error(`an answer without a length:\n${head}`);
    this.#mode = length === undefined ? 'chunk-size' : 'length';
    return this.#mode === 'length' && this.#left === 0 ? this.#finish(end + 4) : end + 4;
  }

  #takeBody(bytes: Buffer): number {
    const taken = Math.min(this.#left, bytes.length);
    this.#left -= taken;
    this.#sink.body(taken === bytes.length ? bytes : bytes.subarray(0, taken));
    if (this.#left > 0) return taken;
    if (this.#mode === 'length') return this.#finish(taken);
    this.#mode = 'chunk-end';
    return taken;
  }

  #takeChunkSize(bytes: Buffer): number {
    const end = bytes.indexOf(lineEnd);
    if (end < 0) return -1;
    this.#left = Number.parseInt(bytes.toString('latin1', 0, end), 16);
    this.#mode = this.#left === 0 ? 'trailer' : 'chunk';
    return end + 2;
  }

  #stayIn(mode: Mode): number {
    this.#mode = mode;
    return -1;
  }

  #finish(taken: number): number {
    this.#mode = 'head';
    this.#sink.end(this.#status);
    return taken;
  }
}
