import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { priceUsage } from '../../src/metering/cost.ts';
import { builtInPriceFile, loadPriceBook } from '../../src/metering/price-book.ts';
import { parseDecimal, timesRate } from '../../src/primitives/decimal.ts';
import type { TokenUsage } from '../../src/primitives/token-usage.ts';

interface CostVector {
  readonly name: string;
  readonly model: string;
  readonly service_tier: string;
  readonly usage: Readonly<Record<string, number>>;
  readonly lines: readonly { component: string; quantity: number; rate: string; rate_key: string; usd: string }[];
  readonly total_usd: string;
}

const file = JSON.parse(readFileSync(new URL('cost-vectors.json', import.meta.url), 'utf8')) as { cases: readonly CostVector[] };
const book = loadPriceBook(readFileSync(builtInPriceFile, 'utf8'));

describe('the golden cost vectors come out exactly, line by line', () => {
  test('there are 15 of them', () => expect(file.cases).toHaveLength(15));

  test.each(file.cases.map((vector) => [vector.name, vector] as const))('%s', (_name, vector) => {
    const priced = priceUsage(book, {
      model: vector.model,
      usage: usageOf(vector.usage),
      serviceTier: vector.service_tier,
      atMs: Date.UTC(2026, 8, 1),
    });
    expect(priced.lines).toEqual(
      vector.lines.map(({ component, quantity, rate, rate_key: rateKey, usd }) => {
        return { component, quantity, rateUsd: rate, rateKey, cost: nano(usd) };
      }),
    );
    expect(priced.cost).toBe(nano(vector.total_usd));
    expect(priced.priceVersion).toBe('2026-07-24');
  });
});

function usageOf(usage: CostVector['usage']): TokenUsage {
  return {
    inputTokens: usage['input_tokens'] ?? 0,
    outputTokens: usage['output_tokens'] ?? 0,
    cacheReadTokens: usage['cache_read'],
    cacheWrite5mTokens: usage['cache_write_5m'],
    cacheWrite1hTokens: usage['cache_write_1h'],
    reasoningTokens: usage['reasoning'],
    inputAudioTokens: usage['audio_in'],
    outputAudioTokens: usage['audio_out'],
  };
}

function nano(usd: string): bigint {
  const amount = parseDecimal(usd);
  if (!amount) throw new Error(`not a decimal: ${usd}`);
  return timesRate(1, amount);
}
