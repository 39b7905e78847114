/** The slow side of the strict parser: says where in the body a fault is. Runs once, for a body that is refused. */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { ErrorCode } from '../errors/catalogue.ts';

export interface FaultPosition {
  readonly body: Buffer;
  /** Byte where the faulty token starts; everything before it is well-formed. */
  readonly position: number;
  /** `top` names the top-level field only: for limits, whose exact place says nothing. */
  readonly part: 'whole' | 'top';
}

export function jsonError(code: ErrorCode, message: string, fault?: FaultPosition): BulkheadError {
  const param = fault === undefined ? undefined : paramAt(fault);
  return new BulkheadError(code, message, param === undefined ? {} : { param });
}

/** The error for the first key that an object has twice. */
export function duplicateKeyIn(body: Buffer): BulkheadError {
  const walk = new Walk(body);
  for (let token = walk.next(); token !== undefined; token = walk.next()) {
    if (token.duplicate) return new BulkheadError('invalid_json', 'the body has the same key twice', { param: dotted(walk.path()) });
  }
  return new BulkheadError('invalid_json', 'the body has the same key twice');
}

function paramAt({ body, position, part }: FaultPosition): string | undefined {
  const walk = new Walk(body.subarray(0, position));
  while (walk.next() !== undefined);
  // A key at fault names itself; it is cut off before it is read.
  const path = walk.path();
  const shown = part === 'top' ? path.slice(0, 1) : path;
  return shown.length === 0 ? undefined : dotted(shown);
}

const segmentCharactersMax = 64;
const pathCharactersMax = 256;

/** Keys are the client's text: each is cut, and the whole too. */
export function dotted(path: readonly (string | number)[]): string {
  const text = path.map((segment) => String(segment).slice(0, segmentCharactersMax)).join('.');
  return text.length <= pathCharactersMax ? text : `${text.slice(0, pathCharactersMax - 1)}…`;
}

interface Frame {
  readonly keys: Set<string> | undefined;
  segment: string | number | undefined;
}

/** Reads the tokens of well-formed JSON (or a well-formed beginning of it), keeping the path of the current one. */
class Walk {
  readonly #body: Buffer;
  readonly #frames: Frame[] = [];
  #position = 0;
  #expectsKey = false;

  constructor(body: Buffer) {
    this.#body = body;
  }

  path(): (string | number)[] {
    return this.#frames.flatMap((frame) => (frame.segment === undefined ? [] : [frame.segment]));
  }

  next(): { readonly duplicate: boolean } | undefined {
    const byte = this.#body[this.#position];
    if (byte === undefined) return undefined;
    const character = String.fromCharCode(byte);
    if (character === '"') return { duplicate: this.#readString() };
    this.#position++;
    const frame = this.#frames.at(-1);
    if (character === '{') this.#open({ keys: new Set(), segment: undefined });
    else if (character === '[') this.#open({ keys: undefined, segment: 0 });
    else if (character === '}' || character === ']') this.#frames.pop();
    else if (character === ',' && frame !== undefined) this.#nextMember(frame);
    return { duplicate: false };
  }

  #open(frame: Frame): void {
    this.#frames.push(frame);
    this.#expectsKey = frame.keys !== undefined;
  }

  #nextMember(frame: Frame): void {
    if (typeof frame.segment === 'number') frame.segment++;
    else frame.segment = undefined;
    this.#expectsKey = frame.keys !== undefined;
  }

  /** True when it was a key that its object already has. */
  #readString(): boolean {
    const start = this.#position++;
    while (this.#position < this.#body.length && this.#body[this.#position] !== 0x22)
      this.#position += this.#body[this.#position] === 0x5c ? 2 : 1;
    this.#position++;
    const frame = this.#frames.at(-1);
    if (!this.#expectsKey || frame?.keys === undefined || this.#position > this.#body.length) return false;
    this.#expectsKey = false;
    const key: string = JSON.parse(this.#body.toString('utf8', start, this.#position));
    frame.segment = key;
    if (frame.keys.has(key)) return true;
    frame.keys.add(key);
    return false;
  }
}
