import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readEvaluationSet } from '../../bench/retrieval/evaluation-set.ts';
import { measureQuality, ndcg } from '../../bench/retrieval/ranking-quality.ts';
import { referenceQuality } from '../../bench/retrieval/reference-quality.ts';
import { Library } from './library.ts';

let library: Library;
beforeAll(async () => {
  library = await Library.open();
});
afterAll(() => library[Symbol.asyncDispose]());

describe('ranking', () => {
  test.each(['xquad-en', 'xquad-zh', 'codebase', 'documentation'] as const)(
    'of %s: words, and both arms together, as good as the reference',
    async (name) => {
      const quality = await measureQuality(library, readEvaluationSet(name));
      expect(quality.lexical).toBeGreaterThanOrEqual(referenceQuality[name].lexical - 0.01);
      expect(quality.fused).toBeGreaterThanOrEqual(referenceQuality[name].fused - 0.01);
      expect(quality.fused).toBeGreaterThanOrEqual(quality.lexical - 0.01);
      expect(quality.hashed).toBeGreaterThan(0.5);
    },
  );

  test('is measured as the literature does', () => {
    expect(ndcg([7, 1, 2], [7])).toBe(1);
    expect(ndcg([1, 7], [7])).toBeCloseTo(1 / Math.log2(3), 12);
    expect(ndcg([1, 7, 8], [7, 8])).toBeCloseTo((1 / Math.log2(3) + 0.5) / (1 + 1 / Math.log2(3)), 12);
    expect(ndcg([1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 7], [7])).toBe(0);
  });
});
