import { quoteInput } from '../../errors/bulkhead-error.ts';
import type { JsonObject } from '../../upstream/json-object.ts';
import { stopsOf } from '../../upstream/request-parameters.ts';
import { invalid, unsupported } from '../../upstream/request-refusals.ts';
import { formatOf, type ToolChoice, toolsOf } from '../../upstream/request-tools.ts';

/** Parameters of chat completions that `messageRequest` reads. */
export const translated: ReadonlySet<string> = new Set(
  (
    'model messages stream stream_options max_tokens max_completion_tokens temperature top_p stop tools tool_choice parallel_tool_calls ' +
    'response_format reasoning_effort user safety_identifier prompt_cache_key service_tier'
  ).split(' '),
);

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
  const config = { ...(typeof effort === 'string' && effort !== 'none' && { effort: effortOf(effort) }), ...outputFormatOf(format) };
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

function outputFormatOf(asked: unknown): JsonObject {
  const { type, schema } = formatOf(asked);
  if (type === 'json_object') throw unsupported('response_format.type', 'JSON without a schema; use json_schema');
  return type === 'text' ? {} : { format: { type, schema } };
}

/** `auto` is the default of both. */
export function serviceTierOf({ service_tier: tier }: JsonObject): JsonObject {
  if (tier === null || tier === undefined || tier === 'auto') return {};
  if (tier === 'default') return { service_tier: 'standard_only' };
  throw unsupported('service_tier', 'this value of service_tier');
}

export function stopOf(body: JsonObject): JsonObject {
  const stops = stopsOf(body);
  return stops.length > 0 ? { stop_sequences: stops } : {};
}

/** `tools`, `tool_choice` and `parallel_tool_calls`. */
export function toolUseOf(body: JsonObject): JsonObject {
  const { functions, choice } = toolsOf(body);
  if (functions.length === 0) return {};
  const tools = functions.map(({ name, description, parameters, isStrict }) => ({
    name,
    ...(description !== undefined && { description }),
    input_schema: parameters,
    ...(isStrict && { strict: true }),
  }));
  return { tools, ...choiceWith(choice === undefined ? undefined : choiceOf(choice), body['parallel_tool_calls'] === false) };
}

function choiceWith(choice: JsonObject | undefined, isSingle: boolean): JsonObject {
  if (choice?.['type'] === 'none') return { tool_choice: choice };
  if (isSingle) return { tool_choice: { ...(choice ?? { type: 'auto' }), disable_parallel_tool_use: true } };
  return choice === undefined ? {} : { tool_choice: choice };
}

function choiceOf(choice: ToolChoice): JsonObject {
  if (choice.type === 'function') return { type: 'tool', name: choice.name };
  return { type: choice.type === 'required' ? 'any' : choice.type };
}
