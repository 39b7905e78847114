import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

/** Everything before this place is in the ledger. */
export interface Checkpoint {
  readonly segment: number;
  readonly offset: number;
}

const start: Checkpoint = { segment: 0, offset: 0 };
const recordBytes = 80;

/**
 * Keeps the checkpoint in one file, as one self-checking record that is overwritten in place by one write: whole after `kill -9`, and
 * recognised when a power cut tore it. Replacing the file by renaming it would do the same for 0.12 ms (p99 3.5 ms on a busy disk) of
 * the event loop's time; this takes 5 µs (p99 45 µs).
 *
 * A checkpoint that is lost or too early is harmless, because the ledger skips what it has; so it is never synced.
 */
export class CheckpointFile {
  readonly #path: string;
  #fd: number | undefined;

  constructor(directory: string) {
    this.#path = join(directory, 'checkpoint');
  }

  /** The last checkpoint; the very beginning when there is none or it is damaged. */
  read(): Checkpoint {
    try {
      return parseRecord(readFileSync(this.#path, 'latin1')) ?? start;
    } catch {
      return start;
    }
  }

  /** Throws when the file cannot be written. */
  write(checkpoint: Checkpoint): void {
    this.#fd ??= openSync(this.#path, constants.O_RDWR | constants.O_CREAT, 0o600);
    const content = `${checkpoint.segment} ${checkpoint.offset}`;
    writeSync(this.#fd, `${checksum(content)} ${content}`.padEnd(recordBytes - 1).concat('\n'), 0, 'latin1');
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function parseRecord(record: string): Checkpoint | undefined {
  const match = /^([0-9a-f]{8}) ((\d{1,12}) (\d{1,15})) *\n$/.exec(record);
  if (!match || match[1] !== checksum(match[2] ?? '')) return undefined;
  return { segment: Number(match[3]), offset: Number(match[4]) };
}

function checksum(content: string): string {
  return crc32(content).toString(16).padStart(8, '0');
}
