import { describe, expect, test } from 'vitest';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { CompletionEvent } from '../../inference/provider.ts';
import { extractUsage } from '../../primitives/token-usage.ts';
import type { JsonObject } from '../../upstream/json-object.ts';
import { completionOf, finishReasonOf, usageOf } from './message-answer.ts';
import { MessageEvents } from './message-events.ts';

const start = { type: 'message_start', message: { id: 'msg_1', model: 'claude-test', usage: { input_tokens: 5, output_tokens: 1 } } };
const open = (index: number, block: JsonObject) => ({ type: 'content_block_start', index, content_block: block });
const delta = (index: number, change: JsonObject) => ({ type: 'content_block_delta', index, delta: change });
const text = (piece: string, index = 0) => delta(index, { type: 'text_delta', text: piece });
const input = (piece: string, index: number) => delta(index, { type: 'input_json_delta', partial_json: piece });
const close = (index: number) => ({ type: 'content_block_stop', index });
const finish = (reason: string | null, usage: JsonObject = { output_tokens: 9 }) => ({
  type: 'message_delta',
  delta: { stop_reason: reason },
  usage,
});
const stop = { type: 'message_stop' };
const tool = (id: string, more: JsonObject = {}) => ({ type: 'tool_use', id, name: `name_${id}`, input: {}, ...more });

interface Read {
  readonly chunks: readonly CompletionEvent['parsed'][];
  readonly failure: BulkheadError | undefined;
  readonly isDone: boolean;
}

function read(...events: readonly JsonObject[]): Read {
  const {
    events: chunks,
    failure,
    isDone,
  } = new MessageEvents(1_000, { isUsageAsked: false }).understand(
    events.map((event) => ({ name: String(event['type']), data: JSON.stringify(event) })),
  );
  for (const chunk of chunks) expect(JSON.parse(chunk.json)).toEqual(chunk.parsed);
  return { chunks: chunks.map(({ parsed }) => parsed), failure, isDone };
}

const choicesOf = ({ chunks }: Read) =>
  chunks.flatMap((chunk) => chunk['choices'] as readonly { readonly delta: JsonObject; readonly finish_reason: string | null }[]);
const deltasOf = (result: Read) => choicesOf(result).map((choice) => choice.delta);

describe('a stream of a message', () => {
  test('is a role, its text, a reason and the usage', () => {
    const result = read(
      start,
      { type: 'ping' },
      open(0, { type: 'text', text: '' }),
      text('Hel'),
      text('lo'),
      close(0),
      finish('end_turn'),
      stop,
    );
    const head = { id: 'msg_1', object: 'chat.completion.chunk', created: 1_000, model: 'claude-test' };
    const chunk = (change: JsonObject, reason: string | null = null) => ({
      ...head,
      choices: [{ index: 0, delta: change, logprobs: null, finish_reason: reason }],
    });
    expect(result).toEqual({
      chunks: [
        chunk({ role: 'assistant', content: '' }),
        chunk({ content: 'Hel' }),
        chunk({ content: 'lo' }),
        chunk({}, 'stop'),
        { ...head, choices: [], usage: usageOf({ input_tokens: 5, output_tokens: 9 }) },
      ],
      failure: undefined,
      isDone: true,
    });
  });

  test('says that usage is still to come, in every chunk but the last, where it was asked for', () => {
    const events = [start, open(0, { type: 'text', text: 'x' }), finish('end_turn'), stop].map((event) => ({
      name: '',
      data: JSON.stringify(event),
    }));
    const { events: chunks } = new MessageEvents(1_000, { isUsageAsked: true }).understand(events);
    expect(chunks.map(({ parsed }) => parsed['usage'])).toEqual([null, null, expect.objectContaining({ prompt_tokens: 5 })]);
  });

  test('says nothing before there is content, so that a failure right then can be answered by another provider', () => {
    expect(read(start, { type: 'ping' }).chunks).toEqual([]);
    const failed = read(start, { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } });
    expect(failed).toMatchObject({ chunks: [], failure: { code: 'upstream_error' } });
  });

  test('numbers its tool calls, whatever the numbers of their blocks', () => {
    const result = read(
      start,
      open(0, { type: 'thinking', thinking: '' }),
      delta(0, { type: 'thinking_delta', thinking: 'hm' }),
      delta(0, { type: 'signature_delta', signature: 'secret-signature' }),
      close(0),
      open(3, tool('a')),
      input('', 3),
      input('{"x"', 3),
      open(7, tool('b')),
      input('{"y":2}', 7),
      input(':1}', 3),
      close(3),
      close(7),
      finish('tool_use'),
    );
    const call = (index: number, more: JsonObject) => ({ tool_calls: [{ index, ...more }] });
    const opened = (index: number, id: string) => call(index, { id, type: 'function', function: { name: `name_${id}`, arguments: '' } });
    const piece = (index: number, given: string) => call(index, { function: { arguments: given } });
    expect(deltasOf(result)).toEqual([
      { role: 'assistant', content: '' },
      { reasoning_content: 'hm' },
      opened(0, 'a'),
      piece(0, '{"x"'),
      opened(1, 'b'),
      piece(1, '{"y":2}'),
      piece(0, ':1}'),
      {},
    ]);
    expect(choicesOf(result).at(-1)?.finish_reason).toBe('tool_calls');
  });

  test.each([
    [{}, '{}'],
    [{ a: 1 }, '{"a":1}'],
    [null, '{}'],
  ])('has arguments that parse where none were streamed: %j', (given, expected) => {
    const calls = deltasOf(read(start, open(0, tool('a', { input: given })), input('', 0), close(0), close(0))).flatMap(
      (change) => change['tool_calls'] ?? [],
    );
    const argumentsOf = (calls as unknown as readonly { readonly function: { readonly arguments: string } }[]).map(
      (entry) => entry.function.arguments,
    );
    expect(argumentsOf.join('')).toBe(expected);
  });

  test('passes over blocks, deltas and events that are not known', () => {
    const result = read(
      start,
      { type: 'new_event' },
      open(0, { type: 'server_tool_use', id: 'srv', name: 'web_search', input: {} }),
      input('{"query":"x"}', 0),
      close(0),
      open(1, { type: 'text', text: '' }),
      delta(1, { type: 'citations_delta', citation: {} }),
      text('x', 1),
    );
    expect(deltasOf(result)).toEqual([{ role: 'assistant', content: '' }, { content: 'x' }]);
    expect(result.failure).toBeUndefined();
  });

  test('keeps the last counts that say something', () => {
    const usage = { input_tokens: 0, output_tokens: 20, cache_read_input_tokens: 30, cache_creation_input_tokens: null };
    const begun = { type: 'message_start', message: { id: 'm', model: 'm', usage: { input_tokens: 5, cache_creation_input_tokens: 40 } } };
    const last = read(begun, finish('end_turn', usage), finish(null, { output_tokens: 0 }), stop).chunks.at(-1);
    expect(extractUsage(last?.['usage'])).toMatchObject({ inputTokens: 75, outputTokens: 20, cacheReadTokens: 30, cacheWrite5mTokens: 40 });
  });

  test.each<[string, readonly JsonObject[]]>([
    ['content before its message', [open(0, { type: 'text', text: 'x' })]],
    ['an end before its message', [stop]],
    ['a reason before its message', [finish('end_turn')]],
    ['a message without an id', [{ type: 'message_start', message: { model: 'm' } }]],
    ['no message', [{ type: 'message_start' }]],
    ['a block that is none', [start, { type: 'content_block_start', index: 0 }]],
    ['a delta that is none', [start, { type: 'content_block_delta', index: 0 }]],
    ['a tool call without a name', [start, open(0, tool('a', { name: null }))]],
  ])('with %s is malformed', (_name, events) => {
    expect(read(...events)).toMatchObject({ failure: { code: 'upstream_error' }, isDone: false });
  });

  test('may open 1,024 tool calls at once and not one more', () => {
    const calls = (count: number) => Array.from({ length: count }, (_, index) => open(index, tool(`t${index}`)));
    expect(read(start, ...calls(1_024)).failure).toBeUndefined();
    expect(read(start, ...calls(1_025)).failure).toMatchObject({ code: 'upstream_error' });
    const oneByOne = calls(1_500).flatMap((opened, index) => [opened, close(index)]);
    expect(read(start, ...oneByOne).failure).toBeUndefined();
  });

  test('that ends without message_stop has broken off', () => {
    expect(new MessageEvents(0, { isUsageAsked: false }).endEarly()).toMatchObject({ code: 'upstream_error' });
  });
});

describe('a whole message', () => {
  const message = (content: readonly JsonObject[], more: JsonObject = {}) => ({
    id: 'msg_1',
    model: 'claude-test',
    content,
    stop_reason: 'end_turn',
    ...more,
  });
  const answerOf = (content: readonly JsonObject[]) =>
    (completionOf(message(content), 1)['choices'] as readonly { readonly message: JsonObject }[])[0]?.message;

  test('joins its texts and its thoughts, apart', () => {
    const blocks = [
      { type: 'thinking', thinking: 'hm', signature: 's' },
      { type: 'text', text: 'a' },
      { type: 'web_search_tool_result' },
      { type: 'text', text: 'b' },
    ];
    expect(answerOf(blocks)).toEqual({ role: 'assistant', content: 'ab', refusal: null, reasoning_content: 'hm' });
  });

  test('of calls alone has no content, and of nothing an empty one', () => {
    expect(answerOf([tool('a', { input: { x: 1 } })])).toEqual({
      role: 'assistant',
      content: null,
      refusal: null,
      tool_calls: [{ id: 'a', type: 'function', function: { name: 'name_a', arguments: '{"x":1}' } }],
    });
    expect(answerOf([])).toMatchObject({ content: '' });
  });

  test.each<JsonObject>([{}, { id: 'x', model: 'm' }, { id: 1, model: 'm', content: [] }, message([{ type: 'tool_use' }])])(
    'is not %j',
    (body) => {
      expect(() => completionOf(body, 1)).toThrow(BulkheadError);
    },
  );

  test('names the tier it was served in where that has another price', () => {
    expect(completionOf(message([], { usage: { service_tier: 'priority' } }), 1)['service_tier']).toBe('priority');
    expect(completionOf(message([], { usage: { service_tier: 'standard' } }), 1)).not.toHaveProperty('service_tier');
  });

  test.each([
    ['end_turn', 'stop'],
    ['stop_sequence', 'stop'],
    ['max_tokens', 'length'],
    ['model_context_window_exceeded', 'length'],
    ['pause_turn', 'length'],
    ['tool_use', 'tool_calls'],
    ['refusal', 'content_filter'],
    ['not_known_yet', 'stop'],
    [null, 'stop'],
  ])('that stopped for %s has finished for %s', (reason, expected) => {
    expect(finishReasonOf(reason)).toBe(expected);
  });
});

describe('usage', () => {
  const full = {
    input_tokens: 10,
    output_tokens: 50,
    cache_read_input_tokens: 200,
    cache_creation_input_tokens: 30,
    cache_creation: { ephemeral_5m_input_tokens: 20, ephemeral_1h_input_tokens: 10 },
    output_tokens_details: { thinking_tokens: 40 },
  };

  test('counts what the cache gave and took as input, and prices each by its lifetime', () => {
    expect(usageOf(full)).toMatchObject({
      prompt_tokens: 240,
      completion_tokens: 50,
      total_tokens: 290,
      prompt_tokens_details: { cached_tokens: 200 },
    });
    expect(extractUsage(usageOf(full))).toMatchObject({
      inputTokens: 240,
      outputTokens: 50,
      cacheReadTokens: 200,
      cacheWrite5mTokens: 20,
      cacheWrite1hTokens: 10,
      reasoningTokens: 40,
    });
  });

  test.each<JsonObject>([{}, { input_tokens: 0, output_tokens: 0 }, { input_tokens: -1, output_tokens: '7' }, { input_tokens: 1.5 }])(
    'is unknown in %j',
    (reported) => {
      expect(usageOf(reported)).toBeUndefined();
    },
  );
});
