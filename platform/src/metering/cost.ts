/**
 * What a call costs: tokens times rates, line by line, in exact decimals. The algorithm is LiteLLM's cost calculation
 * (llm_cost_calc/utils.py), with three differences: nothing is a double, a rate that is missing makes the cost unknown instead of 0, and
 * every token is billed in exactly one line.
 */
import { assert } from '../primitives/assert.ts';
import { type Decimal, formatDecimal, timesRate } from '../primitives/decimal.ts';
import { addNanoUsd, type NanoUsd, zeroNanoUsd } from '../primitives/money.ts';
import type { TokenUsage } from '../primitives/token-usage.ts';
import type { ModelPrice, PriceBook, PriceQuery } from './price-book.ts';
import type { CostLine } from './usage-event.ts';

export interface PricedUsage {
  /** Null when the model, or a class of tokens it used, has no price: unknown, never 0. */
  readonly cost: NanoUsd | null;
  /** One line a class of tokens that was used; empty when the cost is null. Their costs add up to `cost`. */
  readonly lines: readonly CostLine[];
  readonly priceVersion: string;
}

export interface PriceableUsage extends PriceQuery {
  readonly usage: TokenUsage;
  /** As the response reported it, not as the request asked: a provider may serve `priority` as `default`. */
  readonly serviceTier: string;
}

/** Prices one call. Not covered, and so not billed: images, seconds, characters, searches, off-peak windows, regional uplifts. */
export function priceUsage(book: PriceBook, call: PriceableUsage): PricedUsage {
  const found = book.find(call);
  if (!found) return { cost: null, lines: [], priceVersion: book.versionAt(call.atMs) };
  const schedule = scheduleFor(found.price, call.usage.inputTokens, tierSuffix(call.serviceTier));
  const lines: CostLine[] = [];
  let cost = zeroNanoUsd;
  for (const { component, quantity, bases } of billedClasses(call.usage, found.price)) {
    const rate = rateFor(schedule, bases);
    if (!rate) return { cost: null, lines: [], priceVersion: found.version };
    // Rounded here and nowhere else, so that the lines of an invoice add up to its total to the last digit.
    const lineCost = timesRate(quantity, rate.usdEach);
    lines.push({ component, quantity, rateUsd: formatDecimal(rate.usdEach), rateKey: rate.key, cost: lineCost });
    cost = addNanoUsd(cost, lineCost);
  }
  return { cost, lines, priceVersion: found.version };
}

interface BilledClass {
  readonly component: string;
  readonly quantity: number;
  /** Price keys to try, in order. */
  readonly bases: readonly string[];
}

const input = 'input_cost_per_token';
const output = 'output_cost_per_token';
const reasoning = 'output_cost_per_reasoning_token';
const cacheWrite = 'cache_creation_input_token_cost';
const bases = {
  input: [input],
  cacheRead: ['cache_read_input_token_cost', 'input_cost_per_token_cache_hit', input],
  cacheWrite5m: [cacheWrite, input],
  cacheWrite1h: [`${cacheWrite}_above_1hr`, cacheWrite, input],
  inputAudio: ['input_cost_per_audio_token', input],
  output: [output],
  reasoning: [reasoning, output],
  outputAudio: ['output_cost_per_audio_token', output],
} as const;

/** Splits the inclusive totals so that every token is in one class. Details an upstream overstated are cut to what the total allows. */
function billedClasses(usage: TokenUsage, price: ModelPrice): readonly BilledClass[] {
  const inputRest = new Remainder(usage.inputTokens);
  const cacheRead = inputRest.take(usage.cacheReadTokens);
  const write5m = inputRest.take(usage.cacheWrite5mTokens);
  const write1h = inputRest.take(usage.cacheWrite1hTokens);
  // After the cache: cached audio is in both counts, and the provider bills it as cached.
  const audioIn = inputRest.take(usage.inputAudioTokens);
  const outputRest = new Remainder(usage.outputTokens);
  const audioOut = outputRest.take(usage.outputAudioTokens);
  // Reasoning is part of the output; it leaves it only where it has a price of its own, or it would be billed twice.
  const reasoned = hasRate(price, reasoning) ? outputRest.take(usage.reasoningTokens) : 0;
  const classes: readonly BilledClass[] = [
    { component: 'input', quantity: inputRest.tokens, bases: bases.input },
    { component: 'cache_read', quantity: cacheRead, bases: bases.cacheRead },
    { component: 'cache_write_5m', quantity: write5m, bases: bases.cacheWrite5m },
    { component: 'cache_write_1h', quantity: write1h, bases: bases.cacheWrite1h },
    { component: 'input_audio', quantity: audioIn, bases: bases.inputAudio },
    { component: 'output', quantity: outputRest.tokens, bases: bases.output },
    { component: 'reasoning', quantity: reasoned, bases: bases.reasoning },
    { component: 'output_audio', quantity: audioOut, bases: bases.outputAudio },
  ];
  return classes.filter(({ quantity }) => quantity > 0);
}

class Remainder {
  tokens: number;

  constructor(tokens: number) {
    assert(Number.isSafeInteger(tokens) && tokens >= 0, 'tokens are whole and not negative');
    this.tokens = tokens;
  }

  take(wanted = 0): number {
    assert(Number.isSafeInteger(wanted) && wanted >= 0, 'tokens are whole and not negative');
    const taken = Math.min(wanted, this.tokens);
    this.tokens -= taken;
    return taken;
  }
}

/** Where to look a rate up, best first: each entry is a table and an ending of its keys. */
type Schedule = readonly { readonly rates: ReadonlyMap<string, Decimal>; readonly ending: string }[];

/**
 * The whole request moves to the higher rate once its input passes a threshold: all classes, cache and output too. The threshold counts
 * more than the service tier where the file has no rate for both; a class without a rate above the threshold keeps its lower one.
 */
function scheduleFor(price: ModelPrice, inputTokens: number, suffix: string): Schedule {
  const passed = price.thresholds.filter((threshold) => isAbove(inputTokens, threshold, price.vendor)).toReversed();
  const endings = [...passed.map((threshold) => `_above_${threshold / 1_000}k_tokens`), ''].flatMap((above) =>
    suffix === '' ? [above] : [above + suffix, above],
  );
  const range = price.ranges.find(({ inputTokensMax }) => inputTokens <= inputTokensMax) ?? price.ranges.at(-1);
  const tables = range ? [range.rates, price.rates] : [price.rates];
  return tables.flatMap((rates) => endings.map((ending) => ({ rates, ending })));
}

/** xAI's long-context price starts at the threshold, everybody else's after it (LiteLLM, xai/cost_calculator.py). */
function isAbove(inputTokens: number, threshold: number, vendor: string): boolean {
  return vendor === 'xai' ? inputTokens >= threshold : inputTokens > threshold;
}

/** A key without this ending stands for every tier. There is no silent half price for batches: only the file's own `_batches` rates count. */
function tierSuffix(serviceTier: string): string {
  switch (serviceTier) {
    case 'flex':
    case 'priority':
    case 'ultrafast':
      return `_${serviceTier}`;
    case 'fast':
      return '_priority';
    case 'batch':
    case 'batches':
      return '_batches';
    default:
      return '';
  }
}

function rateFor(schedule: Schedule, keys: readonly string[]): { readonly key: string; readonly usdEach: Decimal } | undefined {
  for (const base of keys) {
    for (const { rates, ending } of schedule) {
      const usdEach = rates.get(base + ending);
      if (usdEach) return { key: base + ending, usdEach };
    }
  }
  return undefined;
}

function hasRate(price: ModelPrice, key: string): boolean {
  return price.rates.has(key) || price.ranges.some(({ rates }) => rates.has(key));
}
