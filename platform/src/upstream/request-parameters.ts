/** Parameters of chat completions, for adapters that translate them: what is not translated is refused by name and never dropped. */
import { quoteInput } from '../errors/bulkhead-error.ts';
import { isObject, type JsonObject } from './json-object.ts';
import { unsupported } from './request-refusals.ts';

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
  ['parallel_tool_calls', (value) => value === true],
  ['store', (value) => value === false],
  ['verbosity', (value) => value === 'medium'],
]);

/** Throws `unsupported_parameter` for the first parameter that is not among `translated`, unknown ones included. */
export function assertTranslatable(body: JsonObject, translated: ReadonlySet<string>): void {
  for (const [name, value] of Object.entries(body)) {
    if (value === null || value === undefined || translated.has(name) || hints.has(name)) continue;
    if (neutral.get(name)?.(value) === true) continue;
    throw unsupported(name.slice(0, 64), neutral.has(name) ? `this value of ${name}` : quoteInput(name));
  }
}

export function stopsOf({ stop }: JsonObject): readonly unknown[] {
  return typeof stop === 'string' ? [stop] : Array.isArray(stop) ? stop : [];
}

/** The longest answer that is asked for: never more than the model's, which is what was set aside of the tenant's budget. */
export function answerTokensMaxOf(body: JsonObject, outputTokensMax: number | undefined): number | undefined {
  const caps = [body['max_completion_tokens'], body['max_tokens'], outputTokensMax].filter((cap) => typeof cap === 'number');
  return caps.length === 0 ? undefined : Math.min(...caps);
}
