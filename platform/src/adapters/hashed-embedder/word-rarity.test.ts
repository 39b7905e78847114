import { describe, expect, it } from 'vitest';
import { rarityOf } from './word-rarity.ts';

describe('the rarity of a word', () => {
  it('grows from words that everybody uses to words that few do', () => {
    expect(rarityOf('the')).toBeLessThan(0.5);
    expect(rarityOf('the')).toBeLessThan(rarityOf('pressure'));
    expect(rarityOf('pressure')).toBeLessThan(rarityOf('heliotrope'));
  });

  it('is 1 for what the vocabulary does not know as a word', () => {
    for (const word of ['zxqvw', 'constructor2', '__proto__', '']) expect(rarityOf(word)).toBe(1);
  });
});
