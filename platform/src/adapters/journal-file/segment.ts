import { closeSync, createReadStream, ftruncateSync, openSync, readdirSync, writeSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';

/** Reads at most this much at once; a longer line is no line of ours. */
export const lineBytesMax = 1_048_576;
const newline = 0x0a;

/** A finished file of the journal. */
export interface SealedSegment {
  readonly number: number;
  readonly path: string;
  readonly size: number;
}

/** Writes bytes, returns how many were written; `fs.writeSync`, or a test's failing disk. */
export type WriteBytes = (fd: number, bytes: Buffer) => number;

export const writeToDisk: WriteBytes = (fd, bytes) => writeSync(fd, bytes);

/** The file being written. Always a new file: bytes a crash tore off an older one can never end up inside a line. */
export class SegmentWriter implements SealedSegment {
  readonly number: number;
  readonly path: string;
  readonly #fd: number;
  readonly #write: WriteBytes;
  #size = 0;
  #isTorn = false;

  /** Throws when the file exists: another process is writing this journal. */
  constructor(directory: string, number: number, write: WriteBytes) {
    this.number = number;
    this.path = segmentPath(directory, number);
    this.#write = write;
    this.#fd = openSync(this.path, 'ax', 0o600);
  }

  /** Bytes of whole lines. */
  get size(): number {
    return this.#size;
  }

  /** Bytes that could not be taken back follow the last whole line: nothing may be appended any more. */
  get isTorn(): boolean {
    return this.#isTorn;
  }

  /** One write. When it fails, or stops half way on a full disk, the file is as before and the error is thrown. */
  append(line: Buffer): void {
    try {
      const written = this.#write(this.#fd, line);
      if (written !== line.length) throw new Error(`The disk took ${written} of ${line.length} bytes.`);
      this.#size += written;
    } catch (error) {
      this.#takeBack();
      throw error;
    }
  }

  seal(): SealedSegment {
    closeSync(this.#fd);
    return { number: this.number, path: this.path, size: this.#size };
  }

  #takeBack(): void {
    try {
      ftruncateSync(this.#fd, this.#size);
    } catch {
      this.#isTorn = true;
    }
  }
}

export function segmentPath(directory: string, number: number): string {
  return join(directory, `usage-${String(number).padStart(6, '0')}.log`);
}

/** Numbers of the segments in a directory, ascending. */
export function segmentNumbers(directory: string): readonly number[] {
  const numbers: number[] = [];
  for (const name of readdirSync(directory)) {
    const match = /^usage-(\d{6,12})\.log$/.exec(name);
    if (match) numbers.push(Number(match[1]));
  }
  return numbers.sort((left, right) => left - right);
}

export interface LineBatch {
  /** Whole lines without their newline, in order; a piece of 1 MiB without a newline counts as one. */
  readonly lines: readonly Buffer[];
  readonly nextOffset: number;
}

/** Reads whole lines between two offsets. No lines: what is left before `until`, if anything, has no end. */
export async function readLines(
  file: FileHandle,
  { from, until, linesMax }: { readonly from: number; readonly until: number; readonly linesMax: number },
): Promise<LineBatch> {
  const block = Buffer.allocUnsafe(Math.min(lineBytesMax, Math.max(0, until - from)));
  const { bytesRead } = await file.read(block, 0, block.length, from);
  const lines: Buffer[] = [];
  let start = 0;
  while (lines.length < linesMax) {
    const end = block.subarray(0, bytesRead).indexOf(newline, start);
    if (end < 0) break;
    lines.push(block.subarray(start, end));
    start = end + 1;
  }
  const isEndless = lines.length === 0 && bytesRead === lineBytesMax;
  return isEndless ? { lines: [block], nextOffset: from + bytesRead } : { lines, nextOffset: from + start };
}

/** Whole lines from an offset to the end of a file. */
export async function countLines(path: string, from: number): Promise<number> {
  const file = await open(path, 'r');
  try {
    const block = Buffer.allocUnsafe(lineBytesMax);
    let count = 0;
    for (let offset = from; ; ) {
      const { bytesRead } = await file.read(block, 0, block.length, offset);
      if (bytesRead === 0) return count;
      for (let at = block.indexOf(newline); at >= 0 && at < bytesRead; at = block.indexOf(newline, at + 1)) count++;
      offset += bytesRead;
    }
  } finally {
    await file.close();
  }
}

/** How often `mark` is in a file; 0 when it was deleted meanwhile. */
export async function countMarks(path: string, mark: Buffer): Promise<number> {
  let count = 0;
  let rest: Buffer = Buffer.alloc(0);
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: lineBytesMax })) {
      const block = Buffer.concat([rest, chunk as Buffer]);
      for (let at = block.indexOf(mark); at >= 0; at = block.indexOf(mark, at + mark.length)) count++;
      // Shorter than the mark, so that none is counted twice.
      rest = block.subarray(Math.max(0, block.length - mark.length + 1));
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return count;
}
