/**
 * Which rows hold a word, and how often: one list a word, 4 bytes a posting. Most words stand in one row; theirs is a number, not a list.
 */
import { assert } from '../../primitives/assert.ts';

/** PostgreSQL keeps at most 256 positions of a word. */
const frequencyRange = 512;
export const rowsMax = 2 ** 32 / frequencyRange;

interface PostingList {
  postings: Uint32Array;
  length: number;
}

/** Roughly what a word costs in the map besides its list. */
const entryBytes = 96;

export class WordIndex {
  #lists = new Map<string, number | PostingList>();
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  add(word: string, row: number, frequency: number): void {
    assert(row < rowsMax && frequency < frequencyRange, 'a posting fits its 32 bits');
    const posting = row * frequencyRange + frequency;
    const known = this.#lists.get(word);
    if (known === undefined) {
      this.#lists.set(word, posting);
      this.#bytes += entryBytes + 2 * word.length;
    } else if (typeof known === 'number') {
      const postings = new Uint32Array(4);
      postings.set([known, posting]);
      this.#lists.set(word, { postings, length: 2 });
      this.#bytes += postings.byteLength + 64;
    } else {
      this.#append(known, posting);
    }
  }

  /** In the order in which they were added. */
  visit(word: string, see: (row: number, frequency: number) => void): void {
    const known = this.#lists.get(word);
    if (known === undefined) return;
    if (typeof known === 'number') {
      see(Math.floor(known / frequencyRange), known % frequencyRange);
      return;
    }
    for (let index = 0; index < known.length; index++) {
      const posting = known.postings[index] as number;
      see(posting >>> 9, posting & 511);
    }
  }

  /** The same words with rows renumbered; a row that becomes -1 is left out. */
  renumbered(rowOf: Int32Array): WordIndex {
    const index = new WordIndex();
    for (const word of this.#lists.keys()) {
      this.visit(word, (row, frequency) => {
        const moved = rowOf[row] as number;
        if (moved >= 0) index.add(word, moved, frequency);
      });
    }
    return index;
  }

  #append(list: PostingList, posting: number): void {
    if (list.length === list.postings.length) {
      const grown = new Uint32Array(Math.ceil(list.length * 1.5));
      grown.set(list.postings);
      this.#bytes += grown.byteLength - list.postings.byteLength;
      list.postings = grown;
    }
    list.postings[list.length++] = posting;
  }
}
