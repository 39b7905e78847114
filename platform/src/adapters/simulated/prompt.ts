import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { countTokens } from '../../primitives/count-tokens.ts';

/** Tokens of the template around each message and around the answer (OpenAI's cookbook). */
const tokensPerMessage = 3;
const tokensPerReply = 3;
const tokensPerImage = 85;

export interface PromptMessage {
  readonly role: string;
  readonly text: string;
}

/** What the simulated model reads of a request. */
export interface Prompt {
  readonly messages: readonly PromptMessage[];
  /** System and developer messages, joined. */
  readonly instructions: string;
  /** The last user message. */
  readonly question: string;
  /** The last message, when it is a tool's result. */
  readonly toolResult: string | undefined;
  readonly imageCount: number;
  readonly tokens: number;
}

type JsonObject = Readonly<Record<string, unknown>>;

/** Throws `upstream_rejected` when there are no messages. */
export function readPrompt(body: JsonObject): Prompt {
  const sent = body['messages'];
  if (!Array.isArray(sent) || sent.length === 0) {
    throw new BulkheadError('upstream_rejected', 'messages must be a list with at least one message', { param: 'messages' });
  }
  const messages = sent.map(readMessage);
  const last = messages.at(-1);
  const imageCount = sent.flatMap((message: JsonObject) => partsOf(message)).filter((part) => part['type'] === 'image_url').length;
  return {
    messages,
    instructions: textsOf(messages, ['system', 'developer']).join('\n\n'),
    question: textsOf(messages, ['user']).at(-1) ?? '',
    toolResult: last?.role === 'tool' || last?.role === 'function' ? last.text : undefined,
    imageCount,
    tokens: countPrompt(messages, body) + imageCount * tokensPerImage,
  };
}

function readMessage(message: JsonObject): PromptMessage {
  const { role, content, tool_calls: calls } = message;
  const text =
    typeof content === 'string'
      ? content
      : partsOf(message)
          .map((part) => stringOf(part['text']))
          .join('\n');
  const called = Array.isArray(calls) ? JSON.stringify(calls) : '';
  return { role: stringOf(role), text: called === '' ? text : `${text}\n${called}` };
}

function partsOf(message: JsonObject): readonly JsonObject[] {
  const content = message?.['content'];
  return Array.isArray(content) ? content.filter((part) => typeof part === 'object' && part !== null) : [];
}

function textsOf(messages: readonly PromptMessage[], roles: readonly string[]): string[] {
  return messages.filter((message) => roles.includes(message.role)).map((message) => message.text);
}

function countPrompt(messages: readonly PromptMessage[], body: JsonObject): number {
  const ofMessages = messages.reduce((sum, { role, text }) => sum + tokensPerMessage + countTokens(role + text), tokensPerReply);
  const tools = body['tools'];
  return Array.isArray(tools) ? ofMessages + countTokens(JSON.stringify(tools)) : ofMessages;
}

function stringOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
