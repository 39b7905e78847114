import { quoteInput } from '../../errors/bulkhead-error.ts';
import { isObject, type JsonObject } from '../../upstream/json-object.ts';
import { invalid, unsupported } from './unsupported.ts';

/** Parameters of chat completions that `messageRequest` reads. */
const translated: ReadonlySet<string> = new Set(
  (
    'model messages stream stream_options max_tokens max_completion_tokens temperature top_p stop tools tool_choice parallel_tool_calls ' +
    'response_format reasoning_effort user safety_identifier prompt_cache_key service_tier'
  ).split(' '),
);

/** OpenAI promises nothing about the answer for these: best effort, speed, or a note for its own log. */
const hints: ReadonlySet<string> = new Set(['seed', 'metadata', 'prediction', 'prompt_cache_retention']);

/** Values that ask for what happens anyway. */
const neutral: ReadonlyMap<string, (value: unknown) => boolean> = new Map<string, (value: unknown) => boolean>([
  ['n', (value) => value === 1],
  ['logprobs', (value) => value === false],
  ['top_logprobs', (value) => value === 0],
  ['presence_penalty', (value) => value === 0],
  ['frequency_penalty', (value) => value === 0],
  ['logit_bias', (value) => isObject(value) && Object.keys(value).length === 0],
  ['modalities', (value) => Array.isArray(value) && value.every((entry) => entry === 'text')],
  ['store', (value) => value === false],
  ['verbosity', (value) => value === 'medium'],
]);

/** Throws `unsupported_parameter` for the first parameter that the Messages API has nothing for, unknown ones included. */
export function assertTranslatable(body: JsonObject): void {
  for (const [name, value] of Object.entries(body)) {
    if (value === null || value === undefined || translated.has(name) || hints.has(name)) continue;
    if (neutral.get(name)?.(value) === true) continue;
    throw unsupported(name.slice(0, 64), neutral.has(name) ? `this value of ${name}` : quoteInput(name));
  }
}

/** OpenAI's default is 1 for both and so is Anthropic's; unsaid, because newer models refuse any value and both together. */
export function samplingOf(body: JsonObject): JsonObject {
  const { temperature, top_p: topP } = body;
  if (typeof temperature === 'number' && temperature > 1) throw invalid('temperature', 'must be between 0 and 1 for this model');
  return {
    ...(typeof temperature === 'number' && temperature !== 1 && { temperature }),
    ...(typeof topP === 'number' && topP !== 1 && { top_p: topP }),
  };
}

const efforts: Readonly<Partial<Record<string, string>>> = {
  minimal: 'low',
  low: 'low',
  medium: 'medium',
  high: 'high',
  xhigh: 'xhigh',
  max: 'max',
};

/**
 * `reasoning_effort` is the API's own `effort`. It does not switch thinking on where a model does not think by itself: the API then wants
 * its signed thinking back with every tool result, and OpenAI's dialect has no place for it. `none` switches it off.
 */
export function outputOf(body: JsonObject): JsonObject {
  const { reasoning_effort: effort, response_format: format } = body;
  const config = { ...(typeof effort === 'string' && effort !== 'none' && { effort: effortOf(effort) }), ...formatOf(format) };
  return {
    ...(effort === 'none' && { thinking: { type: 'disabled' } }),
    ...(Object.keys(config).length > 0 && { output_config: config }),
  };
}

function effortOf(effort: string): string {
  const known = Object.hasOwn(efforts, effort) ? efforts[effort] : undefined;
  if (known === undefined) throw unsupported('reasoning_effort', `the effort ${quoteInput(effort)}`);
  return known;
}

function formatOf(format: unknown): JsonObject {
  if (!isObject(format) || format['type'] === 'text') return {};
  if (format['type'] !== 'json_schema') throw unsupported('response_format.type', 'JSON without a schema; use json_schema');
  const { json_schema: named } = format;
  const schema = isObject(named) ? named['schema'] : undefined;
  if (!isObject(schema)) throw invalid('response_format.json_schema.schema', 'must be a JSON schema');
  return { format: { type: 'json_schema', schema } };
}

/** `auto` is the default of both. */
export function serviceTierOf({ service_tier: tier }: JsonObject): JsonObject {
  if (tier === null || tier === undefined || tier === 'auto') return {};
  if (tier === 'default') return { service_tier: 'standard_only' };
  throw unsupported('service_tier', 'this value of service_tier');
}

export function stopOf({ stop }: JsonObject): JsonObject {
  if (typeof stop === 'string') return { stop_sequences: [stop] };
  return Array.isArray(stop) && stop.length > 0 ? { stop_sequences: stop } : {};
}
