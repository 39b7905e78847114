/**
 * Messages of a chat completion -> the system prompt and the turns of the Messages API. System and developer messages come first, wherever
 * they stood; turns of one role are joined, and so are the results of tools with what the user says after them, because the API wants every
 * result in the turn that follows the calls. Texts of white space alone, which the API refuses, are left out.
 */
import { createHash } from 'node:crypto';
import { quoteInput } from '../../errors/bulkhead-error.ts';
import { isObject, type JsonObject } from '../../upstream/json-object.ts';
import { assistantTextsOf, calledFunctionsOf, imageOf, partsOf, textOf } from '../../upstream/request-parts.ts';
import { invalid, unsupported } from '../../upstream/request-refusals.ts';

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
    if (role === 'system' || role === 'developer') system.push(...textBlocks(content, `${param}.content`));
    else if (role === 'user') extend(turns, 'user', partsOf(content, `${param}.content`, userBlock));
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

function textBlocks(content: unknown, param: string): JsonObject[] {
  return partsOf(content, param, textOf).map(textBlock);
}

function textBlock(text: string): JsonObject {
  return { type: 'text', text };
}

function userBlock(part: JsonObject, param: string): JsonObject | undefined {
  if (part['type'] === 'image_url') return imageBlock(part['image_url'], `${param}.image_url`);
  const text = textOf(part, param);
  return text === undefined ? undefined : textBlock(text);
}

function imageBlock(given: unknown, param: string): JsonObject {
  const image = imageOf(given, param);
  if ('url' in image) return { type: 'image', source: { type: 'url', url: image.url } };
  return { type: 'image', source: { type: 'base64', media_type: image.mediaType, data: image.base64 } };
}

function assistantBlocks(message: JsonObject, param: string): JsonObject[] {
  return [
    ...assistantTextsOf(message, param).map(textBlock),
    ...calledFunctionsOf(message, param).map(({ id, name, input }) => ({ type: 'tool_use', id: toolIdOf(id), name, input })),
  ];
}

function toolResult({ tool_call_id: id, content }: JsonObject, param: string): JsonObject {
  const texts = textBlocks(content, `${param}.content`);
  return { type: 'tool_result', tool_use_id: toolIdOf(id), ...(texts.length > 0 && { content: texts }) };
}

/** The API takes letters, digits, `_` and `-`; another provider's id of another form becomes one that is always the same. */
function toolIdOf(id: unknown): string {
  const text = String(id);
  return /^[a-zA-Z0-9_-]{1,64}$/.test(text) ? text : `call_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;
}
