/**
 * Anthropic's Messages API as its documentation has it, on top of a scripted HTTP server. Its shapes are the types of the official SDK, and
 * `test/e2e/anthropic.test.ts` has that SDK read what it sends.
 */
import type { ServerResponse } from 'node:http';
import type Anthropic from '@anthropic-ai/sdk';
import { answer, type ReceivedRequest, type UpstreamScript } from './scripted-upstream.ts';

type Content = Anthropic.ContentBlock;
type StreamEvent = Anthropic.RawMessageStreamEvent | { readonly type: 'ping' };

export const secretKey = 'sk-ant-secret-of-the-operator';

export function textBlock(text: string): Anthropic.TextBlock {
  return { type: 'text', text, citations: null };
}

export function thinkingBlock(thinking: string): Anthropic.ThinkingBlock {
  return { type: 'thinking', thinking, signature: 'EqQBCgIYAhIkc2lnbmF0dXJl' };
}

export function toolUseBlock(name: string, input: unknown, id = `toolu_01${name}`): Anthropic.ToolUseBlock {
  return { type: 'tool_use', id, name, input, caller: { type: 'direct' } };
}

export function usageCounts(counts: Partial<Anthropic.Usage> = {}): Anthropic.Usage {
  return {
    input_tokens: 11,
    output_tokens: 7,
    cache_creation: null,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
    inference_geo: null,
    output_tokens_details: null,
    server_tool_use: null,
    service_tier: 'standard',
    speed: null,
    ...counts,
  };
}

export function message(content: Content[], rest: Partial<Anthropic.Message> = {}): Anthropic.Message {
  return {
    id: 'msg_01XFDUDYJgAACzvnptvVoYEL',
    type: 'message',
    role: 'assistant',
    model: 'claude-test',
    container: null,
    diagnostics: null,
    content,
    stop_details: null,
    stop_reason: content.some(({ type }) => type === 'tool_use') ? 'tool_use' : 'end_turn',
    stop_sequence: null,
    usage: usageCounts(),
    ...rest,
  };
}

/** The events a message is streamed as, in the documented order; its texts and arguments in pieces of `pieceLength` characters. */
export function eventsOf(whole: Anthropic.Message, pieceLength = 4): StreamEvent[] {
  const { usage, stop_reason, stop_sequence, stop_details, container } = whole;
  const begun = { ...whole, content: [], stop_reason: null, stop_details: null, usage: { ...usage, output_tokens: 1 } };
  return [
    { type: 'message_start', message: begun },
    { type: 'ping' },
    ...whole.content.flatMap((block, index) => blockEvents(block, index, pieceLength)),
    {
      type: 'message_delta',
      delta: { stop_reason, stop_sequence, stop_details, container },
      usage: {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_creation_input_tokens: usage.cache_creation_input_tokens,
        cache_read_input_tokens: usage.cache_read_input_tokens,
        output_tokens_details: usage.output_tokens_details,
        server_tool_use: null,
      },
    },
    { type: 'message_stop' },
  ];
}

function blockEvents(block: Content, index: number, pieceLength: number): StreamEvent[] {
  const { start, deltas } = streamedBlock(block, pieceLength);
  return [
    { type: 'content_block_start', index, content_block: start },
    ...deltas.map((delta): StreamEvent => ({ type: 'content_block_delta', index, delta })),
    { type: 'content_block_stop', index },
  ];
}

function streamedBlock(
  block: Content,
  pieceLength: number,
): { readonly start: Content; readonly deltas: Anthropic.RawContentBlockDelta[] } {
  switch (block.type) {
    case 'text':
      return { start: { ...block, text: '' }, deltas: pieces(block.text, pieceLength).map((text) => ({ type: 'text_delta', text })) };
    case 'thinking':
      return {
        start: { ...block, thinking: '', signature: '' },
        deltas: [
          ...pieces(block.thinking, pieceLength).map((thinking) => ({ type: 'thinking_delta' as const, thinking })),
          { type: 'signature_delta', signature: block.signature },
        ],
      };
    case 'tool_use': {
      // A call without arguments comes with one empty piece, as the API sends it.
      const parts = Object.keys(block.input as object).length === 0 ? [] : pieces(JSON.stringify(block.input), pieceLength);
      return { start: { ...block, input: {} }, deltas: ['', ...parts].map((part) => ({ type: 'input_json_delta', partial_json: part })) };
    }
    default:
      return { start: block, deltas: [] };
  }
}

function pieces(text: string, length: number): string[] {
  return Array.from({ length: Math.ceil(text.length / length) }, (_, index) => text.slice(index * length, (index + 1) * length));
}

export function framed(event: StreamEvent | ReturnType<typeof errorBody>): string {
  return `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

/** Answers every request that the API would accept with this message, streamed where it is asked for. */
export function answeringWith(whole: Anthropic.Message): UpstreamScript {
  return accepting((response, { body }) => {
    if (body['stream'] !== true) return answer(200, whole, responseHeaders)(response, { path: '', headers: {}, body });
    beginStream(response);
    response.end(eventsOf(whole).map(framed).join(''));
  });
}

export function beginStream(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache', ...responseHeaders });
}

const responseHeaders = { 'request-id': 'req_011CSHoEeqs5C35K2UUqR7Fy', 'anthropic-ratelimit-requests-remaining': '49' };

export function errorBody(type: string, text: string, details?: Readonly<Record<string, string>>) {
  return { type: 'error', error: { type, message: text, ...(details && { details }) }, request_id: 'req_011CSHoEeqs5C35K2UUqR7Fy' };
}

/** Refuses with 4xx what the API documents as refused, and hands the rest to `script`. */
export function accepting(script: UpstreamScript): UpstreamScript {
  return (response, request) => {
    const fault = faultOf(request);
    return fault === undefined ? script(response, request) : answer(fault.status, errorBody(fault.type, fault.text))(response, request);
  };
}

interface Fault {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

const fields: ReadonlySet<string> = new Set(
  (
    'model max_tokens messages system stream stop_sequences temperature top_p tools tool_choice ' +
    'metadata thinking output_config service_tier cache_control'
  ).split(' '),
);

function faultOf({ path, headers, body }: ReceivedRequest): Fault | undefined {
  if (path !== '/v1/messages') return { status: 404, type: 'not_found_error', text: 'Not found' };
  if (headers['x-api-key'] !== secretKey) return { status: 401, type: 'authentication_error', text: 'invalid x-api-key' };
  if (headers['anthropic-version'] !== '2023-06-01') return bad('anthropic-version: header is required');
  const unknown = Object.keys(body).find((name) => !fields.has(name));
  if (unknown !== undefined) return bad(`${unknown}: Extra inputs are not permitted`);
  if (!Number.isInteger(body['max_tokens'])) return bad('max_tokens: Field required');
  if (typeof body['temperature'] === 'number' && body['temperature'] > 1) return bad('temperature: range: 0..1');
  return turnFault(body['messages'] as readonly Anthropic.MessageParam[]);
}

function bad(text: string): Fault {
  return { status: 400, type: 'invalid_request_error', text };
}

/** The rules of turns: roles, no empty texts, and the result of every call in the turn after it. */
function turnFault(turns: readonly Anthropic.MessageParam[]): Fault | undefined {
  if (turns.length === 0) return bad('messages: at least one message is required');
  let pending: string[] = [];
  for (const [index, turn] of turns.entries()) {
    if (turn.role !== 'user' && turn.role !== 'assistant') return bad(`messages.${index}.role: Input should be 'user' or 'assistant'`);
    const blocks = typeof turn.content === 'string' ? [textBlock(turn.content)] : turn.content;
    if (blocks.some((block) => block.type === 'text' && block.text.trim() === ''))
      return bad('messages: text content blocks must be non-empty');
    const answered = blocks.flatMap((block) => (block.type === 'tool_result' ? [block.tool_use_id] : []));
    if (pending.join() !== answered.join())
      return bad(`messages.${index}: tool_use ids were found without tool_result blocks immediately after`);
    pending = blocks.flatMap((block) => (block.type === 'tool_use' ? [block.id] : []));
  }
  return undefined;
}
