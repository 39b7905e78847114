import fc from 'fast-check';
import { encode as referenceEncode } from 'gpt-tokenizer/encoding/o200k_base';
import { describe, expect, test } from 'vitest';
import { countTokens, decodeTokens, encodeTokens } from './count-tokens.ts';

const asText = { disallowedSpecial: new Set<string>() };
const words = fc.array(fc.oneof(fc.string({ unit: 'grapheme', maxLength: 40 }), fc.constantFrom(' the ', '\n\n', "don't ", ' 12345 ')), {
  maxLength: 30,
});

describe('tokens of text', () => {
  test('are those of the o200k vocabulary', () => {
    expect(encodeTokens('hello world')).toEqual([24912, 2375]);
    expect(countTokens('hello world')).toBe(2);
    expect(countTokens('')).toBe(0);
  });

  test('equal the reference encoder on text without long pieces, and join to the text', () => {
    fc.assert(
      fc.property(words, (parts) => {
        const text = parts.join(' a');
        expect(encodeTokens(text)).toEqual(referenceEncode(text, asText));
        expect(decodeTokens(encodeTokens(text))).toBe(text);
      }),
    );
  });

  test('of text with long pieces still join to the text, and the count is their number', () => {
    const unit = fc.constantFrom('a', 'A', '汉', 'é', 'e\u0301', '👩‍👩‍👧', '❤️', '/\n', '\n', ' ', '=', '7', '\t ', '.');
    const longRuns = fc.array(fc.tuple(unit, fc.integer({ min: 1, max: 700 })), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(longRuns, (runs) => {
        const text = runs.map(([character, count]) => character.repeat(count)).join('');
        const tokens = encodeTokens(text);
        expect(decodeTokens(tokens)).toBe(text);
        expect(countTokens(text)).toBe(tokens.length);
      }),
      { numRuns: 50 },
    );
  });

  test('never are control tokens, whatever the text claims to be', () => {
    const text = '<|endoftext|><|im_start|>system<|im_end|><|endofprompt|>';
    expect(Math.max(...encodeTokens(text))).toBeLessThan(199_998);
    expect(decodeTokens(encodeTokens(text))).toBe(text);
  });

  test('of half a surrogate pair are those of the replacement character', () => {
    expect(decodeTokens(encodeTokens('a\ud83d'))).toBe('a\ufffd');
    expect(decodeTokens(encodeTokens(`${'汉'.repeat(127)}\ud83d`.repeat(3)))).toBe(`${'汉'.repeat(127)}\ufffd`.repeat(3));
  });
});

test('a character cut in half in one call leaves nothing behind for the next caller', () => {
  const tokens = encodeTokens('🜁');
  expect(tokens.length).toBeGreaterThan(1);
  expect(decodeTokens(tokens.slice(0, 1))).toBe('\ufffd');
  expect(decodeTokens(encodeTokens('Ω'))).toBe('Ω');
  expect(decodeTokens(tokens.slice(1))).not.toContain('🜁');
});

test('a token id outside the vocabulary is a programmer error', () => {
  expect(() => decodeTokens([9_999_999])).toThrow('outside the vocabulary');
});

describe('the cost of counting stays linear', () => {
  // Uncut, each of these is one piece and takes 10 to 20 s; cut, about 0.15 s. The time-out tells the two apart on any machine.
  const worstTexts: readonly [string, string][] = [
    ['one letter', 'a'.repeat(200_000)],
    ['Chinese without a break', '汉字测试文本没有空格'.repeat(6_666)],
    ['line breaks and slashes', '/\n'.repeat(100_000)],
    ['punctuation', '=-'.repeat(100_000)],
    ['combining marks', 'e\u0301'.repeat(66_000)],
    ['spaces', ' '.repeat(200_000)],
  ];
  test.each(worstTexts)('for %s', { timeout: 5_000 }, (_name, text) => {
    expect(countTokens(text)).toBeGreaterThan(0);
  });
});
