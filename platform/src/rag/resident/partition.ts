/**
 * One store of one tenant, in memory: vectors, words and file attributes of one revision. Built from what the tenant's own transactions read and nothing else;
 * rows are appended hidden and shown by `publish`, which moves to a new revision. Not shared between threads: each call runs to its end.
 */
import { assert } from '../../primitives/assert.ts';
import type { AttributeFilter, Attributes } from '../../tenancy/attributes.ts';
import { matchesFilter } from '../filter.ts';
import {
  armDepth,
  type ChunkPlace,
  candidateDepth,
  meanTermsOf,
  rankByDistance,
  scoredTermsMax,
  wordScore,
  wordWeight,
} from '../hybrid-ranking.ts';
import { type BlockMemory, blockBytes } from './block-memory.ts';
import { TopRows } from './top-rows.ts';
import { WordIndex } from './word-index.ts';

/** Chunks as they are read: `vectors` as `vector_send` writes them, one after the other, and the words of each chunk. */
export interface ChunkBatch {
  readonly fileNos: Int32Array;
  readonly ordinals: Int32Array;
  /** Words in the chunk, repetitions counted. */
  readonly termCounts: Int32Array;
  readonly vectors: Uint8Array;
  /** `[chunk]`: distinct words, one a line. */
  readonly words: readonly string[];
  /** `[chunk]`: how often each of them stands there, one a line. */
  readonly frequencies: readonly string[];
}

export interface Publication {
  readonly revision: number;
  /** Statistics of the whole store. */
  readonly chunkCount: number;
  readonly termCount: number;
  /** Files that are new, or whose attributes are. */
  readonly shown: readonly { readonly fileNo: number; readonly attributes: Attributes }[];
  readonly removed: readonly number[];
}

interface ResidentFile {
  readonly fileNo: number;
  attributes: Attributes;
  isShown: boolean;
  rows: number;
  bytes: number;
}

export interface NearestQuestion {
  readonly question: Float32Array;
  readonly filter: AttributeFilter | undefined;
}

interface Scan {
  readonly question: Float32Array;
  readonly seen: Uint8Array;
  readonly top: TopRows;
}

const vectorHeadBytes = 4;
/** Rows of removed files are scanned along until they are this share of all. */
const deadShareMax = 0.08;
const deadRowsMin = 64;
const rowBytesBeside = 16;
/** Of a file's names and numbers, here and with whoever asks. */
const fileBytes = 512;

export class Partition {
  readonly #memory: BlockMemory;
  readonly #dimensions: number;
  #blocks: number[] = [];
  #rows = 0;
  #dead = 0;
  /** By row: the file's position in `#files`, or -1 for a row of a removed file. */
  #fileOf = new Int32Array(32);
  #ordinal = new Int32Array(32);
  #termCount = new Int32Array(32);
  /** 1 / length of the vector; not a number for a vector without length. */
  #inverseLength = new Float32Array(32);
  #files: (ResidentFile | undefined)[] = [];
  #fileByNo = new Map<number, number>();
  #fileBytes = 0;
  #words = new WordIndex();
  #published: Publication | undefined;

  constructor(memory: BlockMemory, dimensions: number) {
    assert(dimensions % 16 === 0, 'the kernel multiplies 16 numbers a step');
    this.#memory = memory;
    this.#dimensions = dimensions;
  }

  /** Undefined until the first publication. */
  get revision(): number | undefined {
    return this.#published?.revision;
  }

  get bytes(): number {
    return this.#blocks.length * blockBytes + this.#fileOf.length * rowBytesBeside + this.#words.bytes + this.#fileBytes;
  }

  /** Adds hidden rows. Throws `BlocksExhausted`; then the partition is to be released. */
  append(batch: ChunkBatch): void {
    const rowBytes = vectorHeadBytes + this.#dimensions * 4;
    assert(batch.vectors.byteLength === batch.fileNos.length * rowBytes, 'every chunk has a vector of the dimension of the store');
    const vectors = new DataView(batch.vectors.buffer, batch.vectors.byteOffset, batch.vectors.byteLength);
    for (let index = 0; index < batch.fileNos.length; index++) {
      const row = this.#newRow();
      const file = this.#fileFor(batch.fileNos[index] as number);
      this.#fileOf[row] = file;
      (this.#files[file] as ResidentFile).rows++;
      this.#ordinal[row] = batch.ordinals[index] as number;
      this.#termCount[row] = batch.termCounts[index] as number;
      this.#inverseLength[row] = this.#writeVector(row, vectors, index * rowBytes + vectorHeadBytes);
      this.#addWords(row, batch.words[index] as string, batch.frequencies[index] as string);
    }
  }

  publish(publication: Publication): void {
    for (const fileNo of publication.removed) this.#remove(fileNo);
    for (const { fileNo, attributes } of publication.shown) {
      const file = this.#files[this.#fileFor(fileNo)] as ResidentFile;
      file.attributes = attributes;
      file.isShown = true;
      this.#fileBytes -= file.bytes;
      file.bytes = fileBytes + 4 * JSON.stringify(attributes).length;
      this.#fileBytes += file.bytes;
    }
    this.#published = { ...publication, shown: [], removed: [] };
    if (this.#dead > Math.max(deadRowsMin, this.#rows * deadShareMax)) this.#compact();
  }

  /** The nearest to a question, nearest first. */
  nearest(question: Float32Array, filter: AttributeFilter | undefined): readonly ChunkPlace[] {
    return this.nearestOf([{ question, filter }])[0] ?? [];
  }

  /**
   * The nearest to each of several questions, in one pass: a scan is bound by reading the vectors from memory, and a block that was just read is in the
   * processor's cache for the questions that follow.
   */
  nearestOf(asked: readonly NearestQuestion[]): readonly (readonly ChunkPlace[])[] {
    const scans = asked.map(({ question, filter }): Scan => {
      assert(question.length === this.#dimensions, "the question has the dimension of the store's embeddings");
      const top = new TopRows(candidateDepth, (left, right) => this.#precedes(left, right));
      return { question, seen: this.#seen(filter), top };
    });
    for (const index of this.#blocks.keys()) for (const scan of scans) this.#scan(scan, index);
    return scans.map(({ question, top }) => {
      const candidates = top.ranked().map((row) => ({ ...this.#placeOf(row), vector: this.#vectorAt(row) }));
      return rankByDistance(candidates, question);
    });
  }

  #scan({ question, seen, top }: Scan, block: number): void {
    const rowBytes = this.#dimensions * 4;
    const perBlock = blockBytes / rowBytes;
    const first = block * perBlock;
    this.#memory.ask(question);
    const products = this.#memory.products(this.#blocks[block] as number, Math.min(perBlock, this.#rows - first), rowBytes);
    let { floor } = top;
    for (let offset = 0; offset < products.length; offset++) {
      const row = first + offset;
      const file = this.#fileOf[row] as number;
      if (file < 0 || seen[file] === 0) continue;
      const cosine = (products[offset] as number) * (this.#inverseLength[row] as number);
      const score = Number.isNaN(cosine) ? Number.NEGATIVE_INFINITY : cosine;
      if (score < floor) continue;
      top.offer(row, score);
      floor = top.floor;
    }
  }

  /** The best by words, best first. `words`: of the question, each once. */
  matching(words: readonly string[], filter: AttributeFilter | undefined): readonly ChunkPlace[] {
    const { chunkCount, termCount } = this.#published ?? { chunkCount: 0, termCount: 0 };
    const meanTerms = meanTermsOf({ chunkCount, termCount });
    const shown = this.#seen(undefined);
    const seen = filter === undefined ? shown : this.#seen(filter);
    const scores = new Float64Array(this.#rows);
    const touched: number[] = [];
    for (const { word, holding } of this.#rarest(words, shown)) {
      const weight = wordWeight(chunkCount, holding);
      this.#words.visit(word, (row, frequency) => {
        const file = this.#fileOf[row] as number;
        if (file < 0 || seen[file] === 0) return;
        if (scores[row] === 0) touched.push(row);
        scores[row] = (scores[row] as number) + wordScore(weight, { frequency, termCount: this.#termCount[row] as number }, meanTerms);
      });
    }
    const top = new TopRows(armDepth, (left, right) => this.#precedes(left, right));
    for (const row of new Set(touched)) top.offer(row, scores[row] as number);
    return top.ranked().map((row) => this.#placeOf(row));
  }

  /** Gives every block back, emptied. */
  release(): void {
    for (const address of this.#blocks) this.#memory.give(address);
    this.#blocks = [];
    this.#rows = 0;
    this.#files = [];
    this.#fileByNo.clear();
    this.#words = new WordIndex();
    this.#published = undefined;
  }

  #rarest(words: readonly string[], shown: Uint8Array): readonly { readonly word: string; readonly holding: number }[] {
    return words
      .map((word) => ({ word, holding: this.#holding(word, shown) }))
      .filter(({ holding }) => holding > 0)
      .sort((left, right) => left.holding - right.holding || Buffer.compare(Buffer.from(left.word), Buffer.from(right.word)))
      .slice(0, scoredTermsMax);
  }

  #holding(word: string, shown: Uint8Array): number {
    let holding = 0;
    this.#words.visit(word, (row) => {
      const file = this.#fileOf[row] as number;
      if (file >= 0) holding += shown[file] as number;
    });
    return holding;
  }

  /** By position in `#files`: 1 for a file that is shown and that the filter lets through. */
  #seen(filter: AttributeFilter | undefined): Uint8Array {
    return Uint8Array.from(this.#files, (file) =>
      file?.isShown === true && (filter === undefined || matchesFilter(filter, file.attributes)) ? 1 : 0,
    );
  }

  #placeOf(row: number): ChunkPlace {
    const file = this.#files[this.#fileOf[row] as number] as ResidentFile;
    return { fileNo: file.fileNo, ordinal: this.#ordinal[row] as number };
  }

  #precedes(left: number, right: number): boolean {
    const a = this.#placeOf(left);
    const b = this.#placeOf(right);
    return a.fileNo < b.fileNo || (a.fileNo === b.fileNo && a.ordinal < b.ordinal);
  }

  #fileFor(fileNo: number): number {
    const known = this.#fileByNo.get(fileNo);
    if (known !== undefined) return known;
    const position = this.#files.push({ fileNo, attributes: {}, isShown: false, rows: 0, bytes: 0 }) - 1;
    this.#fileByNo.set(fileNo, position);
    return position;
  }

  #remove(fileNo: number): void {
    const position = this.#fileByNo.get(fileNo);
    if (position === undefined) return;
    const file = this.#files[position] as ResidentFile;
    for (let row = 0; row < this.#rows; row++) if (this.#fileOf[row] === position) this.#fileOf[row] = -1;
    this.#dead += file.rows;
    this.#fileBytes -= file.bytes;
    this.#files[position] = undefined;
    this.#fileByNo.delete(fileNo);
  }

  #newRow(): number {
    const row = this.#rows;
    const perBlock = blockBytes / (this.#dimensions * 4);
    if (row === this.#blocks.length * perBlock) this.#blocks.push(this.#memory.take());
    if (row === this.#fileOf.length) this.#widen(Math.ceil(row * 1.25));
    this.#rows++;
    return row;
  }

  #widen(length: number): void {
    const widened = (from: Int32Array<ArrayBuffer>) => {
      const to = new Int32Array(length);
      to.set(from);
      return to;
    };
    this.#fileOf = widened(this.#fileOf);
    this.#ordinal = widened(this.#ordinal);
    this.#termCount = widened(this.#termCount);
    const inverseLength = new Float32Array(length);
    inverseLength.set(this.#inverseLength);
    this.#inverseLength = inverseLength;
  }

  #vectorAt(row: number): Float32Array {
    const perBlock = blockBytes / (this.#dimensions * 4);
    const address = (this.#blocks[Math.floor(row / perBlock)] as number) + (row % perBlock) * this.#dimensions * 4;
    return this.#memory.numbersAt(address, this.#dimensions);
  }

  /** 1 / length of what was written. */
  #writeVector(row: number, vectors: DataView, offset: number): number {
    const vector = this.#vectorAt(row);
    let squares = 0;
    for (let index = 0; index < vector.length; index++) {
      const value = vectors.getFloat32(offset + index * 4);
      vector[index] = value;
      squares += value * value;
    }
    return squares === 0 ? Number.NaN : 1 / Math.sqrt(squares);
  }

  #addWords(row: number, words: string, frequencies: string): void {
    if (words === '') return;
    const each = words.split('\n');
    const counts = frequencies.split('\n');
    assert(each.length === counts.length, 'every word has a frequency');
    for (const [index, word] of each.entries()) this.#words.add(word, row, Number(counts[index]));
  }

  /** Moves the rows of files that are still here together. */
  #compact(): void {
    const rowOf = new Int32Array(this.#rows).fill(-1);
    let kept = 0;
    for (let row = 0; row < this.#rows; row++) {
      if ((this.#fileOf[row] as number) < 0) continue;
      if (row !== kept) this.#moveRow(row, kept);
      rowOf[row] = kept++;
    }
    const perBlock = blockBytes / (this.#dimensions * 4);
    for (const address of this.#blocks.splice(Math.ceil(kept / perBlock))) this.#memory.give(address);
    this.#words = this.#words.renumbered(rowOf);
    this.#rows = kept;
    this.#dead = 0;
    this.#renumberFiles();
  }

  #renumberFiles(): void {
    const positionOf = new Int32Array(this.#files.length).fill(-1);
    const kept: ResidentFile[] = [];
    for (const [position, file] of this.#files.entries()) {
      if (file === undefined) continue;
      positionOf[position] = kept.push(file) - 1;
      this.#fileByNo.set(file.fileNo, positionOf[position] as number);
    }
    for (let row = 0; row < this.#rows; row++) this.#fileOf[row] = positionOf[this.#fileOf[row] as number] as number;
    this.#files = kept;
  }

  #moveRow(from: number, to: number): void {
    this.#vectorAt(to).set(this.#vectorAt(from));
    this.#fileOf[to] = this.#fileOf[from] as number;
    this.#ordinal[to] = this.#ordinal[from] as number;
    this.#termCount[to] = this.#termCount[from] as number;
    this.#inverseLength[to] = this.#inverseLength[from] as number;
  }
}
