import { expect, it } from 'vitest';
import { seededRandom } from '../../primitives/random.ts';
import { WordIndex } from './word-index.ts';

type Postings = readonly (readonly [row: number, frequency: number])[];

function postingsOf(index: WordIndex, word: string): Postings {
  const found: [number, number][] = [];
  index.visit(word, (row, frequency) => found.push([row, frequency]));
  return found;
}

it('gives back what a map of lists would, in the order in which it came', () => {
  const random = seededRandom(7);
  const index = new WordIndex();
  const model = new Map<string, [number, number][]>();
  for (let row = 0; row < 3_000; row++) {
    for (let count = 0; count < 8; count++) {
      // A few words are everywhere, most stand once; all lengths, and letters of one to four bytes.
      const number = Math.floor(20_000 ** random.next());
      const word = `${'wö語🦔'.slice(0, number % 6)}${number}`;
      const frequency = 1 + Math.floor(random.next() * 256);
      index.add(word, row, frequency);
      model.set(word, [...(model.get(word) ?? []), [row, frequency]]);
    }
  }
  for (const [word, postings] of model) expect(postingsOf(index, word)).toEqual(postings);
  expect(postingsOf(index, 'absent')).toEqual([]);

  const rowOf = Int32Array.from({ length: 3_000 }, (_, row) => (row % 3 === 0 ? -1 : row - Math.ceil(row / 3)));
  const renumbered = index.renumbered(rowOf);
  for (const [word, postings] of model) {
    const kept = postings.filter(([row]) => rowOf[row] !== -1).map(([row, frequency]) => [rowOf[row], frequency]);
    expect(postingsOf(renumbered, word)).toEqual(kept);
  }
  expect(renumbered.bytes).toBeLessThan(index.bytes * 1.1);
});

it('holds the longest lexeme, the largest row and the largest frequency', () => {
  const index = new WordIndex();
  const longest = '語'.repeat(682);
  for (const row of [0, 8_388_607]) index.add(longest, row, 511);
  index.add('', 1, 1);
  expect(postingsOf(index, longest)).toEqual([
    [0, 511],
    [8_388_607, 511],
  ]);
  expect(postingsOf(index, '')).toEqual([[1, 1]]);
  expect(() => index.add('a', 8_388_608, 1)).toThrow('posting');
  expect(() => index.add('a', 0, 512)).toThrow('posting');
});

it('takes about 34 bytes a word and 5 a posting', () => {
  const index = new WordIndex();
  for (let word = 0; word < 20_000; word++) index.add(`word${word}`, word, 1);
  expect(index.bytes / 20_000).toBeLessThan(55);
  const before = index.bytes;
  for (let row = 0; row < 200_000; row++) index.add(`word${row % 10}`, row, 1);
  expect((index.bytes - before) / 200_000).toBeLessThan(8);
});
