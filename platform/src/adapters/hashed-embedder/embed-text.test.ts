import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { embedText } from './embed-text.ts';

function similarity(left: string, right: string, dimensions = 384): number {
  const a = embedText(left, dimensions);
  const b = embedText(right, dimensions);
  return a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
}

const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 200 }),
  fc.string({ maxLength: 200 }),
  fc.constantFrom('', ' ', '\u0000', '!?', '\ud800'),
);

describe('an embedded text', () => {
  test('is a finite vector of length one, whatever the text', () => {
    fc.assert(
      fc.property(anyText, fc.integer({ min: 1, max: 1_024 }), (text, dimensions) => {
        const vector = embedText(text, dimensions);
        expect(vector).toHaveLength(dimensions);
        expect(vector.every(Number.isFinite)).toBe(true);
        expect(Math.hypot(...vector)).toBeCloseTo(1, 4);
      }),
    );
  });

  test('is the same on every machine', () => {
    const vector = embedText('The tenant owns every byte. Größe, naïve, 多租户, emoji 🚀.', 8);
    const pinned = [0.04899, -0.63661, -0.10053, 0.43925, -0.46, 0.20336, 0.30168, 0.21287];
    for (const [index, value] of pinned.entries()) expect(vector[index]).toBeCloseTo(value, 4);
  });

  test('does not depend on what was embedded before', () => {
    const alone = embedText('alpha beta', 384);
    embedText('gamma delta '.repeat(1_000), 384);
    expect(embedText('alpha beta', 384)).toEqual(alone);
  });

  test('is nearer to a paraphrase with the same words than to another subject', () => {
    const question = 'How do I rotate an API key?';
    expect(similarity(question, 'To rotate API keys, open the settings of the key.')).toBeGreaterThan(
      similarity(question, 'The lease ends when the tenant moves out.') + 0.2,
    );
  });

  test.each([
    ['an inflected word', 'rotation of keys', 'rotating the key', 'lease of flats'],
    ['a compound', 'Mietvertrag', 'Mietvertragsklausel', 'Gewürzgurke'],
    ['Chinese without spaces', '租户隔离', '每个租户的隔离', '今天天气很好'],
    ['case and width', 'ＴＥＮＡＮＴ', 'tenant', 'tariff'],
  ])('is near to %s', (_name, text, near, far) => {
    expect(similarity(text, near)).toBeGreaterThan(similarity(text, far) + 0.1);
  });

  test('repeats a word with less and less effect', () => {
    expect(similarity('apple pear', `${'apple '.repeat(50)}pear`)).toBeGreaterThan(0.6);
  });
});
