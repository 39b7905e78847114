/**
 * What models cost, by date. Loaded once at the start: the price file that ships with the product (LiteLLM's field names, USD per
 * token) and, above it, the prices of the operator's own models from the configuration.
 *
 * Every number is read from its JSON text, never through a double, so 2e-8 is exactly 2e-8.
 */
import { createHash } from 'node:crypto';
import { assert } from '../primitives/assert.ts';
import { type Decimal, formatDecimal, parseDecimal, shiftDown } from '../primitives/decimal.ts';

/** The price file of the product; the composition root reads it. Loading it takes 10 ms cold (2,542 models, measured). */
export const builtInPriceFile = new URL('../../data/model-prices.json', import.meta.url);

export interface PriceBook {
  /** The price in force at `atMs`; undefined when nobody knows one. */
  find(query: PriceQuery): PricedModel | undefined;
  /** Version of the price file in force at `atMs`. */
  versionAt(atMs: number): string;
}

export interface PriceQuery {
  /** Public model id. */
  readonly model: string;
  /** The provider's own name of the model, when it is known: the public id may be an alias. */
  readonly upstreamModel?: string | undefined;
  readonly provider?: string | undefined;
  readonly atMs: number;
}

export interface PricedModel {
  readonly price: ModelPrice;
  /** The file's version, or `config-` and a digest of the configured price. Stored with every event, so an invoice can be derived again. */
  readonly version: string;
}

/** Rates in USD per token under LiteLLM's names (`input_cost_per_token`, `cache_read_input_token_cost_above_200k_tokens_priority` ...). */
export interface ModelPrice {
  /** LiteLLM's provider name; it decides how a threshold is compared. */
  readonly vendor: string;
  readonly rates: ReadonlyMap<string, Decimal>;
  /** Whole tokens, ascending, at which this model's `_above_…k_tokens` rates start. */
  readonly thresholds: readonly number[];
  /** All-or-nothing tables by input size (Qwen, Doubao), ascending; empty for most models. */
  readonly ranges: readonly PriceRange[];
}

export interface PriceRange {
  /** The range holds input sizes up to and including this one. */
  readonly inputTokensMax: number;
  readonly rates: ReadonlyMap<string, Decimal>;
}

/** A configured price, in USD per million tokens, as `models[].price` has it. */
export interface ConfiguredPrice {
  readonly model: string;
  readonly inputUsdPerMillion: number;
  readonly outputUsdPerMillion: number;
}

/** `files`: one price file's JSON text, or several editions of it. Throws a SyntaxError or an AssertionError on a file that is not one. */
export function loadPriceBook(files: string | readonly string[], configured: readonly ConfiguredPrice[] = []): PriceBook {
  const editions = (typeof files === 'string' ? [files] : files).map(parseEdition);
  editions.sort((left, right) => left.effectiveFromMs - right.effectiveFromMs);
  const overrides = new Map(configured.map((entry) => [entry.model, configuredPrice(entry)]));
  return {
    find: (query) => overrides.get(query.model) ?? findInEdition(editionAt(editions, query.atMs), query),
    versionAt: (atMs) => editionAt(editions, atMs).version,
  };
}

interface Edition {
  readonly version: string;
  readonly effectiveFromMs: number;
  readonly models: Readonly<Record<string, JsonEntry>>;
  readonly parsed: Map<string, PricedModel>;
}

/** Numbers stand as the text they had in the file. */
type JsonEntry = Readonly<Record<string, unknown>>;

function parseEdition(text: string): Edition {
  const file = parseWithExactNumbers(text);
  const { version, effective_from: effectiveFrom = version, models } = file;
  assert(typeof version === 'string' && typeof effectiveFrom === 'string', 'a price file names its version');
  const effectiveFromMs = Date.parse(effectiveFrom);
  assert(Number.isFinite(effectiveFromMs), 'a price file is in force from a date');
  assert(isEntry(models), 'a price file lists its models');
  return { version, effectiveFromMs, models: models as Edition['models'], parsed: new Map() };
}

function parseWithExactNumbers(text: string): JsonEntry {
  // Source text access (TC39, in V8 since 11.4): the third argument carries the digits as written.
  const keepText = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
    typeof value === 'number' ? context?.source : value;
  const file: unknown = JSON.parse(text, keepText as (key: string, value: unknown) => unknown);
  assert(isEntry(file), 'a price file is an object');
  return file;
}

function isEntry(value: unknown): value is JsonEntry {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Usage from before the oldest edition is priced by the oldest: an old price is better than none. */
function editionAt(editions: readonly Edition[], atMs: number): Edition {
  const edition = editions.findLast((candidate) => candidate.effectiveFromMs <= atMs) ?? editions[0];
  assert(edition, 'a price book has an edition');
  return edition;
}

function findInEdition(edition: Edition, query: PriceQuery): PricedModel | undefined {
  for (const name of candidateNames(query)) {
    const known = edition.parsed.get(name);
    if (known) return known;
    const entry = Object.hasOwn(edition.models, name) ? edition.models[name] : undefined;
    if (entry === undefined) continue;
    const priced = { price: parseModelPrice(entry), version: edition.version };
    edition.parsed.set(name, priced);
    return priced;
  }
  return undefined;
}

/** What was called beats what it was called by; a full name beats a name without its provider (`openai/gpt-4o` -> `gpt-4o`). */
function* candidateNames({ model, upstreamModel, provider }: PriceQuery): Generator<string> {
  for (const name of upstreamModel === undefined || upstreamModel === model ? [model] : [upstreamModel, model]) {
    if (provider !== undefined) yield `${provider}/${name}`;
    yield name;
    for (let slash = name.indexOf('/'); slash >= 0; slash = name.indexOf('/', slash + 1)) yield name.slice(slash + 1);
  }
}

function parseModelPrice(entry: JsonEntry): ModelPrice {
  const vendor = entry['litellm_provider'];
  const rates = parseRates(entry);
  return {
    vendor: typeof vendor === 'string' ? vendor : '',
    rates,
    thresholds: thresholdsOf(rates.keys()),
    ranges: parseRanges(entry['tiered_pricing']),
  };
}

function parseRates(entry: JsonEntry): ReadonlyMap<string, Decimal> {
  const rates = new Map<string, Decimal>();
  for (const [key, value] of Object.entries(entry)) {
    const rate = typeof value === 'string' && key.includes('cost') ? parseDecimal(value) : undefined;
    if (rate) rates.set(key, rate);
  }
  return rates;
}

function thresholdsOf(keys: Iterable<string>): readonly number[] {
  const thresholds = new Set<number>();
  for (const key of keys) {
    const match = /_above_(\d{1,6})k_tokens/.exec(key);
    if (match) thresholds.add(Number(match[1]) * 1_000);
  }
  return [...thresholds].sort((left, right) => left - right);
}

function parseRanges(value: unknown): readonly PriceRange[] {
  if (!Array.isArray(value)) return [];
  const ranges: PriceRange[] = [];
  for (const entry of value) {
    const range: unknown = isEntry(entry) ? entry['range'] : undefined;
    if (isEntry(entry) && Array.isArray(range)) ranges.push({ inputTokensMax: Number(range[1]), rates: parseRates(entry) });
  }
  return ranges.sort((left, right) => left.inputTokensMax - right.inputTokensMax);
}

function configuredPrice(entry: ConfiguredPrice): PricedModel {
  // The shortest text that reads back as this double is the number the operator typed (up to 15 digits).
  const perToken = (usdPerMillion: number): Decimal => {
    const amount = parseDecimal(String(usdPerMillion));
    assert(amount, 'a configured price is a number from 0');
    return shiftDown(amount, 6);
  };
  const input = perToken(entry.inputUsdPerMillion);
  const output = perToken(entry.outputUsdPerMillion);
  const rates = new Map([
    ['input_cost_per_token', input],
    ['output_cost_per_token', output],
  ]);
  const digest = createHash('sha256')
    .update(`${formatDecimal(input)} ${formatDecimal(output)}`)
    .digest('hex')
    .slice(0, 12);
  return { price: { vendor: 'config', rates, thresholds: [], ranges: [] }, version: `config-${digest}` };
}
