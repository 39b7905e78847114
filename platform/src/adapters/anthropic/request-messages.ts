/**
 * Messages of a chat completion -> the system prompt and the turns of the Messages API. System and developer messages come first, wherever
 * they stood; turns of one role are joined, and so are the results of tools with what the user says after them, because the API wants every
 * result in the turn that follows the calls. Texts of white space alone, which the API refuses, are left out.
 */
import { createHash } from 'node:crypto';
import { quoteInput } from '../../errors/bulkhead-error.ts';
import { isObject, type JsonObject, parseObject } from '../../upstream/json-object.ts';
import { imageOf } from './request-image.ts';
import { invalid, unsupported } from './unsupported.ts';

export interface Conversation {
  /** Text blocks. */
  readonly system: readonly JsonObject[];
  readonly turns: readonly Turn[];
}

interface Turn {
  readonly role: 'user' | 'assistant';
  readonly content: JsonObject[];
}

/** Throws `unsupported_parameter` or `invalid_value`, each with the place at fault (`messages.3.content.0.type`). */
export function conversationOf(messages: unknown): Conversation {
  const system: JsonObject[] = [];
  const turns: Turn[] = [];
  for (const [index, message] of (Array.isArray(messages) ? messages : []).entries()) {
    const param = `messages.${index}`;
    if (!isObject(message)) throw invalid(param, 'must be an object');
    const { role, content } = message;
    if (role === 'system' || role === 'developer') system.push(...textsOf(content, `${param}.content`));
    else if (role === 'user') extend(turns, 'user', partsOf(content, `${param}.content`, userPart));
    else if (role === 'assistant') extend(turns, 'assistant', assistantBlocks(message, param));
    else if (role === 'tool') extend(turns, 'user', [toolResult(message, param)]);
    else throw unsupported(`${param}.role`, `messages of the role ${quoteInput(String(role))}`);
  }
  if (turns.length === 0) throw invalid('messages', 'must hold a message of a user or an assistant that is not empty');
  return { system, turns };
}

function extend(turns: Turn[], role: Turn['role'], blocks: readonly JsonObject[]): void {
  if (blocks.length === 0) return;
  const last = turns.at(-1);
  if (last?.role === role) last.content.push(...blocks);
  else turns.push({ role, content: [...blocks] });
}

type PartReader = (part: JsonObject, param: string) => JsonObject | undefined;

function partsOf(content: unknown, param: string, read: PartReader): JsonObject[] {
  if (content === null || content === undefined) return [];
  const parts: unknown = typeof content === 'string' ? [{ type: 'text', text: content }] : content;
  if (!Array.isArray(parts)) throw invalid(param, 'must be a text or a list of parts');
  return parts.flatMap((part: unknown, index) => {
    const at = `${param}.${index}`;
    if (!isObject(part)) throw invalid(at, 'must be an object');
    const block = read(part, at);
    return block === undefined ? [] : [block];
  });
}

function textsOf(content: unknown, param: string): JsonObject[] {
  return partsOf(content, param, textPart);
}

function textPart(part: JsonObject, param: string): JsonObject | undefined {
  const text = part['type'] === 'text' ? part['text'] : part['type'] === 'refusal' ? part['refusal'] : undefined;
  if (typeof text === 'string') return text.trim() === '' ? undefined : { type: 'text', text };
  if (part['type'] === 'text') throw invalid(`${param}.text`, 'must be a text');
  throw unsupported(`${param}.type`, `parts of the type ${quoteInput(String(part['type']))} here`);
}

function userPart(part: JsonObject, param: string): JsonObject | undefined {
  return part['type'] === 'image_url' ? imageOf(part['image_url'], `${param}.image_url`) : textPart(part, param);
}

function assistantBlocks(message: JsonObject, param: string): JsonObject[] {
  for (const field of ['audio', 'function_call']) {
    if (message[field] !== undefined && message[field] !== null) throw unsupported(`${param}.${field}`, `${field} of a message`);
  }
  const { content, refusal, tool_calls: calls } = message;
  return [
    ...textsOf(content, `${param}.content`),
    ...(typeof refusal === 'string' ? textsOf(refusal, `${param}.refusal`) : []),
    ...(Array.isArray(calls) ? calls.map((call: unknown, index) => toolUse(call, `${param}.tool_calls.${index}`)) : []),
  ];
}

function toolUse(call: unknown, param: string): JsonObject {
  const called = isObject(call) && call['type'] === 'function' ? call['function'] : undefined;
  if (!isObject(call) || !isObject(called)) throw unsupported(`${param}.type`, 'calls of tools that are not functions');
  const { name, arguments: given } = called;
  if (typeof name !== 'string') throw invalid(`${param}.function.name`, 'must be a text');
  const input = typeof given === 'string' ? parseObject(given || '{}') : undefined;
  if (input === undefined) throw invalid(`${param}.function.arguments`, 'must be a JSON object');
  return { type: 'tool_use', id: toolIdOf(call['id']), name, input };
}

function toolResult({ tool_call_id: id, content }: JsonObject, param: string): JsonObject {
  const texts = textsOf(content, `${param}.content`);
  return { type: 'tool_result', tool_use_id: toolIdOf(id), ...(texts.length > 0 && { content: texts }) };
}

/** The API takes letters, digits, `_` and `-`; another provider's id of another form becomes one that is always the same. */
function toolIdOf(id: unknown): string {
  const text = String(id);
  return /^[a-zA-Z0-9_-]{1,64}$/.test(text) ? text : `call_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;
}
