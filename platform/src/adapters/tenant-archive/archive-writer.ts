/** Writes an archive: members, and last the signed manifest with the SHA-256 of each. Hidden under another name until it is whole. */
import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { DocumentSigner } from '../../primitives/signed-document.ts';
import type { ArchiveManifest, ArchiveSink } from '../../tenancy/tenant-archive.ts';
import { blockBytes, paddingOf, tarHeader } from './tar.ts';

export const manifestName = 'manifest.json';

export class ArchiveWriter implements ArchiveSink, AsyncDisposable {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #members: ArchiveManifest['members'][number][] = [];
  #isOpen = true;

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  /** Readable by the owner alone; the archive holds content in plain. */
  static async create(path: string): Promise<ArchiveWriter> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await rm(`${path}.half`, { force: true });
    return new ArchiveWriter(path, await open(`${path}.half`, 'wx', 0o600));
  }

  async add(name: string, body: Uint8Array): Promise<void> {
    await this.#append(name, body);
    this.#members.push({ name, bytes: body.byteLength, sha256: createHash('sha256').update(body).digest('hex') });
  }

  /** Signs, and shows the archive under its name. */
  async finish(facts: Omit<ArchiveManifest, 'members' | 'version'>, signer: DocumentSigner): Promise<void> {
    const manifest: ArchiveManifest = { version: 1, ...facts, members: this.#members };
    await this.#append(manifestName, Buffer.from(JSON.stringify(signer.sign('bulkhead.tenant-export', manifest))));
    await this.#file.write(Buffer.alloc(2 * blockBytes));
    await this.#close();
    await rename(`${this.#path}.half`, this.#path);
  }

  /** Leaves nothing of an archive that was not finished. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    await this.#close();
    await rm(`${this.#path}.half`, { force: true });
  }

  async #append(name: string, body: Uint8Array): Promise<void> {
    await this.#file.writev([tarHeader({ name, bytes: body.byteLength }), body, Buffer.alloc(paddingOf(body.byteLength))]);
  }

  async #close(): Promise<void> {
    this.#isOpen = false;
    await this.#file.close();
  }
}
