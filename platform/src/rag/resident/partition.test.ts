import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../primitives/random.ts';
import type { Attributes } from '../../tenancy/attributes.ts';
import { armDepth, type ChunkPlace, comparePlaces, meanTermsOf, rankByDistance, wordScore, wordWeight } from '../hybrid-ranking.ts';
import { BlockMemory, BlocksExhausted, blockBytes } from './block-memory.ts';
import { createDotKernel } from './dot-kernel.ts';
import { type ChunkBatch, Partition } from './partition.ts';
import { TopRows } from './top-rows.ts';

const random = seededRandom(20_261_127);
const below = (limit: number) => Math.floor(random.next() * limit);
const vectorOf = (dimensions: number) => Float32Array.from({ length: dimensions }, () => random.next() - 0.5);

interface Chunk extends ChunkPlace {
  readonly vector: Float32Array;
  readonly words: ReadonlyMap<string, number>;
}

function chunkOf(fileNo: number, ordinal: number, dimensions = 384): Chunk {
  const words = new Map<string, number>();
  for (let index = 0; index < 12; index++) words.set(`w${below(40)}`, 1 + below(4));
  return { fileNo, ordinal, vector: vectorOf(dimensions), words };
}

const termsOf = (chunk: Chunk) => [...chunk.words.values()].reduce((sum, count) => sum + count, 0);

/** As the database sends it: a head of four bytes and numbers in network order. */
function batchOf(chunks: readonly Chunk[]): ChunkBatch {
  const parts = chunks.map(({ vector }) => {
    const bytes = new DataView(new ArrayBuffer(4 + vector.byteLength));
    for (const [index, value] of vector.entries()) bytes.setFloat32(4 + index * 4, value);
    return new Uint8Array(bytes.buffer);
  });
  return {
    fileNos: Int32Array.from(chunks, (chunk) => chunk.fileNo),
    ordinals: Int32Array.from(chunks, (chunk) => chunk.ordinal),
    termCounts: Int32Array.from(chunks, termsOf),
    vectors: Uint8Array.from(Buffer.concat(parts)),
    words: chunks.map((chunk) => [...chunk.words.keys()].join('\n')),
    frequencies: chunks.map((chunk) => [...chunk.words.values()].join('\n')),
  };
}

function statisticsOf(chunks: readonly Chunk[]) {
  return { chunkCount: chunks.length, termCount: chunks.reduce((sum, chunk) => sum + termsOf(chunk), 0) };
}

/** In plain code: every chunk scored, sorted whole. */
function matchingByHand(chunks: readonly Chunk[], words: readonly string[], seen: (chunk: Chunk) => boolean) {
  const store = statisticsOf(chunks);
  const rarest = words
    .map((word) => ({ word, holding: chunks.filter((chunk) => chunk.words.has(word)).length }))
    .filter(({ holding }) => holding > 0)
    .sort((left, right) => left.holding - right.holding || (left.word < right.word ? -1 : 1))
    .slice(0, 16);
  return chunks
    .filter((chunk) => seen(chunk) && rarest.some(({ word }) => chunk.words.has(word)))
    .map((chunk) => {
      const score = rarest.reduce((sum, { word, holding }) => {
        const frequency = chunk.words.get(word) ?? 0;
        return frequency === 0
          ? sum
          : sum + wordScore(wordWeight(store.chunkCount, holding), { frequency, termCount: termsOf(chunk) }, meanTermsOf(store));
      }, 0);
      return { fileNo: chunk.fileNo, ordinal: chunk.ordinal, score };
    })
    .sort((left, right) => right.score - left.score || comparePlaces(left, right))
    .slice(0, armDepth)
    .map(({ fileNo, ordinal }) => ({ fileNo, ordinal }));
}

const placesOf = (places: readonly ChunkPlace[]) => places.map(({ fileNo, ordinal }) => `${fileNo}:${ordinal}`);

describe('the kernel', () => {
  test.each([384, 768, 1_024, 1_536, 3_072])('multiplies %i numbers as plain code does, to 1e-5, for runs of any length', (dimensions) => {
    const kernel = createDotKernel(64);
    kernel.memory.grow(20);
    const numbers = new Float32Array(kernel.memory.buffer);
    for (const count of [1, 2, 3, 7, 32]) {
      const rows = Array.from({ length: count }, () => vectorOf(dimensions));
      const question = vectorOf(dimensions);
      numbers.set(question, 0);
      for (const [index, row] of rows.entries()) numbers.set(row, 16_384 + index * dimensions);
      kernel.dots(65_536, count + (count % 2), dimensions * 4, 0, 16_384);
      for (const [index, row] of rows.entries()) {
        const expected = row.reduce((sum, value, at) => sum + value * (question[at] as number), 0);
        expect(numbers[4_096 + index]).toBeCloseTo(expected, 5);
      }
    }
  });
});

test('the best rows of a scan are those of a whole sort, ties by place', () => {
  for (let round = 0; round < 50; round++) {
    const scores = Array.from({ length: below(300) }, () => below(20));
    const top = new TopRows(1 + below(40), (left, right) => left < right);
    for (const [row, score] of scores.entries()) if (score >= top.floor) top.offer(row, score);
    const whole = scores.map((score, row) => ({ score, row })).sort((left, right) => right.score - left.score || left.row - right.row);
    expect(top.ranked()).toEqual(whole.slice(0, top.ranked().length).map(({ row }) => row));
  }
});

describe('a partition', () => {
  const attributesOf = (fileNo: number): Attributes => ({ year: 2_000 + (fileNo % 5) });

  function check(partition: Partition, chunks: readonly Chunk[], dimensions = 384): void {
    for (const filter of [undefined, { type: 'gte', key: 'year', value: 2_002 } as const]) {
      const seen = (chunk: Chunk) => filter === undefined || (attributesOf(chunk.fileNo)['year'] as number) >= 2_002;
      const question = vectorOf(dimensions);
      const words = Array.from(new Set(Array.from({ length: 20 }, () => `w${below(50)}`)));
      expect(placesOf(partition.nearest(question, filter))).toEqual(placesOf(rankByDistance(chunks.filter(seen), question)));
      expect(placesOf(partition.matching(words, filter))).toEqual(placesOf(matchingByHand(chunks, words, seen)));
    }
  }

  test('answers what brute force answers through 60 random changes, rows moved together included', () => {
    const memory = new BlockMemory(50 * blockBytes);
    const partition = new Partition(memory, 384);
    let chunks: Chunk[] = [];
    let nextFile = 1;
    for (let revision = 1; revision <= 60; revision++) {
      const added = Array.from({ length: below(6) }, () => nextFile++);
      const fresh = added.flatMap((fileNo) => Array.from({ length: 1 + below(8) }, (_, ordinal) => chunkOf(fileNo, ordinal)));
      const files = [...new Set(chunks.map((chunk) => chunk.fileNo))];
      const removed = files.filter(() => random.next() < 0.07);
      for (let from = 0; from < fresh.length; from += 3) partition.append(batchOf(fresh.slice(from, from + 3)));
      chunks = [...chunks.filter((chunk) => !removed.includes(chunk.fileNo)), ...fresh];
      const shown = added.map((fileNo) => ({ fileNo, attributes: attributesOf(fileNo) }));
      partition.publish({ revision, ...statisticsOf(chunks), shown, removed });
      expect(partition.revision).toBe(revision);
      check(partition, chunks);
      // Rows of removed files: 8 % or 64, and what does not fill a block.
      expect(memory.takenBytes).toBeLessThanOrEqual(Math.ceil(Math.max(chunks.length + 65, chunks.length / 0.92) / 32) * blockBytes);
    }
    expect(chunks.length).toBeGreaterThan(150);
  });

  test('orders copies of one chunk by place, whichever came first', () => {
    const partition = new Partition(new BlockMemory(10 * blockBytes), 384);
    const one = chunkOf(1, 0);
    const copies = [7, 3, 9, 1].map((fileNo) => ({ ...one, fileNo }));
    partition.append(batchOf(copies));
    partition.publish({
      revision: 1,
      ...statisticsOf(copies),
      shown: copies.map(({ fileNo }) => ({ fileNo, attributes: {} })),
      removed: [],
    });
    expect(placesOf(partition.nearest(one.vector, undefined))).toEqual(['1:0', '3:0', '7:0', '9:0']);
    expect(placesOf(partition.matching([...one.words.keys()], undefined))).toEqual(['1:0', '3:0', '7:0', '9:0']);
  });

  test('shows nothing that was not published', () => {
    const partition = new Partition(new BlockMemory(10 * blockBytes), 384);
    const chunks = [chunkOf(1, 0), chunkOf(2, 0)];
    partition.append(batchOf(chunks));
    partition.publish({ revision: 1, ...statisticsOf(chunks.slice(0, 1)), shown: [{ fileNo: 1, attributes: {} }], removed: [] });
    expect(placesOf(partition.nearest(vectorOf(384), undefined))).toEqual(['1:0']);
  });

  test('takes new attributes of a file', () => {
    const partition = new Partition(new BlockMemory(10 * blockBytes), 384);
    const chunks = [chunkOf(1, 0)];
    const found = () => partition.nearest(vectorOf(384), { type: 'eq', key: 'kind', value: 'new' });
    partition.append(batchOf(chunks));
    partition.publish({ revision: 1, ...statisticsOf(chunks), shown: [{ fileNo: 1, attributes: { kind: 'old' } }], removed: [] });
    expect(found()).toEqual([]);
    partition.publish({ revision: 2, ...statisticsOf(chunks), shown: [{ fileNo: 1, attributes: { kind: 'new' } }], removed: [] });
    expect(found()).toHaveLength(1);
  });

  test('puts vectors without length last and drops none', () => {
    const partition = new Partition(new BlockMemory(10 * blockBytes), 384);
    const chunks = [{ ...chunkOf(1, 0), vector: new Float32Array(384) }, chunkOf(2, 0)];
    partition.append(batchOf(chunks));
    partition.publish({ revision: 1, ...statisticsOf(chunks), shown: [1, 2].map((fileNo) => ({ fileNo, attributes: {} })), removed: [] });
    expect(placesOf(partition.nearest(vectorOf(384), undefined))).toEqual(['2:0', '1:0']);
    expect(placesOf(partition.nearest(new Float32Array(384), undefined))).toEqual(['1:0', '2:0']);
  });

  test('fits n blocks and not n + 1, and gives them back empty', () => {
    const memory = new BlockMemory(2 * blockBytes);
    const rows = (2 * blockBytes) / (384 * 4);
    const partition = new Partition(memory, 384);
    const chunks = Array.from({ length: rows }, (_, index) => chunkOf(index + 1, 0));
    partition.append(batchOf(chunks));
    expect(memory.takenBytes).toBe(2 * blockBytes);
    expect(() => partition.append(batchOf([chunkOf(rows + 1, 0)]))).toThrow(BlocksExhausted);
    partition.release();
    expect(memory.takenBytes).toBe(0);
    for (let block = 0; block < 2; block++)
      expect(memory.numbersAt(memory.take(), blockBytes / 4).every((value) => value === 0)).toBe(true);
  });

  test('of 1,000 chunks holds at most 1.15 times their vectors, words aside', () => {
    const partition = new Partition(new BlockMemory(64 * blockBytes), 384);
    const chunks = Array.from({ length: 1_000 }, (_, index) => ({ ...chunkOf(1, index), words: new Map<string, number>() }));
    partition.append(batchOf(chunks));
    partition.publish({ revision: 1, ...statisticsOf(chunks), shown: [{ fileNo: 1, attributes: {} }], removed: [] });
    expect(partition.bytes).toBeLessThanOrEqual(1_000 * 384 * 4 * 1.15);
  });

  test('answers several questions in one pass, each as if alone', () => {
    const partition = new Partition(new BlockMemory(50 * blockBytes), 384);
    const chunks = Array.from({ length: 150 }, (_, index) => chunkOf(1 + (index % 9), Math.floor(index / 9)));
    partition.append(batchOf(chunks));
    const shown = Array.from({ length: 9 }, (_, index) => ({ fileNo: index + 1, attributes: attributesOf(index + 1) }));
    partition.publish({ revision: 1, chunkCount: 150, termCount: 1, shown, removed: [] });
    const filters = [undefined, { type: 'gte', key: 'year', value: 2_003 } as const, { type: 'eq', key: 'year', value: 1 } as const];
    const asked = Array.from({ length: 8 }, (_, index) => ({ question: vectorOf(384), filter: filters[index % 3] }));
    const alone = asked.map(({ question, filter }) => placesOf(partition.nearest(question, filter)));
    expect(partition.nearestOf(asked).map(placesOf)).toEqual(alone);
    expect(alone.map((places) => places.length > 0)).toEqual(asked.map((_, index) => index % 3 !== 2));
    expect(partition.nearestOf([])).toEqual([]);
  });
});
