import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseDecimal } from '../primitives/decimal.ts';
import type { TokenUsage } from '../primitives/token-usage.ts';
import { priceUsage } from './cost.ts';
import { builtInPriceFile, loadPriceBook } from './price-book.ts';
import type { CostLine } from './usage-event.ts';

const shipped = readFileSync(builtInPriceFile, 'utf8');
const book = loadPriceBook(shipped);
const modelNames = Object.keys((JSON.parse(shipped) as { models: Record<string, unknown> }).models);
const atMs = Date.UTC(2026, 10, 1);

function bookOf(models: string): ReturnType<typeof loadPriceBook> {
  return loadPriceBook(`{"version":"2026-01-01","models":${models}}`);
}

function price(model: string, usage: TokenUsage, serviceTier = 'default', prices = book) {
  return priceUsage(prices, { model, usage, serviceTier, atMs });
}

const rateKeys = (lines: readonly CostLine[]) => lines.map(({ rateKey }) => rateKey);

describe('a price that is not known', () => {
  test('makes the cost null and never 0', () => {
    const usage = { inputTokens: 10, outputTokens: 5 };
    expect(price('nobody-knows-me', usage)).toEqual({ cost: null, lines: [], priceVersion: '2026-07-24' });
    expect(price('constructor', usage).cost).toBeNull();
    expect(price('__proto__', usage).cost).toBeNull();
  });

  test('for one class of tokens makes the whole cost null, but only when such tokens were used', () => {
    const inputOnly = bookOf('{"m":{"input_cost_per_token":1e-6}}');
    expect(price('m', { inputTokens: 10, outputTokens: 0 }, 'default', inputOnly).cost).toBe(10_000n);
    expect(price('m', { inputTokens: 10, outputTokens: 1 }, 'default', inputOnly).cost).toBeNull();
  });

  test('differs from a price of 0', () => {
    const free = bookOf('{"m":{"input_cost_per_token":0.0,"output_cost_per_token":0}}');
    expect(price('m', { inputTokens: 10, outputTokens: 1 }, 'default', free).cost).toBe(0n);
  });
});

describe('thresholds', () => {
  const long = bookOf(
    '{"m":{"input_cost_per_token":1e-6,"output_cost_per_token":2e-6,"input_cost_per_token_above_128k_tokens":3e-6,' +
      '"input_cost_per_token_above_256k_tokens":5e-6,"output_cost_per_token_above_128k_tokens":7e-6,"input_cost_per_token_priority":9e-6,' +
      '"input_cost_per_token_above_256k_tokens_priority":11e-6},' +
      '"x":{"litellm_provider":"xai","input_cost_per_token":1e-6,"input_cost_per_token_above_128k_tokens":3e-6}}',
  );

  test.each([
    [127_999, 'input_cost_per_token'],
    [128_000, 'input_cost_per_token'],
    [128_001, 'input_cost_per_token_above_128k_tokens'],
    [256_000, 'input_cost_per_token_above_128k_tokens'],
    [256_001, 'input_cost_per_token_above_256k_tokens'],
  ])('with %i input tokens the whole input costs %s', (inputTokens, key) => {
    expect(rateKeys(price('m', { inputTokens, outputTokens: 0 }, 'default', long).lines)).toEqual([key]);
  });

  test('count cached tokens too, and move the output with the input', () => {
    const { lines } = price('m', { inputTokens: 128_001, cacheReadTokens: 128_000, outputTokens: 1 }, 'default', long);
    expect(rateKeys(lines)).toEqual([
      'input_cost_per_token_above_128k_tokens',
      'input_cost_per_token_above_128k_tokens',
      'output_cost_per_token_above_128k_tokens',
    ]);
  });

  test('start at the threshold itself for xAI', () => {
    const at = (inputTokens: number) => rateKeys(price('x', { inputTokens, outputTokens: 0 }, 'default', long).lines);
    expect(at(127_999)).toEqual(['input_cost_per_token']);
    expect(at(128_000)).toEqual(['input_cost_per_token_above_128k_tokens']);
  });

  test('win over the service tier unless there is a rate for both', () => {
    const at = (inputTokens: number) => rateKeys(price('m', { inputTokens, outputTokens: 0 }, 'priority', long).lines);
    expect(at(1)).toEqual(['input_cost_per_token_priority']);
    expect(at(200_000)).toEqual(['input_cost_per_token_above_128k_tokens']);
    expect(at(300_000)).toEqual(['input_cost_per_token_above_256k_tokens_priority']);
  });
});

describe('service tiers', () => {
  const tiered = bookOf('{"m":{"input_cost_per_token":4e-6,"input_cost_per_token_priority":8e-6,"input_cost_per_token_batches":2e-6}}');
  const cost = (tier: string) => price('m', { inputTokens: 1, outputTokens: 0 }, tier, tiered).cost;

  test('fall back to the standard rate; `fast` is priority; an unknown tier is standard', () => {
    expect([cost('default'), cost('priority'), cost('fast'), cost('batch'), cost('flex'), cost('auto'), cost('__proto__')]).toEqual([
      4_000n,
      8_000n,
      8_000n,
      2_000n,
      4_000n,
      4_000n,
      4_000n,
    ]);
  });

  test('give no silent batch discount', () => {
    expect(price('m', { inputTokens: 2, outputTokens: 0 }, 'batch', bookOf('{"m":{"input_cost_per_token":4e-6}}')).cost).toBe(8_000n);
  });
});

describe('classes of tokens', () => {
  test('reasoning leaves the output only where it has its own rate', () => {
    const both = bookOf('{"m":{"output_cost_per_token":1e-6,"output_cost_per_reasoning_token":3e-6},"n":{"output_cost_per_token":1e-6}}');
    const usage = { inputTokens: 0, outputTokens: 10, reasoningTokens: 4 };
    expect(price('m', usage, 'default', both).cost).toBe(6_000n + 12_000n);
    expect(price('n', usage, 'default', both).cost).toBe(10_000n);
  });

  test('lesson 7: cache writes of an hour fall back to those of five minutes, those to the input', () => {
    const write = bookOf(
      '{"a":{"input_cost_per_token":1e-6,"cache_creation_input_token_cost":2e-6},"b":{"input_cost_per_token":1e-6},' +
        '"c":{"input_cost_per_token":1e-6,"input_cost_per_token_cache_hit":1e-7}}',
    );
    const usage = { inputTokens: 1, cacheWrite1hTokens: 1, outputTokens: 0 };
    expect(price('a', usage, 'default', write).cost).toBe(2_000n);
    expect(price('b', usage, 'default', write).cost).toBe(1_000n);
    expect(price('c', { inputTokens: 1, cacheReadTokens: 1, outputTokens: 0 }, 'default', write).cost).toBe(100n);
  });

  test('range tables apply whole: up to and including the end of a range, and the last one beyond all', () => {
    const keysAt = (inputTokens: number) => price('dashscope/qwen3-max', { inputTokens, outputTokens: 0 }).lines[0]?.rateUsd;
    expect([keysAt(1), keysAt(32_000), keysAt(32_001), keysAt(9_000_000)]).toEqual(['0.0000012', '0.0000012', '0.0000024', '0.000003']);
  });
});

/** Consistent usage: the details fit into the totals. */
const usages = fc
  .record({
    text: fc.nat(400_000),
    read: fc.nat(300_000),
    write5m: fc.nat(50_000),
    write1h: fc.nat(50_000),
    audio: fc.nat(10_000),
    said: fc.nat(50_000),
    reasoning: fc.nat(50_000),
    voiced: fc.nat(5_000),
  })
  .map((part) => ({
    inputTokens: part.text + part.read + part.write5m + part.write1h + part.audio,
    outputTokens: part.said + part.reasoning + part.voiced,
    cacheReadTokens: part.read,
    cacheWrite5mTokens: part.write5m,
    cacheWrite1hTokens: part.write1h,
    inputAudioTokens: part.audio,
    reasoningTokens: part.reasoning,
    outputAudioTokens: part.voiced,
  }));
const models = fc.constantFrom(...modelNames);
const tiers = fc.constantFrom('default', 'flex', 'priority', 'batch', 'fast', 'whatever');

describe('for every shipped model and any usage', () => {
  test('lines add up to the cost, every token is in one line, every line is its rate times its quantity, rounded half up once', () => {
    fc.assert(
      fc.property(models, usages, tiers, (model, usage, tier) => {
        const { cost, lines } = price(model, usage, tier);
        if (cost === null) {
          expect(lines).toEqual([]);
          return;
        }
        expect(lines.reduce((sum, line) => sum + line.cost, 0n)).toBe(cost);
        expect(lines.reduce((sum, line) => sum + line.quantity, 0)).toBe(usage.inputTokens + usage.outputTokens);
        for (const line of lines) expect(line.cost).toBe(exactNano(line));
      }),
      { numRuns: 500 },
    );
  });

  const grown = [
    ['inputTokens'],
    ['inputTokens', 'cacheReadTokens'],
    ['inputTokens', 'cacheWrite1hTokens'],
    ['inputTokens', 'inputAudioTokens'],
    ['outputTokens'],
    ['outputTokens', 'reasoningTokens'],
    ['outputTokens', 'outputAudioTokens'],
  ] as const;

  test.each(grown.map((fields) => [fields.join(' and '), fields] as const))(
    'more %s never costs less inside a price band',
    (_name, fields) => {
      fc.assert(
        fc.property(models, usages, tiers, fc.integer({ min: 1, max: 100 }), (model, usage, tier, extra) => {
          const more: Record<string, number> = { ...usage };
          for (const field of fields) more[field] = usage[field] + extra;
          if (bandOf(more['inputTokens'] ?? 0) !== bandOf(usage.inputTokens)) return;
          const [less, after] = [price(model, usage, tier).cost, price(model, more as unknown as TokenUsage, tier).cost];
          if (less !== null && after !== null) expect(after).toBeGreaterThanOrEqual(less);
        }),
        { numRuns: 300 },
      );
    },
  );

  test('details that overstate the total are cut to it, so nothing is billed twice', () => {
    fc.assert(
      fc.property(models, fc.nat(1_000), fc.nat(1_000), fc.nat(5_000), (model, inputTokens, outputTokens, detail) => {
        const overstated = { cacheReadTokens: detail, inputAudioTokens: detail, reasoningTokens: detail, outputAudioTokens: detail };
        const { cost, lines } = price(model, { inputTokens, outputTokens, ...overstated });
        const billed = lines.reduce((sum, line) => sum + line.quantity, 0);
        expect(cost === null ? 0 : billed).toBe(cost === null ? 0 : inputTokens + outputTokens);
      }),
    );
  });
});

test.each([
  { inputTokens: 1.5, outputTokens: 0 },
  { inputTokens: -1, outputTokens: 0 },
  { inputTokens: Number.NaN, outputTokens: 0 },
])('usage that is not whole is a programmer error: %j', (usage) => {
  expect(() => price('gpt-4o', usage)).toThrow('whole');
});

/** All thresholds and range ends of the shipped file. */
function bandOf(inputTokens: number): number {
  const edges = [32, 128, 200, 252, 256, 272, 512, 1_000].flatMap((thousands) => [thousands * 1_000 - 1, thousands * 1_000]);
  return edges.filter((edge) => inputTokens > edge).length;
}

/** Independent arithmetic: the line's own decimal text, as a fraction. */
function exactNano(line: CostLine): bigint {
  const rate = parseDecimal(line.rateUsd);
  if (!rate) throw new Error('rate is no decimal');
  const numerator = BigInt(line.quantity) * rate.digits * 1_000_000_000n * 2n + 10n ** BigInt(rate.scale);
  return numerator / (2n * 10n ** BigInt(rate.scale));
}
