/**
 * Responses items -> chat messages, so that every provider that speaks chat completions can serve the Responses API.
 * Mapping after OpenAI's migration guide: function calls become `tool_calls` of one assistant message, their outputs `tool` messages.
 */
import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import type { JsonRecord, ResponseRequest } from './request.ts';

/** The chat body that stands for `request`, with `history` before its input and `context` (retrieved passages) before both. */
export function chatBodyOf(request: ResponseRequest, history: readonly JsonRecord[], context: string | undefined): JsonRecord {
  const system = [request.instructions, context].filter((text) => text !== null && text !== undefined && text !== '');
  const messages = [...system.map((content) => ({ role: 'system', content })), ...messagesOf([...history, ...request.input])];
  const tools = request.tools.filter((tool) => tool['type'] === 'function').map(chatTool);
  return compact({
    model: request.model,
    messages,
    tools: tools.length > 0 ? tools : undefined,
    tool_choice: tools.length > 0 ? chatToolChoice(request.toolChoice) : undefined,
    parallel_tool_calls: tools.length > 0 ? request.parallelToolCalls : undefined,
    max_completion_tokens: request.maxOutputTokens ?? undefined,
    temperature: request.temperature ?? undefined,
    top_p: request.topP ?? undefined,
    response_format: responseFormat(request.text),
    reasoning_effort: request.reasoning?.['effort'] ?? undefined,
    service_tier: request.serviceTier ?? undefined,
    stream: request.stream ? true : undefined,
  });
}

/** Text of the newest user message: what file search looks for. */
export function questionOf(request: ResponseRequest): string {
  const newest = request.input.findLast((item) => isMessage(item) && item['role'] === 'user');
  return newest === undefined ? '' : plainText(newest['content']);
}

function messagesOf(items: readonly JsonRecord[]): JsonRecord[] {
  const messages: JsonRecord[] = [];
  items.forEach((item, index) => {
    const message = messageOf(item, index);
    if (message === undefined) return;
    const previous = messages.at(-1);
    if (message['tool_calls'] && previous?.['role'] === 'assistant') messages[messages.length - 1] = joinToolCalls(previous, message);
    else messages.push(message);
  });
  return messages;
}

function messageOf(item: JsonRecord, index: number): JsonRecord | undefined {
  if (isMessage(item)) return { role: item['role'], content: chatContent(item['content'], `input.${index}.content`) };
  switch (item['type']) {
    case 'function_call':
      return { role: 'assistant', content: null, tool_calls: [chatToolCall(item)] };
    case 'function_call_output':
      return { role: 'tool', tool_call_id: item['call_id'], content: chatContent(item['output'], `input.${index}.output`) };
    case 'file_search_call':
    case 'reasoning':
      // Traces of an earlier turn: their effect is in the messages that follow.
      return undefined;
    default:
      throw new BulkheadError('unsupported_parameter', `items of type ${quoteInput(String(item['type']))} are not supported`, {
        param: `input.${index}.type`,
      });
  }
}

function isMessage(item: JsonRecord): boolean {
  return item['type'] === 'message' || (item['type'] === undefined && item['role'] !== undefined);
}

function joinToolCalls(previous: JsonRecord, message: JsonRecord): JsonRecord {
  const before = (previous['tool_calls'] ?? []) as readonly JsonRecord[];
  return { ...previous, tool_calls: [...before, ...(message['tool_calls'] as readonly JsonRecord[])] };
}

function chatToolCall(item: JsonRecord): JsonRecord {
  return { id: item['call_id'], type: 'function', function: { name: item['name'], arguments: item['arguments'] } };
}

function chatContent(content: unknown, param: string): unknown {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  const parts = content.map((part: JsonRecord, index) => chatPart(part, `${param}.${index}`));
  const onlyText = parts.every((part) => part['type'] === 'text');
  return onlyText ? parts.map((part) => part['text']).join('') : parts;
}

function chatPart(part: JsonRecord, param: string): JsonRecord {
  switch (part['type']) {
    case 'input_text':
    case 'output_text':
    case 'text':
      return { type: 'text', text: part['text'] };
    case 'refusal':
      return { type: 'text', text: part['refusal'] };
    case 'input_image':
      if (typeof part['image_url'] !== 'string') break;
      return { type: 'image_url', image_url: { url: part['image_url'], detail: part['detail'] ?? 'auto' } };
    default:
  }
  throw new BulkheadError('unsupported_parameter', `content of type ${quoteInput(String(part['type']))} is not supported here`, {
    param: `${param}.type`,
  });
}

/** The text of a message's content, for search and for counting. */
export function plainText(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content
    .map((part: JsonRecord) => (typeof part['text'] === 'string' ? part['text'] : ''))
    .filter((text) => text !== '')
    .join('\n');
}

function chatTool(tool: JsonRecord): JsonRecord {
  const { name, description, parameters, strict } = tool;
  return { type: 'function', function: compact({ name, description, parameters, strict: strict ?? undefined }) };
}

function chatToolChoice(choice: string | JsonRecord): unknown {
  if (typeof choice === 'string') return choice;
  return choice['type'] === 'function' ? { type: 'function', function: { name: choice['name'] } } : 'auto';
}

function responseFormat(text: JsonRecord): JsonRecord | undefined {
  const format = text['format'] as JsonRecord | undefined;
  if (format?.['type'] === 'json_object') return { type: 'json_object' };
  if (format?.['type'] !== 'json_schema') return undefined;
  const { name, description, schema, strict } = format;
  return { type: 'json_schema', json_schema: compact({ name, description, schema, strict: strict ?? undefined }) };
}

function compact(record: Record<string, unknown>): JsonRecord {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined));
}
