/** Tenants full of near-duplicates, and a model of what each of them has: whose every id is, and how many chunks a filter lets through. */
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import type { Random } from '../../src/primitives/random.ts';
import { matchesFilter } from '../../src/rag/filter.ts';
import type { AttributeFilter, Attributes } from '../../src/tenancy/attributes.ts';
import type { FileCabinet, VectorStoreCabinet } from '../../src/tenancy/capabilities.ts';
import { chunking, dimensions, Library } from '../retrieval/library.ts';
import { type DraftFile, NearDuplicates } from './near-duplicates.ts';

export interface IndexedFile {
  readonly id: string;
  readonly attributes: Attributes;
  readonly chunks: number;
}

export interface Resident {
  readonly number: number;
  readonly name: string;
  readonly files: FileCabinet;
  readonly vectorStores: VectorStoreCabinet;
  readonly storeId: string;
  /** What a search may find, by the order of indexing. */
  readonly indexed: Map<string, IndexedFile>;
  /** Raised before and after each change: a search that saw the same even number at both ends raced with none. */
  changes: number;
}

type Searches = Pick<VectorStoreCabinet, 'search'>;

export interface WorldOptions {
  readonly tenants: number;
  readonly random: Random;
  /** For a fault on purpose: the cabinet that one tenant's searches really go to. */
  readonly searchesOf?: ((resident: Resident, world: IsolationWorld) => Searches) | undefined;
}

/** Ids of deleted files that are still remembered: an answer may be older than the deletion. */
const deletedMax = 10_000;

export class IsolationWorld implements AsyncDisposable {
  readonly library: Library;
  readonly duplicates: NearDuplicates;
  readonly residents: readonly Resident[];
  readonly #owners = new Map<string, string>();
  readonly #deleted: string[] = [];
  readonly #searchesOf: WorldOptions['searchesOf'];

  private constructor(library: Library, duplicates: NearDuplicates, parts: { residents: Resident[] } & Pick<WorldOptions, 'searchesOf'>) {
    this.library = library;
    this.duplicates = duplicates;
    this.residents = parts.residents;
    this.#searchesOf = parts.searchesOf;
  }

  static async open({ tenants, random, searchesOf }: WorldOptions): Promise<IsolationWorld> {
    const library = await Library.open();
    const residents: Resident[] = [];
    const world = new IsolationWorld(library, new NearDuplicates(dimensions, random), { residents, searchesOf });
    for (let number = 0; number < tenants; number++) {
      const name = `soak-${number}`;
      const { files, vectorStores } = library.shelves(name);
      const store = await vectorStores.create({ name, metadata: {} });
      world.#owners.set(store.id, name);
      const resident: Resident = { number, name, files, vectorStores, storeId: store.id, indexed: new Map(), changes: 0 };
      residents.push(resident);
      for (const draft of world.duplicates.filesOf(number)) await world.index(resident, draft);
    }
    return world;
  }

  /** Where this tenant's searches go. */
  searchesOf(resident: Resident): Searches {
    return this.#searchesOf?.(resident, this) ?? resident.vectorStores;
  }

  ownerOf(id: string): string | undefined {
    return this.#owners.get(id);
  }

  /** What a search of the tenant with this filter finds at most. */
  matching(resident: Resident, filter: AttributeFilter | undefined): number {
    const passing = [...resident.indexed.values()].filter(({ attributes }) => filter === undefined || matchesFilter(filter, attributes));
    return passing.reduce((sum, { chunks }) => sum + chunks, 0);
  }

  /** Writes a file's chunks with the vectors they are given, as ingestion does. */
  async index(resident: Resident, { filename, attributes, chunks }: DraftFile): Promise<void> {
    const { files, vectorStores, storeId } = resident;
    resident.changes++;
    const file = await files.create({ filename, purpose: 'assistants', body: Buffer.from(`${resident.name} ${filename}`) });
    this.#owners.set(file.id, resident.name);
    await vectorStores.attachFile(storeId, { fileId: file.id, attributes, chunking });
    const shelf = new PostgresIngestionShelf(this.library.db.database.forTenant(this.library.shelves(resident.name).principal));
    const draft = await shelf.begin({ storeId, fileId: file.id });
    await draft?.append(chunks.map((chunk, ordinal) => ({ ordinal, ...chunk })));
    if ((await draft?.publish()) !== true) throw new Error('a file of the soak was not published');
    resident.indexed.set(file.id, { id: file.id, attributes, chunks: chunks.length });
    resident.changes++;
  }

  async remove(resident: Resident, fileId: string): Promise<boolean> {
    resident.changes++;
    resident.indexed.delete(fileId);
    const isDeleted = await resident.files.delete(fileId);
    resident.changes++;
    this.#deleted.push(fileId);
    const oldest = this.#deleted.length > deletedMax ? this.#deleted.shift() : undefined;
    if (oldest !== undefined) this.#owners.delete(oldest);
    return isDeleted;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.library[Symbol.asyncDispose]();
  }
}
