/**
 * Dot products of one question with a run of stored vectors, 4 numbers an instruction (WebAssembly SIMD, in every Node 24). The module is 300 bytes and
 * written out here, because an assembler or a native addon would be a dependency for one loop; measured against both in docs/rfd/0010-resident-partitions.md.
 *
 * Separate multiplications and additions in a fixed order, so a product is the same on every machine. Two rows at a time share the loads of the question.
 */
import { assert } from '../../primitives/assert.ts';

export interface DotKernel {
  readonly memory: WasmMemory;
  /**
   * Writes `count` float32 products to `out`. Addresses are bytes in `memory`, multiples of 4; rows lie one behind the other, `rowBytes` long each, a
   * multiple of 64; `count` is even (an odd run ends with a row that is computed and not used).
   */
  dots(rows: number, count: number, rowBytes: number, question: number, out: number): void;
}

export interface WasmMemory {
  /** Another one after every `grow`. */
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

/** The part of the WebAssembly API that is used: Node has it, the types of Node do not. */
interface Wasm {
  readonly Memory: new (pages: { readonly initial: number; readonly maximum: number }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: Readonly<Record<string, unknown>> };
}
const wasm = (globalThis as unknown as { readonly WebAssembly: Wasm }).WebAssembly;

export const pageBytes = 65_536;

/** Memory that starts small and may grow to `pagesMax` pages of 64 KiB. */
export function createDotKernel(pagesMax: number): DotKernel {
  assert(pagesMax > 0 && pagesMax <= 65_536, 'WebAssembly addresses 4 GiB');
  const memory = new wasm.Memory({ initial: 1, maximum: pagesMax });
  const { exports } = new wasm.Instance(new wasm.Module(Uint8Array.from(moduleBytes())), { resident: { memory } });
  return { memory, dots: exports['dots'] as DotKernel['dots'] };
}

// ---------------------------------------------------------------- the module, in the binary format of the WebAssembly specification, section 5

/** Parameters, then locals: addresses that move, the end of the question, and two accumulators for each of two rows. */
const rows = 0;
const count = 1;
const rowBytes = 2;
const question = 3;
const out = 4;
const asked = 5;
const first = 6;
const second = 7;
const end = 8;
const sums = [9, 10, 11, 12] as const;

const i32 = 0x7f;
const v128 = 0x7b;
const blockOfNothing = 0x40;

function moduleBytes(): number[] {
  const signature = [1, 0x60, 5, i32, i32, i32, i32, i32, 0];
  const memory = [1, ...name('resident'), ...name('memory'), 2, 1, 1, ...unsigned(65_536)];
  const body = [2, 4, i32, 4, v128, ...instructions(), 0x0b];
  return bytes(
    [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    section(1, signature),
    section(2, memory),
    section(3, [1, 0]),
    section(7, [1, ...name('dots'), 0, 0]),
    section(10, [1, ...unsigned(body.length), ...body]),
  );
}

/** For every two rows: add up products 8 numbers at a time in two accumulators a row, then their lanes, then store both sums. */
function instructions(): number[] {
  return bytes(
    [0x03, blockOfNothing],
    [...get(rows), ...set(first)],
    [...get(rows), ...get(rowBytes), 0x6a, ...set(second)],
    [...get(question), ...set(asked)],
    [...get(question), ...get(rowBytes), 0x6a, ...set(end)],
    ...sums.map((sum) => [...zero, ...set(sum)]),
    [0x03, blockOfNothing],
    ...[0, 16, 32, 48].map((offset) => [
      ...multiplyAdd(first, offset, sums[(offset / 16) % 2] as number),
      ...multiplyAdd(second, offset, sums[2 + ((offset / 16) % 2)] as number),
    ]),
    ...[first, second, asked].map((address) => [...get(address), 0x41, ...signed(64), 0x6a, ...set(address)]),
    [...get(asked), ...get(end), 0x49, 0x0d, 0, 0x0b],
    storeSum(sums[0], sums[1], 0),
    storeSum(sums[2], sums[3], 4),
    [...get(out), 0x41, ...signed(8), 0x6a, ...set(out)],
    [...get(second), ...set(rows)],
    [...get(count), 0x41, ...signed(2), 0x6b, 0x22, count, 0x41, 0, 0x4a, 0x0d, 0, 0x0b],
  );
}

const zero = [0xfd, 0x0c, ...Array.from({ length: 16 }, () => 0)];

/** `sum += row[offset] * question[offset]`, four lanes. */
function multiplyAdd(row: number, offset: number, sum: number): number[] {
  const load = (address: number) => [...get(address), 0xfd, 0x00, 2, offset];
  return [...get(sum), ...load(row), ...load(asked), 0xfd, 0xe6, 0x01, 0xfd, 0xe4, 0x01, ...set(sum)];
}

/** Adds two accumulators and then their four lanes, and stores the sum at `out + offset`. */
function storeSum(left: number, right: number, offset: number): number[] {
  const lane = (index: number) => [...get(left), 0xfd, 0x1f, index];
  return bytes(
    [...get(left), ...get(right), 0xfd, 0xe4, 0x01, ...set(left)],
    get(out),
    [...lane(0), ...lane(1), 0x92, ...lane(2), ...lane(3), 0x92, 0x92],
    [0x38, 2, offset],
  );
}

function bytes(...parts: readonly (readonly number[])[]): number[] {
  return parts.flat();
}

function get(local: number): number[] {
  return [0x20, local];
}

function set(local: number): number[] {
  return [0x21, local];
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...unsigned(content.length), ...content];
}

function name(text: string): number[] {
  return [text.length, ...Buffer.from(text)];
}

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}

/** LEB128 of a small number that is not negative: one more byte where the sign bit would be read as minus. */
function signed(value: number): number[] {
  return value < 64 ? [value] : [(value & 127) | 128, value >> 7];
}
