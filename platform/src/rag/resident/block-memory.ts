/**
 * Vectors of all partitions, in blocks of one size, so that memory never splinters. A block belongs to one partition, and is emptied before another may
 * have it. Page 0 is the kernel's desk: the question and the products of one block.
 */
import { assert } from '../../primitives/assert.ts';
import { createDotKernel, type DotKernel, pageBytes } from './dot-kernel.ts';

/** A whole, even number of rows of every dimension there is a table for: 32 of 384, 16 of 768, 12 of 1,024, 8 of 1,536, 4 of 3,072. */
export const blockBytes = 49_152;
const outAddress = 16_384;

export class BlockMemory {
  readonly #kernel: DotKernel;
  readonly #blocksMax: number;
  readonly #free: number[] = [];
  #taken = 0;
  #end = pageBytes;
  #numbers: Float32Array;

  constructor(bytesMax: number) {
    this.#blocksMax = Math.floor(bytesMax / blockBytes);
    const pages = 2 + Math.ceil((this.#blocksMax * blockBytes) / pageBytes);
    this.#kernel = createDotKernel(pages);
    this.#numbers = new Float32Array(this.#kernel.memory.buffer);
  }

  get takenBytes(): number {
    return this.#taken * blockBytes;
  }

  /** The address of an empty block. Throws `BlocksExhausted`. */
  take(): number {
    if (this.#taken === this.#blocksMax) throw new BlocksExhausted('every block is taken');
    const address = this.#free.pop() ?? this.#extend();
    this.#taken++;
    return address;
  }

  give(address: number): void {
    this.numbersAt(address, blockBytes / 4).fill(0);
    this.#free.push(address);
    this.#taken--;
  }

  /** A view of numbers at an address, valid until the next `take`. */
  numbersAt(address: number, count: number): Float32Array {
    return this.#numbers.subarray(address / 4, address / 4 + count);
  }

  ask(question: Float32Array): void {
    assert(question.byteLength <= outAddress, 'a question fits the desk');
    this.#numbers.set(question, 0);
  }

  /** Products of the question with the first rows of a block, valid until the next call. */
  products(address: number, rows: number, rowBytes: number): Float32Array {
    this.#kernel.dots(address, rows + (rows % 2), rowBytes, 0, outAddress);
    return this.numbersAt(outAddress, rows);
  }

  #extend(): number {
    const address = this.#end;
    this.#end += blockBytes;
    const missing = this.#end - this.#kernel.memory.buffer.byteLength;
    if (missing > 0) {
      // 1 MiB at a time: growing makes new views.
      const size = this.#kernel.memory.buffer.byteLength / pageBytes;
      const wanted = Math.max(16, Math.ceil(missing / pageBytes));
      const pagesMax = 2 + Math.ceil((this.#blocksMax * blockBytes) / pageBytes);
      this.#kernel.memory.grow(Math.min(wanted, pagesMax - size));
      this.#numbers = new Float32Array(this.#kernel.memory.buffer);
    }
    return address;
  }
}

export class BlocksExhausted extends Error {}
