import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { countTokens } from '../primitives/count-tokens.ts';
import type { ChunkingStrategy } from '../tenancy/capabilities.ts';
import { chunkBlocks, type TextChunk, textOf } from './chunk.ts';
import type { TextBlock } from './parse/document.ts';

const strategies = fc
  .integer({ min: 100, max: 4_096 })
  .chain((maxChunkTokens) =>
    fc
      .integer({ min: 0, max: Math.floor(maxChunkTokens / 2) })
      .map((overlapTokens): ChunkingStrategy => ({ type: 'static', maxChunkTokens, overlapTokens })),
  );
const words = fc.array(
  fc.constantFrom('tenant', 'lease ', 'pays.\n', '承租人支付。', '👩‍👩‍👧', 'é', ' ', '=', 'x'.repeat(300), '\u{1f600}'),
  {
    minLength: 1,
    maxLength: 400,
  },
);
const blocks = fc.array(
  fc
    .record({ words, headingLevel: fc.option(fc.integer({ min: 1, max: 6 }), { nil: undefined, freq: 4 }) })
    .map(({ words: parts, headingLevel }): TextBlock => ({ text: `a${parts.join('')}`, headingLevel })),
  { minLength: 1, maxLength: 12 },
);

function staticStrategy(maxChunkTokens: number, overlapTokens: number): ChunkingStrategy {
  return { type: 'static', maxChunkTokens, overlapTokens };
}

function overlapOf(text: string, chunk: TextChunk, next: TextChunk): string {
  return text.slice(next.start, Math.max(next.start, chunk.end));
}

describe('chunks of a document', () => {
  test('cover all its text but blanks, in order, within the bounds of size and overlap', () => {
    fc.assert(
      fc.property(blocks, strategies, (document, strategy) => {
        const text = textOf(document);
        const chunks = chunkBlocks(document, strategy);
        let covered = 0;
        for (const [index, chunk] of chunks.entries()) {
          expect(text.slice(chunk.start, chunk.end)).toBe(chunk.text);
          expect(chunk.text.isWellFormed()).toBe(true);
          expect(chunk.tokens).toBe(countTokens(chunk.text));
          expect(chunk.tokens).toBeGreaterThan(0);
          expect(chunk.tokens).toBeLessThanOrEqual(strategy.maxChunkTokens);
          expect(text.slice(covered, chunk.start).trim()).toBe('');
          expect(chunk.end).toBeGreaterThan(covered);
          covered = chunk.end;
          const next = chunks[index + 1];
          if (next) expect(countTokens(overlapOf(text, chunk, next).trim())).toBeLessThanOrEqual(strategy.overlapTokens);
        }
        expect(text.slice(covered).trim()).toBe('');
      }),
      { numRuns: 150 },
    );
  });

  test('are the same every time', () => {
    fc.assert(
      fc.property(blocks, strategies, (document, strategy) => {
        expect(chunkBlocks(document, strategy)).toEqual(chunkBlocks(document, strategy));
      }),
      { numRuns: 30 },
    );
  });

  test('hold a short document whole', () => {
    const chunks = chunkBlocks([{ text: 'Lease', headingLevel: 1 }, { text: 'The tenant pays rent.' }], staticStrategy(800, 400));
    expect(chunks.map((chunk) => chunk.text)).toEqual(['# Lease\n\nThe tenant pays rent.']);
  });

  test('repeat the end of the one before, and start at a heading once half full', () => {
    const paragraph = 'The tenant pays the rent on the first day of the month. '.repeat(5).trim();
    const document = [{ text: 'One', headingLevel: 1 }, { text: paragraph }, { text: 'Two', headingLevel: 1 }, { text: paragraph }];
    const apart = chunkBlocks(document, staticStrategy(100, 0));
    expect(apart.map((chunk) => chunk.text.slice(0, 5))).toEqual(['# One', '# Two']);
    const overlapping = chunkBlocks([{ text: paragraph.repeat(4) }], staticStrategy(100, 50));
    const [first, second] = overlapping;
    expect(first && second && overlapOf(paragraph.repeat(4), first, second).length).toBeGreaterThan(50);
  });

  test('of a megabyte without a break take bounded time and stay whole', () => {
    const text = 'ab'.repeat(500_000);
    const chunks = chunkBlocks([{ text }], staticStrategy(4_096, 0));
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(text);
  });
});
