/** Tenants full of near-duplicates, and a model of what each of them has: whose every id is, and how many chunks a filter lets through. */
import { PostgresIngestionShelf } from '../../src/adapters/postgres/documents-ingestion.ts';
import { ResidentPartitions } from '../../src/adapters/postgres/resident-partitions.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import type { Random } from '../../src/primitives/random.ts';
import { matchesFilter } from '../../src/rag/filter.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import type { AttributeFilter, Attributes } from '../../src/tenancy/attributes.ts';
import type { FileCabinet, VectorStoreCabinet } from '../../src/tenancy/capabilities.ts';
import { chunking, dimensions, Library } from '../retrieval/library.ts';
import { type DraftFile, NearDuplicates } from './near-duplicates.ts';

export interface IndexedFile {
  readonly id: string;
  readonly attributes: Attributes;
  readonly chunks: number;
}

export interface Member {
  readonly number: number;
  readonly name: string;
  readonly files: FileCabinet;
  /** Searches what is in memory, where it is. */
  readonly vectorStores: VectorStoreCabinet;
  /** Searches in the database alone. */
  readonly unkept: VectorStoreCabinet;
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
  readonly searchesOf?: ((member: Member, world: IsolationWorld) => Searches) | undefined;
}

const nothing = { residentBytesMax: 0, residentBytesPerTenantMax: 1, residentFillsMax: 1, residentSearchesQueuedMax: 1 };
/** A third of what all tenants have, so that partitions come and go. */
const residentBytesMax = 2 * 1_024 * 1_024;
/** Ids of deleted files that are still remembered: an answer may be older than the deletion. */
const deletedMax = 10_000;

export class IsolationWorld implements AsyncDisposable {
  readonly library: Library;
  readonly duplicates: NearDuplicates;
  readonly members: readonly Member[];
  readonly #owners = new Map<string, string>();
  readonly #deleted: string[] = [];
  readonly #searchesOf: WorldOptions['searchesOf'];
  readonly #random: Random;
  #opened: AsyncDisposable | undefined;

  private constructor(
    library: Library,
    duplicates: NearDuplicates,
    parts: { members: Member[] } & Pick<WorldOptions, 'searchesOf' | 'random'>,
  ) {
    this.library = library;
    this.duplicates = duplicates;
    this.members = parts.members;
    this.#searchesOf = parts.searchesOf;
    this.#random = parts.random;
  }

  static async open({ tenants, random, searchesOf }: WorldOptions): Promise<IsolationWorld> {
    await using stack = new AsyncDisposableStack();
    const library = stack.use(await Library.open({ residents: { residentBytesMax } }));
    const nothingKept = stack.use(new ResidentPartitions({ bounds: nothing, clock: systemClock, logger: silentLogger }));
    const members: Member[] = [];
    const world = new IsolationWorld(library, new NearDuplicates(dimensions, random), { members, searchesOf, random });
    for (let number = 0; number < tenants; number++) {
      const name = `soak-${number}`;
      const { files, vectorStores } = library.shelves(name);
      const unkept = library.shelves(name, undefined, nothingKept).vectorStores;
      const store = await vectorStores.create({ name, metadata: {} });
      world.#owners.set(store.id, name);
      const member: Member = { number, name, files, vectorStores, unkept, storeId: store.id, indexed: new Map(), changes: 0 };
      members.push(member);
      for (const draft of world.duplicates.filesOf(number)) await world.index(member, draft);
    }
    world.#opened = stack.move();
    return world;
  }

  /** Where this tenant's searches go: through memory three times of four. */
  searchesOf(member: Member): Searches {
    if (this.#searchesOf !== undefined) return this.#searchesOf(member, this);
    return this.#random.next() < 0.75 ? member.vectorStores : member.unkept;
  }

  ownerOf(id: string): string | undefined {
    return this.#owners.get(id);
  }

  /** What a search of the tenant with this filter finds at most. */
  matching(member: Member, filter: AttributeFilter | undefined): number {
    const passing = [...member.indexed.values()].filter(({ attributes }) => filter === undefined || matchesFilter(filter, attributes));
    return passing.reduce((sum, { chunks }) => sum + chunks, 0);
  }

  /** Writes a file's chunks with the vectors they are given, as ingestion does. */
  async index(member: Member, { filename, attributes, chunks }: DraftFile): Promise<void> {
    const { files, vectorStores, storeId } = member;
    member.changes++;
    const file = await files.create({ filename, purpose: 'assistants', body: Buffer.from(`${member.name} ${filename}`) });
    this.#owners.set(file.id, member.name);
    await vectorStores.attachFile(storeId, { fileId: file.id, attributes, chunking });
    const shelf = new PostgresIngestionShelf(this.library.db.database.forTenant(this.library.shelves(member.name).principal));
    const draft = await shelf.begin({ storeId, fileId: file.id });
    await draft?.append(chunks.map((chunk, ordinal) => ({ ordinal, ...chunk })));
    if ((await draft?.publish()) !== true) throw new Error('a file of the soak was not published');
    member.indexed.set(file.id, { id: file.id, attributes, chunks: chunks.length });
    member.changes++;
  }

  async remove(member: Member, fileId: string): Promise<boolean> {
    member.changes++;
    member.indexed.delete(fileId);
    const isDeleted = await member.files.delete(fileId);
    member.changes++;
    this.#deleted.push(fileId);
    const oldest = this.#deleted.length > deletedMax ? this.#deleted.shift() : undefined;
    if (oldest !== undefined) this.#owners.delete(oldest);
    return isDeleted;
  }

  /** Searches that were answered from memory. */
  get fromMemory(): number {
    return this.library.residents.figures().hits;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened?.[Symbol.asyncDispose]();
  }
}
