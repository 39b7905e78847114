/**
 * Which rows hold a word, and how often. Everything is in typed arrays, a few a store, whatever the number of words: a heap object a word made the thread's
 * garbage collections walk through all words of all tenants, a third of a second each (docs/rfd/0010-resident-partitions.md).
 *
 * Words are numbered as they come. A table of open addressing finds a word's number; its first posting stands beside the number, because most words are in one
 * row, and the others in runs, each 1.5 times as long as all before it.
 */
import { assert } from '../../primitives/assert.ts';
import { type HalfSipKey, halfSipHash } from '../../primitives/half-sip-hash.ts';

/** PostgreSQL keeps at most 256 positions of a word. */
const frequencyRange = 512;
export const rowsMax = 2 ** 32 / frequencyRange;

/** Whoever writes the documents chooses the words, and must not find ones that share a place in the table. */
const [key0 = 0, key1 = 0] = crypto.getRandomValues(new Uint32Array(2));
const hashKey: HalfSipKey = [key0, key1];

/** PostgreSQL's lexemes are shorter than 2,048 bytes. */
const wordBytesMax = 2_048;
const wordsFirst = 16;
/** Of the table's places. */
const loadMax = 0.7;
const runFirst = 3;
/** Before a run's postings: where the next run is (in the last one: how many postings it has), and how many fit. */
const runHead = 2;
const encoder = new TextEncoder();
const decoder = new TextDecoder();
/** The word that is looked for, as UTF-8. */
const scratch = new Uint8Array(3 * wordBytesMax);

export class WordIndex {
  #count = 0;
  /** By place: the word's number + 1, or 0. */
  #table = new Uint32Array(wordsFirst * 2);
  /** UTF-8 of the words, one behind the other; word n ends at `#ends[n]`. */
  #text = new Uint8Array(wordsFirst * 8);
  #ends = new Uint32Array(wordsFirst);
  #first = new Uint32Array(wordsFirst);
  /** Postings of a word, the first included. */
  #lengths = new Uint32Array(wordsFirst);
  /** Its first and its last run in `#runs`; 0: none. */
  #heads = new Uint32Array(wordsFirst);
  #tails = new Uint32Array(wordsFirst);
  #runs = new Uint32Array(wordsFirst);
  #runsEnd = 1;

  get bytes(): number {
    const arrays = [this.#table, this.#text, this.#ends, this.#first, this.#lengths, this.#heads, this.#tails, this.#runs];
    return arrays.reduce((sum, array) => sum + array.byteLength, 0);
  }

  add(word: string, row: number, frequency: number): void {
    assert(row < rowsMax && frequency < frequencyRange, 'a posting fits its 32 bits');
    const posting = row * frequencyRange + frequency;
    const length = encode(word);
    const place = this.#placeOf(length);
    const number = (this.#table[place] as number) - 1;
    if (number >= 0) this.#append(number, posting);
    else this.#begin(place, length, posting);
  }

  /** In the order in which they were added. */
  visit(word: string, see: (row: number, frequency: number) => void): void {
    const number = (this.#table[this.#placeOf(encode(word))] as number) - 1;
    if (number >= 0) this.#visitNumber(number, see);
  }

  /** The same words with rows renumbered; a row that becomes -1 is left out. */
  renumbered(rowOf: Int32Array): WordIndex {
    const index = new WordIndex();
    for (let number = 0; number < this.#count; number++) {
      const word = decoder.decode(this.#text.subarray(this.#startOf(number), this.#ends[number]));
      this.#visitNumber(number, (row, frequency) => {
        const moved = rowOf[row] as number;
        if (moved >= 0) index.add(word, moved, frequency);
      });
    }
    return index;
  }

  #visitNumber(number: number, see: (row: number, frequency: number) => void): void {
    const first = this.#first[number] as number;
    see(first >>> 9, first & 511);
    let left = (this.#lengths[number] as number) - 1;
    for (let run = this.#heads[number] as number; left > 0; run = this.#runs[run] as number) {
      const end = run + runHead + Math.min(left, this.#runs[run + 1] as number);
      for (let at = run + runHead; at < end; at++) {
        const posting = this.#runs[at] as number;
        see(posting >>> 9, posting & 511);
      }
      left -= this.#runs[run + 1] as number;
    }
  }

  /** Where the word in `scratch` is in the table, or belongs. */
  #placeOf(length: number): number {
    const mask = this.#table.length - 1;
    let place = halfSipHash(hashKey, scratch, length) & mask;
    for (;;) {
      const number = (this.#table[place] as number) - 1;
      if (number < 0 || this.#isWord(number, length)) return place;
      place = (place + 1) & mask;
    }
  }

  #isWord(number: number, length: number): boolean {
    const start = this.#startOf(number);
    if ((this.#ends[number] as number) - start !== length) return false;
    for (let at = 0; at < length; at++) if (this.#text[start + at] !== scratch[at]) return false;
    return true;
  }

  #startOf(number: number): number {
    return number === 0 ? 0 : (this.#ends[number - 1] as number);
  }

  #begin(place: number, length: number, posting: number): void {
    const number = this.#count++;
    if (number === this.#ends.length) this.#widen();
    const start = this.#startOf(number);
    if (start + length > this.#text.length) this.#text = grown(this.#text, start + length);
    this.#text.set(scratch.subarray(0, length), start);
    this.#ends[number] = start + length;
    this.#first[number] = posting;
    this.#lengths[number] = 1;
    this.#table[place] = number + 1;
    if (this.#count > this.#table.length * loadMax) this.#spread();
  }

  #append(number: number, posting: number): void {
    const tail = this.#tails[number] as number;
    const isFull = tail === 0 || this.#runs[tail] === this.#runs[tail + 1];
    const run = isFull ? this.#newRun(number, tail) : tail;
    const used = this.#runs[run] as number;
    this.#runs[run + runHead + used] = posting;
    this.#runs[run] = used + 1;
    this.#lengths[number] = (this.#lengths[number] as number) + 1;
  }

  #newRun(number: number, tail: number): number {
    const capacity = Math.max(runFirst, (this.#lengths[number] as number) >> 1);
    const run = this.#runsEnd;
    this.#runsEnd += runHead + capacity;
    if (this.#runsEnd > this.#runs.length) this.#runs = grown(this.#runs, this.#runsEnd);
    this.#runs[run + 1] = capacity;
    if (tail === 0) this.#heads[number] = run;
    else this.#runs[tail] = run;
    this.#tails[number] = run;
    return run;
  }

  #widen(): void {
    const length = this.#count;
    this.#ends = grown(this.#ends, length);
    this.#first = grown(this.#first, length);
    this.#lengths = grown(this.#lengths, length);
    this.#heads = grown(this.#heads, length);
    this.#tails = grown(this.#tails, length);
  }

  #spread(): void {
    this.#table = new Uint32Array(this.#table.length * 2);
    for (let number = 0; number < this.#count; number++) {
      const start = this.#startOf(number);
      const length = (this.#ends[number] as number) - start;
      scratch.set(this.#text.subarray(start, start + length));
      this.#table[this.#placeOf(length)] = number + 1;
    }
  }
}

/** Into `scratch`; its length in bytes. */
function encode(word: string): number {
  const { read, written } = encoder.encodeInto(word, scratch);
  assert(read === word.length, 'a word is shorter than PostgreSQL’s lexemes may be');
  return written;
}

/** A quarter longer, and at least as long as is needed. */
function grown<Numbers extends Uint8Array | Uint32Array>(from: Numbers, needed: number): Numbers {
  const to = new (from.constructor as new (length: number) => Numbers)(Math.max(needed, Math.ceil(from.length * 1.25)));
  to.set(from);
  return to;
}
