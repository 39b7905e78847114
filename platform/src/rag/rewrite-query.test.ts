import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { rewriteByRule } from './rewrite-query.ts';

describe('a question rewritten by rule', () => {
  test.each([
    ['What is the notice period for tenants in Berlin?', 'notice period tenants in Berlin'],
    ['Hi, could you please tell me how much rent I owe for 2024?', 'rent owe 2024'],
    ['Who repairs the roof?', 'repairs roof'],
    ['Please find the “rent of flat 12” in my lease', '"rent of flat 12" in lease'],
    ['how do I install .NET 8 without root, and not in /opt?', 'install .NET 8 without root not in /opt'],
    ['I would like to know about your refund policy.', 'refund policy'],
  ])('keeps what it is about: %s', (question, query) => {
    expect(rewriteByRule(question)).toBe(query);
  });

  test.each([
    ['rent flat 12'],
    ['Was ist die Kündigungsfrist?'],
    ['Wat is de huur van het huis'],
    ['¿Cuál es el plazo?'],
    ['屋顶由谁维修？'],
    ['Quel est le loyer'],
    ['what is it?'],
    [''],
    ['   '],
  ])('stays as it is when it is no English question, or nothing would be left: %s', (question) => {
    expect(rewriteByRule(question)).toBe(question);
  });

  test('changes nothing when it is applied twice, and invents no word', () => {
    const word = fc.constantFrom(
      'what',
      'is',
      'the',
      'rent',
      'Of',
      'roof?',
      '"a the b"',
      'please',
      'not',
      '12',
      'ß',
      'with',
      "what's",
      ',',
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 12 }), (words) => {
        const text = words.join(' ');
        const once = rewriteByRule(text);
        expect(rewriteByRule(once)).toBe(once);
        const known = new Set(text.split(/\s+/).map((item) => item.replaceAll(/[?,]/g, '')));
        for (const item of once.split(/\s+/)) expect(known.has(item.replaceAll(/[?,]/g, ''))).toBe(true);
      }),
    );
  });
});
