import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { armDepth, fuse, rankByDistance, wordScore, wordWeight } from './hybrid-ranking.ts';

const place = (fileNo: number, ordinal = 0) => ({ fileNo, ordinal });
const weights = { dense: 1, lexical: 1 };

describe('fuse', () => {
  test('scores exactly 1 what is first in both arms, whatever they weigh, and nothing more', () => {
    const weight = fc.double({ min: 0, max: 1_000, noNaN: true });
    fc.assert(
      fc.property(weight, weight, (dense, lexical) => {
        fc.pre(dense + lexical > 0);
        const arms = { dense: [place(1), place(2), place(3)], lexical: [place(1), place(3)] };
        const scores = fuse(arms, { weights: { dense, lexical }, limit: 10 }).map(({ score }) => score);
        expect(scores[0]).toBe(1);
        expect(Math.max(...scores)).toBe(1);
      }),
    );
  });

  test('puts what both arms found first, and scores it 1 when both found it first', () => {
    const ranked = fuse({ dense: [place(1), place(2)], lexical: [place(1), place(3)] }, { weights, limit: 10 });
    expect(ranked[0]).toEqual({ ...place(1), score: 1 });
    expect(ranked.map(({ fileNo }) => fileNo)).toEqual([1, 2, 3]);
  });

  test('breaks ties by place', () => {
    const ranked = fuse({ dense: [place(9)], lexical: [place(4, 2)] }, { weights, limit: 10 });
    expect(ranked.map(({ fileNo }) => fileNo)).toEqual([4, 9]);
  });

  test('leaves words out that weigh nothing, and never the vectors', () => {
    const arms = { dense: [place(1)], lexical: [place(2)] };
    expect(fuse(arms, { weights: { dense: 1, lexical: 0 }, limit: 10 })).toEqual([{ ...place(1), score: 1 }]);
    const byWords = fuse(arms, { weights: { dense: 0, lexical: 1 }, limit: 10 });
    expect(byWords.map(({ fileNo }) => fileNo)).toEqual([2, 1]);
    expect(byWords[1]?.score).toBeGreaterThan(0);
  });

  test('gives the limit and no more', () => {
    const dense = [1, 2, 3].map((fileNo) => place(fileNo));
    expect(fuse({ dense, lexical: [] }, { weights, limit: 2 })).toHaveLength(2);
    expect(fuse({ dense, lexical: [] }, { weights, limit: 3 })).toHaveLength(3);
  });
});

describe('rankByDistance', () => {
  const question = Float32Array.of(1, 0);

  test('orders by distance, equal vectors by place, vectors without length last', () => {
    const candidates = [
      { ...place(5), vector: Float32Array.of(0, 0) },
      { ...place(4), vector: Float32Array.of(2, 0) },
      { ...place(1), vector: Float32Array.of(0, 3) },
      { ...place(2), vector: Float32Array.of(1, 0) },
    ];
    expect(rankByDistance(candidates, question).map(({ fileNo }) => fileNo)).toEqual([2, 4, 1, 5]);
  });

  test('orders by place alone when the question has no length', () => {
    const candidates = [place(2), place(1)].map((at) => ({ ...at, vector: Float32Array.of(1, at.fileNo) }));
    expect(rankByDistance(candidates, Float32Array.of(0, 0)).map(({ fileNo }) => fileNo)).toEqual([1, 2]);
  });

  test('tells apart what single precision does not', () => {
    const nearer = { ...place(2), vector: Float32Array.of(1, 1e-5) };
    const farther = { ...place(1), vector: Float32Array.of(1, 2e-5) };
    expect(rankByDistance([farther, nearer], question).map(({ fileNo }) => fileNo)).toEqual([2, 1]);
  });

  test('keeps the depth of an arm', () => {
    const candidates = Array.from({ length: armDepth + 1 }, (_, index) => ({ ...place(index), vector: Float32Array.of(1, index) }));
    expect(rankByDistance(candidates, question)).toHaveLength(armDepth);
  });
});

test('words are weighed by how few chunks hold them, never below zero, in whole units', () => {
  expect(wordWeight(100, 1)).toBeGreaterThan(wordWeight(100, 50));
  expect(wordWeight(1, 1)).toBeGreaterThan(0);
  expect(Number.isInteger(wordWeight(1_000, 7) * 2 ** 20)).toBe(true);
  expect(Number.isInteger(wordScore(wordWeight(1_000, 7), { frequency: 3, termCount: 40 }, 55.5))).toBe(true);
});
