/**
 * Messages of a chat completion -> the AI SDK's prompt. System and developer messages come first, wherever they stood, because several
 * providers take them only there; answers of tools that follow one another are one message, and each names its tool.
 */
import type { LanguageModelV4Message, LanguageModelV4Prompt, SharedV4ProviderOptions } from '@ai-sdk/provider';
import { quoteInput } from '../../errors/bulkhead-error.ts';
import { isObject, type JsonObject } from '../../upstream/json-object.ts';
import { assistantTextsOf, type CalledFunction, calledFunctionsOf, imageOf, partsOf, textOf } from '../../upstream/request-parts.ts';
import { invalid, unsupported } from '../../upstream/request-refusals.ts';

type Message<Role> = Extract<LanguageModelV4Message, { readonly role: Role }>;
type UserPart = Message<'user'>['content'][number];
type AssistantPart = Message<'assistant'>['content'][number];
type ToolPart = Message<'tool'>['content'][number];

/** Throws `unsupported_parameter` or `invalid_value`, each with the place at fault. */
export function promptOf(messages: unknown): LanguageModelV4Prompt {
  const system: LanguageModelV4Prompt = [];
  const turns: LanguageModelV4Prompt = [];
  const nameOfCall = new Map<string, string>();
  for (const [index, message] of (Array.isArray(messages) ? messages : []).entries()) {
    const param = `messages.${index}`;
    if (!isObject(message)) throw invalid(param, 'must be an object');
    const { role, content } = message;
    if (role === 'system' || role === 'developer') {
      system.push(...partsOf(content, `${param}.content`, textOf).map((text) => ({ role: 'system' as const, content: text })));
    } else if (role === 'user') push(turns, { role, content: partsOf(content, `${param}.content`, userPart) });
    else if (role === 'assistant') push(turns, { role, content: assistantParts(message, param, nameOfCall) });
    else if (role === 'tool') pushResult(turns, toolResult(message, param, nameOfCall));
    else throw unsupported(`${param}.role`, `messages of the role ${quoteInput(String(role))}`);
  }
  if (turns.length === 0) throw invalid('messages', 'must hold a message of a user or an assistant that is not empty');
  return [...system, ...turns];
}

function push(turns: LanguageModelV4Prompt, message: Message<'user'> | Message<'assistant'>): void {
  if (message.content.length > 0) turns.push(message);
}

function pushResult(turns: LanguageModelV4Prompt, result: ToolPart): void {
  const last = turns.at(-1);
  if (last?.role === 'tool') last.content.push(result);
  else turns.push({ role: 'tool', content: [result] });
}

function userPart(part: JsonObject, param: string): UserPart | undefined {
  if (part['type'] === 'image_url') return imagePart(part['image_url'], `${param}.image_url`);
  const text = textOf(part, param);
  return text === undefined ? undefined : { type: 'text', text };
}

/** Most providers want the bytes. We fetch no address for a tenant. */
function imagePart(given: unknown, param: string): UserPart {
  const image = imageOf(given, param);
  if ('url' in image) throw unsupported(`${param}.url`, 'images by address; send them as base64 data URLs');
  return { type: 'file', mediaType: image.mediaType, data: { type: 'data', data: image.base64 } };
}

function assistantParts(message: JsonObject, param: string, nameOfCall: Map<string, string>): AssistantPart[] {
  const calls = calledFunctionsOf(message, param);
  for (const { id, name } of calls) nameOfCall.set(id, name);
  return [...assistantTextsOf(message, param).map((text) => ({ type: 'text' as const, text })), ...calls.map(toolCall)];
}

/** `extra_content` is where Google's own OpenAI-compatible endpoint keeps what a model wants back with its call; here it is the SDK's metadata. */
function toolCall({ id, name, input, call }: CalledFunction): AssistantPart {
  const { extra_content: extra } = call;
  const isOptions = isObject(extra) && Object.values(extra).every(isObject);
  return {
    type: 'tool-call',
    toolCallId: id,
    toolName: name,
    input,
    ...(isOptions && { providerOptions: extra as SharedV4ProviderOptions }),
  };
}

function toolResult({ tool_call_id: id, content }: JsonObject, param: string, nameOfCall: ReadonlyMap<string, string>): ToolPart {
  const toolName = nameOfCall.get(String(id));
  if (toolName === undefined) throw invalid(`${param}.tool_call_id`, 'must be the id of a call in an earlier message');
  const texts = partsOf(content, `${param}.content`, textOf);
  return { type: 'tool-result', toolCallId: String(id), toolName, output: { type: 'text', value: texts.join('\n') } };
}
