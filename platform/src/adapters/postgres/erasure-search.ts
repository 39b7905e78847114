/** Looks for bytes in every file: pages of tables and indexes, the write-ahead log, journals, whatever else is there. */
import type { Dirent } from 'node:fs';
import { type FileHandle, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { OwnerDatabase } from './owner-database.ts';

export interface SearchResult {
  /** In the order of the needles: in how many blocks each was found. */
  readonly found: readonly number[];
  /** Where, at most a few, for the operator. */
  readonly places: readonly string[];
  readonly files: number;
  readonly bytes: number;
}

const blockBytes = 1_048_576;
const placesMax = 10;

/** Every regular file below `root`. Rejects when one is there and cannot be read: then nothing is known. One pass over all bytes for each needle. */
export async function searchDirectory(root: string, needles: readonly Buffer[], signal: AbortSignal): Promise<SearchResult> {
  const tally = new Tally(needles);
  const buffer = Buffer.allocUnsafe(blockBytes);
  for await (const path of filesBelow(root)) {
    signal.throwIfAborted();
    await searchFile(path, { name: path.slice(root.length + 1), tally, buffer });
  }
  return tally.result();
}

/**
 * The files of one server database's relations, by the login's right to read them and to have everything written out. Undefined: it has none.
 */
export async function searchServerFiles(
  owner: OwnerDatabase,
  needles: readonly Buffer[],
  signal: AbortSignal,
): Promise<SearchResult | undefined> {
  return owner.asLogin(async (client) => {
    const { rows: rights } = await client.query<{ readonly may: boolean }>(
      "SELECT has_function_privilege('pg_read_binary_file(text, bigint, bigint, boolean)', 'EXECUTE') AND pg_has_role('pg_checkpoint', 'MEMBER') AS may",
    );
    if (rights[0]?.may !== true) return undefined;
    await client.query('CHECKPOINT');
    const tally = new Tally(needles);
    const { rows: relations } = await client.query<{ readonly name: string; readonly path: string; readonly bytes: string }>(
      relationsQuery,
    );
    for (const { name, path, bytes } of relations) {
      tally.opened();
      for (let at = 0; at < Number(bytes); at += blockBytes) {
        signal.throwIfAborted();
        const segment = Math.floor(at / segmentBytes);
        const { rows } = await client.query<{ readonly block: Buffer | null }>('SELECT pg_read_binary_file($1, $2, $3, true) AS block', [
          segment === 0 ? path : `${path}.${segment}`,
          at % segmentBytes,
          blockBytes + tally.overlap,
        ]);
        const block = rows[0]?.block;
        if (block) tally.look(block, name);
      }
    }
    return tally.result();
  });
}

const segmentBytes = 1_073_741_824;

const relationsQuery = `
  SELECT c.oid::regclass::text AS name, pg_relation_filepath(c.oid) AS path, pg_relation_size(c.oid) AS bytes
  FROM pg_class c WHERE pg_relation_filepath(c.oid) IS NOT NULL AND pg_relation_size(c.oid) > 0`;

class Tally {
  readonly #needles: readonly Buffer[];
  readonly #found: number[];
  readonly #places = new Set<string>();
  readonly overlap: number;
  #files = 0;
  #bytes = 0;

  constructor(needles: readonly Buffer[]) {
    this.#needles = needles;
    this.#found = needles.map(() => 0);
    this.overlap = Math.max(0, ...needles.map((needle) => needle.length - 1));
  }

  opened(): void {
    this.#files++;
  }

  look(block: Buffer, place: string): void {
    this.#bytes += block.length;
    for (const [index, needle] of this.#needles.entries()) {
      if (!block.includes(needle)) continue;
      this.#found[index] = (this.#found[index] ?? 0) + 1;
      if (this.#places.size < placesMax) this.#places.add(place);
    }
  }

  result(): SearchResult {
    return { found: this.#found, places: [...this.#places], files: this.#files, bytes: this.#bytes };
  }
}

/** One buffer for all files: most are small, and there are more than a thousand. */
async function searchFile(path: string, search: { readonly name: string; readonly tally: Tally; readonly buffer: Buffer }): Promise<void> {
  const { name, tally, buffer } = search;
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    // Temporary files come and go; one that is gone holds nothing.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    let kept = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, kept, buffer.length - kept);
      if (bytesRead === 0) break;
      const block = buffer.subarray(0, kept + bytesRead);
      tally.look(block, name);
      kept = Math.min(tally.overlap, block.length);
      block.copy(buffer, 0, block.length - kept);
    }
    tally.opened();
  } finally {
    await file.close();
  }
}

async function* filesBelow(directory: string): AsyncGenerator<string> {
  yield* filesAmong(directory, await readdir(directory, { withFileTypes: true }));
}

async function* filesAmong(directory: string, entries: readonly Dirent[]): AsyncGenerator<string> {
  for (const entry of entries) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* filesAmong(path, await entriesOf(path));
    else if (entry.isFile()) yield path;
  }
}

/** Like a file that is gone: the template of tenant databases, which holds nobody's rows, gets its name when it is whole. */
async function entriesOf(directory: string): Promise<readonly Dirent[]> {
  try {
    return await readdir(directory, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
