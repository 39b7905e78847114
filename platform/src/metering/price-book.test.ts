import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { formatDecimal } from '../primitives/decimal.ts';
import { builtInPriceFile, loadPriceBook, type PriceQuery } from './price-book.ts';

const shippedText = readFileSync(builtInPriceFile, 'utf8');
const atMs = Date.UTC(2026, 10, 1);

function inputRate(book: ReturnType<typeof loadPriceBook>, query: Omit<PriceQuery, 'atMs'> & { readonly atMs?: number }) {
  const rate = book.find({ atMs, ...query })?.price.rates.get('input_cost_per_token');
  return rate && formatDecimal(rate);
}

const edition = (version: string, models: string) => `{"version":"${version}","models":${models}}`;

describe('the shipped prices', () => {
  const book = loadPriceBook(shippedText);

  test('carry the date of their copy', () => {
    expect(book.versionAt(atMs)).toBe('2026-07-24');
  });

  test('are exact: the digits of the file, not those of a double', () => {
    expect(inputRate(book, { model: 'text-embedding-3-small' })).toBe('0.00000002');
    const noisy = loadPriceBook(edition('2026-01-01', '{"m":{"input_cost_per_token":0.1000000000000000055511151231257827}}'));
    expect(inputRate(noisy, { model: 'm' })).toBe('0.1000000000000000055511151231257827');
  });

  test('are found under the name with and without its provider', () => {
    const expected = inputRate(book, { model: 'gpt-4o' });
    expect(expected).toBe('0.0000025');
    expect(inputRate(book, { model: 'openai/gpt-4o' })).toBe(expected);
    expect(inputRate(book, { model: 'my-proxy/openai/gpt-4o' })).toBe(expected);
    expect(inputRate(book, { model: 'gemini-2.5-pro', provider: 'gemini' })).toBe(inputRate(book, { model: 'gemini/gemini-2.5-pro' }));
  });

  test('go by what was called before what it was called by', () => {
    expect(inputRate(book, { model: 'gpt-4o', upstreamModel: 'gpt-4o-mini' })).toBe('0.00000015');
    expect(inputRate(book, { model: 'gpt-4o', upstreamModel: 'my-deployment' })).toBe('0.0000025');
  });
});

describe('configured prices', () => {
  const configured = [{ model: 'gpt-4o', inputUsdPerMillion: 0.15, outputUsdPerMillion: 0.6 }];
  const book = loadPriceBook(shippedText, configured);

  test('win over the file and are exact', () => {
    expect(inputRate(book, { model: 'gpt-4o', upstreamModel: 'gpt-4o' })).toBe('0.00000015');
    expect(inputRate(loadPriceBook(shippedText, [{ model: 'm', inputUsdPerMillion: 1e-7, outputUsdPerMillion: 0 }]), { model: 'm' })).toBe(
      '0.0000000000001',
    );
  });

  test('have a version of their own that changes with the price', () => {
    const version = (input: number) =>
      loadPriceBook(shippedText, [{ model: 'm', inputUsdPerMillion: input, outputUsdPerMillion: 1 }]).find({ model: 'm', atMs })?.version;
    expect(version(1)).toMatch(/^config-[0-9a-f]{12}$/);
    expect(version(1)).toBe(version(1));
    expect(version(1)).not.toBe(version(2));
  });
});

describe('editions', () => {
  const older = edition('2026-01-01', '{"m":{"input_cost_per_token":1e-6}}');
  const newer = edition('2026-06-01', '{"m":{"input_cost_per_token":2e-6}}');
  const book = loadPriceBook([newer, older]);

  test('are in force from their date until the next one', () => {
    const at = (date: string) => inputRate(book, { model: 'm', atMs: Date.parse(date) });
    expect(at('2026-05-31T23:59:59.999Z')).toBe('0.000001');
    expect(at('2026-06-01T00:00:00.000Z')).toBe('0.000002');
    expect(at('2020-01-01')).toBe('0.000001');
    expect(book.versionAt(Date.parse('2026-03-01'))).toBe('2026-01-01');
  });

  test('that are no price files are refused', () => {
    expect(() => loadPriceBook('[]')).toThrow('object');
    expect(() => loadPriceBook('{"models":{}}')).toThrow('version');
    expect(() => loadPriceBook('{"version":"soon","models":{}}')).toThrow('date');
    expect(() => loadPriceBook('{"version":"2026-01-01"}')).toThrow('models');
    expect(() => loadPriceBook('nonsense')).toThrow(SyntaxError);
  });
});
