/** The content of a chat completion's messages, for adapters that translate it. Each refusal names the place (`messages.3.content.0.type`). */
import { quoteInput } from '../errors/bulkhead-error.ts';
import { isObject, type JsonObject, parseObject } from './json-object.ts';
import { invalid, unsupported } from './request-refusals.ts';

export type PartReader<T> = (part: JsonObject, param: string) => T | undefined;

/** What `read` makes of each part; a content that is a text is one text part. */
export function partsOf<T>(content: unknown, param: string, read: PartReader<T>): T[] {
  if (content === null || content === undefined) return [];
  const parts: unknown = typeof content === 'string' ? [{ type: 'text', text: content }] : content;
  if (!Array.isArray(parts)) throw invalid(param, 'must be a text or a list of parts');
  return parts.flatMap((part: unknown, index) => {
    const at = `${param}.${index}`;
    if (!isObject(part)) throw invalid(at, 'must be an object');
    const made = read(part, at);
    return made === undefined ? [] : [made];
  });
}

/** The text of a text or a refusal; undefined for white space alone, which providers refuse. */
export function textOf(part: JsonObject, param: string): string | undefined {
  const text = part['type'] === 'text' ? part['text'] : part['type'] === 'refusal' ? part['refusal'] : undefined;
  if (typeof text === 'string') return text.trim() === '' ? undefined : text;
  if (part['type'] === 'text') throw invalid(`${param}.text`, 'must be a text');
  throw unsupported(`${param}.type`, `parts of the type ${quoteInput(String(part['type']))} here`);
}

/** An assistant's texts in order, its refusal last. */
export function assistantTextsOf(message: JsonObject, param: string): readonly string[] {
  for (const field of ['audio', 'function_call']) {
    if (message[field] !== undefined && message[field] !== null) throw unsupported(`${param}.${field}`, `${field} of a message`);
  }
  const { content, refusal } = message;
  const refused = typeof refusal === 'string' ? partsOf(refusal, `${param}.refusal`, textOf) : [];
  return [...partsOf(content, `${param}.content`, textOf), ...refused];
}

export interface CalledFunction {
  readonly id: string;
  readonly name: string;
  readonly input: JsonObject;
  /** What else the call carries. */
  readonly call: JsonObject;
}

/** An assistant's calls of functions. */
export function calledFunctionsOf({ tool_calls: calls }: JsonObject, param: string): readonly CalledFunction[] {
  return Array.isArray(calls) ? calls.map((call: unknown, index) => calledFunction(call, `${param}.tool_calls.${index}`)) : [];
}

function calledFunction(call: unknown, param: string): CalledFunction {
  const called = isObject(call) && call['type'] === 'function' ? call['function'] : undefined;
  if (!isObject(call) || !isObject(called)) throw unsupported(`${param}.type`, 'calls of tools that are not functions');
  const { name, arguments: given } = called;
  if (typeof name !== 'string') throw invalid(`${param}.function.name`, 'must be a text');
  const input = typeof given === 'string' ? parseObject(given || '{}') : undefined;
  if (input === undefined) throw invalid(`${param}.function.arguments`, 'must be a JSON object');
  return { id: String(call['id']), name, input, call };
}

export type GivenImage = { readonly url: string } | { readonly mediaType: string; readonly base64: string };

const mediaTypes: ReadonlySet<string> = new Set(['image/jpeg', 'image/png', 'image/gif', 'image/webp']);

/** An `image_url` part: a base64 data URL, or an address which a provider fetches, not we. `detail` is a hint. */
export function imageOf(image: unknown, param: string): GivenImage {
  const url = isObject(image) ? image['url'] : undefined;
  if (typeof url !== 'string') throw invalid(`${param}.url`, 'must be a text');
  if (/^https?:\/\//i.test(url)) return { url };
  const comma = url.indexOf(',');
  const [, mediaType] = /^data:([\w/+.-]{1,64});base64$/i.exec(url.slice(0, Math.max(comma, 0))) ?? [];
  if (mediaType === undefined) throw invalid(`${param}.url`, 'must be an http address or a base64 data URL');
  if (!mediaTypes.has(mediaType.toLowerCase())) throw unsupported(`${param}.url`, 'images that are not JPEG, PNG, GIF or WebP');
  return { mediaType: mediaType.toLowerCase(), base64: url.slice(comma + 1) };
}
