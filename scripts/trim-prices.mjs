// Makes platform/data/model-prices.json from LiteLLM's model_prices_and_context_window.json:
//   node scripts/trim-prices.mjs path/to/model_prices_and_context_window.json 2026-07-24 > platform/data/model-prices.json
// Keeps what prices tokens, every number with the digits it had, one model a line so that a refresh reads well as a diff.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const [path, version] = process.argv.slice(2);
if (path === undefined || !/^\d{4}-\d{2}-\d{2}$/.test(version ?? '')) {
  console.error('usage: node scripts/trim-prices.mjs <file> <YYYY-MM-DD of the copy>');
  process.exit(2);
}

const pricesTokens = /^(input|output)_cost_per_(audio_|reasoning_)?token|^cache_(read|creation)_input_token_cost|^tiered_pricing$/;
const source = readFileSync(path);
const exactNumbers = (_key, value, context) => (typeof value === 'number' ? JSON.rawJSON(context.source) : value);
const lines = [];
for (const [model, entry] of Object.entries(JSON.parse(source.toString('utf8'), exactNumbers))) {
  const prices = Object.entries(entry).filter(([field, value]) => pricesTokens.test(field) && value !== null);
  if (model === 'sample_spec' || prices.length === 0) continue;
  lines.push(`${JSON.stringify(model)}:${JSON.stringify({ litellm_provider: entry.litellm_provider, ...Object.fromEntries(prices) })}`);
}

const sha256 = createHash('sha256').update(source).digest('hex');
const origin = 'BerriAI/litellm model_prices_and_context_window.json';
process.stdout.write(`{"version":"${version}","origin":"${origin}","source_sha256":"${sha256}","models":{\n${lines.join(',\n')}\n}}\n`);
