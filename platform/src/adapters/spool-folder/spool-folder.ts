/**
 * Uploads on disk, in files without a name: each is unlinked as soon as it is open, so the kernel frees it when the process ends, however it ends. The
 * folder is emptied at the start all the same, for what a crash left between the two calls.
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import type { FileBody } from '../../tenancy/capabilities.ts';
import type { SpooledFile, UploadSpool } from '../../tenancy/upload-spool.ts';

const retryAfterMs = 10_000;

export interface SpoolFolderParts {
  /** Used by this process alone. */
  readonly directory: string;
  /** Opens a nameless file for reading and writing. */
  readonly openFile?: (directory: string) => Promise<FileHandle>;
}

export class SpoolFolder implements UploadSpool {
  readonly #directory: string;
  readonly #openFile: (directory: string) => Promise<FileHandle>;

  constructor({ directory, openFile = openNameless }: SpoolFolderParts) {
    this.#directory = directory;
    this.#openFile = openFile;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true, force: true });
  }

  async open(): Promise<SpooledFile> {
    return new NamelessFile(await orNoRoom(this.#openFile(this.#directory)));
  }
}

async function openNameless(directory: string): Promise<FileHandle> {
  const path = join(directory, randomUUID());
  const handle = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
  } catch (error) {
    await handle.close();
    throw error;
  }
  return handle;
}

class NamelessFile implements SpooledFile {
  readonly #handle: FileHandle;
  readonly #hash = createHash('sha256');
  #bytes = 0;
  #mode: 'writing' | 'finished' = 'writing';

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(bytes: Uint8Array): Promise<void> {
    assert(this.#mode === 'writing', 'a finished file is not written');
    this.#hash.update(bytes);
    for (let written = 0; written < bytes.length; ) {
      const { bytesWritten } = await orNoRoom(this.#handle.write(bytes, written, bytes.length - written, this.#bytes + written));
      written += bytesWritten;
    }
    this.#bytes += bytes.length;
  }

  finish(): FileBody {
    assert(this.#mode === 'writing', 'a file is finished once');
    this.#mode = 'finished';
    return { bytes: this.#bytes, sha256: this.#hash.digest('hex'), parts: (partBytes) => this.#parts(partBytes) };
  }

  async *#parts(partBytes: number): AsyncGenerator<Uint8Array> {
    for (let start = 0; start < this.#bytes; start += partBytes) {
      const part = Buffer.allocUnsafe(Math.min(partBytes, this.#bytes - start));
      for (let read = 0; read < part.length; ) {
        const { bytesRead } = await this.#handle.read(part, read, part.length - read, start + read);
        assert(bytesRead > 0, 'a spooled file keeps its length');
        read += bytesRead;
      }
      yield part;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

/** A full disk, a used-up quota, or too many open files: it passes, so the client may come again. */
const passing = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EMFILE', 'ENFILE']);

async function orNoRoom<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!passing.has(String((error as NodeJS.ErrnoException).code))) throw error;
    const details = { limit: 'gateway.disk', scope: 'gateway' };
    throw new BulkheadError('capacity_unavailable', 'There is no room on disk for an upload now.', { retryAfterMs, details, cause: error });
  }
}
