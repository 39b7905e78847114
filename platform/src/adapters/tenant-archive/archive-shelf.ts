/** The archives in the data directory: `exports/<tenant>.tar`, and for import whatever an operator put into `imports/`. */
import { createReadStream } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { DocumentSigner } from '../../primitives/signed-document.ts';
import { type ArchiveBounds, openArchive } from './archive-reader.ts';
import { ArchiveWriter } from './archive-writer.ts';

export interface ArchiveShelfParts {
  readonly dataDir: string;
  readonly signer: DocumentSigner;
  readonly bounds: ArchiveBounds;
}

export class DirectoryArchiveShelf {
  readonly name = 'exported archives';
  readonly #parts: ArchiveShelfParts;

  constructor(parts: ArchiveShelfParts) {
    this.#parts = parts;
  }

  async create(tenantId: TenantId) {
    const writer = await ArchiveWriter.create(this.#pathOf(tenantId));
    return {
      add: (name: string, body: Uint8Array) => writer.add(name, body),
      finish: (facts: Parameters<ArchiveWriter['finish']>[0]) => writer.finish(facts, this.#parts.signer),
      [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
    };
  }

  async open(file: string, trustedPublicKey: string | undefined) {
    if (!/^[a-z0-9][a-z0-9-]{0,99}\.tar$/.test(file))
      throw new BulkheadError('invalid_value', 'must be the name of an archive', { param: 'file' });
    const { dataDir, signer, bounds } = this.#parts;
    const imported = join(dataDir, 'imports', file);
    const isThere = await stat(imported).then(
      () => true,
      () => false,
    );
    return openArchive(isThere ? imported : join(dataDir, 'exports', file), trustedPublicKey ?? signer.publicKey, bounds);
  }

  async read(tenantId: TenantId) {
    const path = this.#pathOf(tenantId);
    try {
      const { size: bytes, mtimeMs } = await stat(path);
      return { file: `${tenantId}.tar`, bytes, createdAtMs: mtimeMs, parts: partsOf(path, bytes) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  async count(tenantId: TenantId): Promise<number> {
    const names = await readdir(join(this.#parts.dataDir, 'exports')).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw error;
    });
    return names.filter((name) => name === `${tenantId}.tar` || name === `${tenantId}.tar.half`).length;
  }

  async erase(tenantId: TenantId): Promise<void> {
    for (const suffix of ['', '.half']) await rm(`${this.#pathOf(tenantId)}${suffix}`, { force: true });
  }

  #pathOf(tenantId: TenantId): string {
    return join(this.#parts.dataDir, 'exports', `${tenantId}.tar`);
  }
}

/** Opened when it is read, and not beyond what was announced. */
async function* partsOf(path: string, bytes: number): AsyncGenerator<Uint8Array> {
  yield* createReadStream(path, { end: Math.max(0, bytes - 1) }) as AsyncIterable<Buffer>;
}
