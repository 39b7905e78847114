/**
 * Which stores are in memory. A partition belongs to one tenant and one store; the only way to one is `forTenant`, with a principal and that principal's own
 * database, and the only thing that fills it are that database's transactions. Bounded in bytes, for all and for each tenant, and evicted by last use.
 *
 * A partition holds a revision, and says nothing about whether the store still has it: the read that ends every search does (`readRankedAt`). What is here may
 * therefore be stale, late or gone at any time, and costs a search the way through SQL at worst.
 */
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { ChunkPlace } from '../../rag/hybrid-ranking.ts';
import type { PartitionAnswer, PartitionCommand } from '../../rag/resident/partition-commands.ts';
import { PartitionThread, ThreadUnavailable } from '../../rag/resident/partition-thread.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { ResidentFigures } from '../../telemetry/metrics.ts';
import type { AttributeFilter } from '../../tenancy/attributes.ts';
import { Principal } from '../../tenancy/principal.ts';
import type { TenantDatabase } from './database.ts';
import { pieceChunks, piecesOf, readContents, readPiece, type ShownFile, type StoreContents } from './resident-contents.ts';
import { FillQueue } from './resident-fill-queue.ts';

export interface ResidentBounds {
  /** 0: nothing is resident. */
  readonly residentBytesMax: number;
  /** Of one tenant, and so of one partition. */
  readonly residentBytesPerTenantMax: number;
  /** Partitions that are filled at once. */
  readonly residentFillsMax: number;
  /** Searches that wait for the thread; more go through SQL. */
  readonly residentSearchesQueuedMax: number;
}

export interface ResidentParts {
  readonly bounds: ResidentBounds;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Entry {
  readonly tenantId: TenantId;
  readonly storeId: string;
  /** `filling`: nothing to search yet, or too far behind; `refused`: not before a time. */
  mode: 'filling' | 'ready' | 'refused';
  partition: number;
  bytes: number;
  contents: StoreContents | undefined;
  refusedUntilMs: number;
  /** The refresh that searches wait for. */
  refreshing: Promise<boolean> | undefined;
}

/** A partition as it is at one revision. */
export interface ResidentStore {
  readonly contents: StoreContents;
  /** Undefined: the partition is another by now. */
  nearest(question: Float32Array, filter: AttributeFilter | undefined, signal?: AbortSignal): Promise<readonly ChunkPlace[] | undefined>;
  matching(words: readonly string[], filter: AttributeFilter | undefined, signal?: AbortSignal): Promise<readonly ChunkPlace[] | undefined>;
}

/** After a fill that failed or found no room. */
const refusalMs = 30_000;
const entriesMax = 20_000;
/** Times a fill begins anew because the store changed under it. */
const fillAttemptsMax = 3;
/** Of a posting list and its share of the words; measured on English paragraphs (docs/rfd/0010-resident-partitions.md). */
const lexicalBytesPerTerm = 10;
const rowBytesBeside = 64;

export class ResidentPartitions implements AsyncDisposable {
  readonly #parts: ResidentParts;
  readonly #thread: PartitionThread;
  readonly #fills: FillQueue;
  /** In the order of last use. */
  readonly #entries = new Map<string, Entry>();
  #nextPartition = 1;
  readonly #counts = { hits: 0, misses: 0, fills: 0, evictions: 0 };

  constructor(parts: ResidentParts) {
    this.#parts = parts;
    const { residentBytesMax: bytesMax, residentSearchesQueuedMax: queuedMax, residentFillsMax } = parts.bounds;
    this.#thread = new PartitionThread({ bytesMax: Math.max(bytesMax, 1), queuedMax, onLost: () => this.#lose() });
    this.#fills = new FillQueue(residentFillsMax);
  }

  forTenant(principal: Principal, database: TenantDatabase): TenantResidents {
    return new TenantResidents(this, principal, database);
  }

  figures(): ResidentFigures {
    const held = [...this.#entries.values()].filter((entry) => entry.bytes > 0);
    return { ...this.#counts, bytes: held.reduce((sum, entry) => sum + entry.bytes, 0), partitions: held.length };
  }

  /** Forgets what is in memory of a tenant. Nothing depends on it: what is stale is never answered. */
  drop(tenantId: TenantId): void {
    for (const entry of this.#entries.values()) if (entry.tenantId === tenantId) this.#forget(entry);
  }

  /** Stores of a tenant in memory. */
  heldOf(tenantId: TenantId): number {
    return [...this.#entries.values()].filter((entry) => entry.tenantId === tenantId).length;
  }

  /** Ends the thread with everything it holds; what is searched next is read again. */
  async clear(): Promise<void> {
    await this.#thread.end();
  }

  /** Waits for fills under way. */
  async settled(): Promise<void> {
    await this.#fills.idle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#fills[Symbol.asyncDispose]();
    this.#entries.clear();
    await this.#thread[Symbol.asyncDispose]();
  }

  count(outcome: 'hits' | 'misses'): void {
    this.#counts[outcome]++;
  }

  /** The partition, when it may answer. */
  use(tenant: TenantResidents, storeId: string): ResidentStore | undefined {
    const key = keyOf(tenant.tenantId, storeId);
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry.mode === 'ready' && entry.contents !== undefined ? this.#storeOf(entry, entry.contents) : undefined;
  }

  /** Reads a store into memory in the background, unless it is there, or was refused a moment ago. */
  keep(tenant: TenantResidents, storeId: string): void {
    if (this.#parts.bounds.residentBytesMax === 0) return;
    const entry = this.#entries.get(keyOf(tenant.tenantId, storeId));
    if (entry === undefined || (entry.mode === 'refused' && entry.refusedUntilMs <= this.#parts.clock.monotonicMs())) {
      this.#begin(tenant, storeId);
    }
  }

  /** Brings a partition to the store's present revision. False: it takes longer than a search should wait, or there is no such partition. */
  async refresh(tenant: TenantResidents, storeId: string): Promise<boolean> {
    const entry = this.#entries.get(keyOf(tenant.tenantId, storeId));
    if (entry?.mode !== 'ready') return false;
    entry.refreshing ??= this.#catchUp(entry, tenant.database)
      .catch((error: unknown) => {
        // The thread is gone, and with it the partition: SQL answers.
        if (error instanceof ThreadUnavailable) return false;
        throw error;
      })
      .finally(() => {
        entry.refreshing = undefined;
      });
    return entry.refreshing;
  }

  forget({ tenantId }: TenantResidents, storeId: string): void {
    const entry = this.#entries.get(keyOf(tenantId, storeId));
    if (entry !== undefined) this.#forget(entry);
  }

  #storeOf({ partition }: Entry, contents: StoreContents): ResidentStore {
    const at = { partition, revision: contents.revision };
    const places = async (command: PartitionCommand, signal?: AbortSignal) => {
      const answer = await this.#thread.send(command, signal);
      return answer.kind === 'places' ? answer.places : undefined;
    };
    return {
      contents,
      nearest: (question, filter, signal) => places({ kind: 'nearest', ...at, question, filter }, signal),
      matching: (words, filter, signal) => places({ kind: 'matching', ...at, words, filter }, signal),
    };
  }

  #begin({ tenantId, database }: TenantResidents, storeId: string): void {
    this.#boundEntries();
    const entry: Entry = {
      tenantId,
      storeId,
      mode: 'filling',
      partition: 0,
      bytes: 0,
      contents: undefined,
      refusedUntilMs: 0,
      refreshing: undefined,
    };
    this.#entries.set(keyOf(tenantId, storeId), entry);
    if (!this.#fills.add((signal) => this.#fill(entry, database, signal))) this.#forget(entry);
  }

  /** Entries that hold nothing are few words each; the oldest make room. */
  #boundEntries(): void {
    for (const entry of this.#entries.values()) {
      if (this.#entries.size < entriesMax) return;
      if (entry.mode !== 'filling' && entry.refreshing === undefined) this.#forget(entry);
    }
  }

  async #fill(entry: Entry, database: TenantDatabase, signal: AbortSignal): Promise<void> {
    try {
      for (let attempt = 0; attempt < fillAttemptsMax; attempt++) {
        if (!this.#isHere(entry) || signal.aborted) return;
        const contents = await readContents(database, entry.storeId);
        if (contents === undefined) return this.#forget(entry);
        if (await this.#bringTo(entry, contents, { database, signal })) {
          this.#counts.fills++;
          return;
        }
      }
      this.#refuse(entry);
    } catch {
      // The way through SQL answers meanwhile; what the database refused here, it will refuse there and be heard.
      this.#parts.logger.warn({ component: 'residents' }, 'a store could not be brought into memory');
      this.#refuse(entry);
    }
  }

  /** A small difference at once; a large one in the background. */
  async #catchUp(entry: Entry, database: TenantDatabase): Promise<boolean> {
    const contents = await readContents(database, entry.storeId);
    if (contents === undefined) {
      this.#forget(entry);
      return false;
    }
    const isSmall = isSameSpace(entry.contents, contents) && chunksOf(missingFiles(entry.contents, contents)) <= pieceChunks;
    if (isSmall && (await this.#bringTo(entry, contents, { database, signal: undefined }))) return true;
    if (!this.#isHere(entry) || entry.mode === 'refused') return false;
    entry.mode = 'filling';
    if (!this.#fills.add((signal) => this.#fill(entry, database, signal))) this.#refuse(entry);
    return false;
  }

  /** False: the store changed meanwhile, or there was no room. */
  async #bringTo(
    entry: Entry,
    contents: StoreContents,
    { database, signal }: { readonly database: TenantDatabase; readonly signal: AbortSignal | undefined },
  ): Promise<boolean> {
    if (!isSameSpace(entry.contents, contents)) await this.#open(entry, contents.place.embedding_dimensions);
    const before = entry.contents;
    const missing = missingFiles(before, contents);
    if (!this.#makeRoom(entry, entry.bytes + estimatedBytes(contents, chunksOf(missing)))) return this.#refuse(entry);
    for (const piece of piecesOf(missing)) {
      const batch = await readPiece(database, { tenantId: entry.tenantId, place: contents.place }, piece);
      if (batch === undefined || signal?.aborted === true || !this.#isHere(entry)) return this.#startOver(entry);
      if (!this.#hold(entry, await this.#send({ kind: 'append', partition: entry.partition, batch }))) return false;
    }
    const publication = {
      revision: contents.revision,
      chunkCount: contents.chunkCount,
      termCount: contents.termCount,
      shown: shownAnew(before, contents),
      removed: before === undefined ? [] : [...before.files.keys()].filter((fileNo) => !contents.files.has(fileNo)),
    };
    if (!this.#hold(entry, await this.#send({ kind: 'publish', partition: entry.partition, publication }))) return false;
    entry.contents = contents;
    entry.mode = 'ready';
    return true;
  }

  async #open(entry: Entry, dimensions: number): Promise<void> {
    this.#release(entry);
    entry.partition = this.#nextPartition++;
    await this.#send({ kind: 'open', partition: entry.partition, dimensions });
  }

  #startOver(entry: Entry): false {
    this.#release(entry);
    if (this.#isHere(entry)) entry.mode = 'filling';
    return false;
  }

  /** Takes note of what a partition holds by now. False: it was released. */
  #hold(entry: Entry, answer: PartitionAnswer): boolean {
    if (answer.kind !== 'held') return this.#refuse(entry);
    if (!this.#isHere(entry)) return this.#startOver(entry);
    entry.bytes = answer.bytes;
    return this.#makeRoom(entry, answer.bytes) || this.#refuse(entry);
  }

  /** Evicts others, of the same tenant first, until `bytes` for this entry fit. False: they cannot. */
  #makeRoom(entry: Entry, bytes: number): boolean {
    const { residentBytesMax, residentBytesPerTenantMax } = this.#parts.bounds;
    if (bytes > Math.min(residentBytesMax, residentBytesPerTenantMax)) return false;
    const own = (other: Entry) => other.tenantId === entry.tenantId;
    return this.#evict(entry, own, residentBytesPerTenantMax - bytes) && this.#evict(entry, () => true, residentBytesMax - bytes);
  }

  #evict(keep: Entry, isOf: (entry: Entry) => boolean, bytesMax: number): boolean {
    const others = [...this.#entries.values()].filter((entry) => entry !== keep && isOf(entry));
    let held = others.reduce((sum, entry) => sum + entry.bytes, 0);
    for (const other of others) {
      if (held <= bytesMax) break;
      if (other.mode !== 'ready' || other.refreshing !== undefined) continue;
      held -= other.bytes;
      this.#counts.evictions++;
      this.#forget(other);
    }
    return held <= bytesMax;
  }

  #refuse(entry: Entry): false {
    this.#release(entry);
    entry.mode = 'refused';
    entry.refusedUntilMs = this.#parts.clock.monotonicMs() + refusalMs;
    return false;
  }

  #forget(entry: Entry): void {
    if (this.#isHere(entry)) this.#entries.delete(keyOf(entry.tenantId, entry.storeId));
    this.#release(entry);
  }

  #release(entry: Entry): void {
    const { partition } = entry;
    entry.contents = undefined;
    entry.bytes = 0;
    entry.partition = 0;
    if (partition > 0) void this.#thread.send({ kind: 'release', partition }).catch(() => {});
  }

  #isHere(entry: Entry): boolean {
    return this.#entries.get(keyOf(entry.tenantId, entry.storeId)) === entry;
  }

  #send(command: PartitionCommand): Promise<PartitionAnswer> {
    return this.#thread.send(command);
  }

  #lose(): void {
    this.#parts.logger.error(
      { component: 'residents' },
      'the thread of the resident partitions ended: stores are read through SQL until they are filled again',
    );
    for (const entry of this.#entries.values()) entry.partition = 0;
    this.#entries.clear();
  }
}

/** One tenant's partitions, with the database that fills them. */
export class TenantResidents {
  readonly #partitions: ResidentPartitions;
  readonly tenantId: TenantId;
  readonly database: TenantDatabase;

  constructor(partitions: ResidentPartitions, principal: Principal, database: TenantDatabase) {
    assert(Principal.is(principal), 'a partition needs a minted principal');
    assert(database.isOf(principal), 'a partition is filled by its own tenant’s database');
    this.#partitions = partitions;
    this.tenantId = principal.tenantId;
    this.database = database;
    Object.freeze(this);
  }

  use(storeId: string): ResidentStore | undefined {
    return this.#partitions.use(this, storeId);
  }

  keep(storeId: string): void {
    this.#partitions.keep(this, storeId);
  }

  refresh(storeId: string): Promise<boolean> {
    return this.#partitions.refresh(this, storeId);
  }

  forget(storeId: string): void {
    this.#partitions.forget(this, storeId);
  }

  count(outcome: 'hits' | 'misses'): void {
    this.#partitions.count(outcome);
  }
}

/** A tenant's id holds no slash. */
function keyOf(tenantId: TenantId, storeId: string): string {
  return `${tenantId}/${storeId}`;
}

function isSameSpace(before: StoreContents | undefined, now: StoreContents): boolean {
  return before !== undefined && before.place.store_no === now.place.store_no && before.place.space_no === now.place.space_no;
}

function missingFiles(before: StoreContents | undefined, now: StoreContents): ReadonlyMap<number, ShownFile> {
  return new Map([...now.files].filter(([fileNo]) => before?.files.has(fileNo) !== true));
}

function chunksOf(files: ReadonlyMap<number, ShownFile>): number {
  return files.values().reduce((sum, file) => sum + file.chunkCount, 0);
}

function shownAnew(before: StoreContents | undefined, now: StoreContents) {
  return [...now.files]
    .filter(([fileNo, { attributes }]) => JSON.stringify(before?.files.get(fileNo)?.attributes) !== JSON.stringify(attributes))
    .map(([fileNo, { attributes }]) => ({ fileNo, attributes }));
}

/** Of `chunks` more chunks, and of the files. */
function estimatedBytes({ place, chunkCount, termCount }: StoreContents, chunks: number): number {
  const terms = termCount / Math.max(1, chunkCount);
  return chunks * (place.embedding_dimensions * 4 + rowBytesBeside + terms * lexicalBytesPerTerm);
}
