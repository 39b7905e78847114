import type Anthropic from '@anthropic-ai/sdk';
import { describe, expect, test } from 'vitest';
import type { ProviderCall } from '../../inference/provider.ts';
import type { JsonObject } from '../../upstream/json-object.ts';
import { messageRequest } from './message-request.ts';

const hello = { role: 'user', content: 'hello' };
const png = 'iVBORw0KGgo=';

function translate(body: JsonObject, call: Partial<ProviderCall> = {}, usesPromptCache = false): JsonObject {
  const whole = { model: 'public', messages: [hello], ...body };
  return messageRequest({ upstreamModel: 'claude-test', requestId: 'req_1', body: whole, ...call }, { usesPromptCache });
}

const turnsOf = (messages: readonly unknown[]) => translate({ messages })['messages'] as readonly Anthropic.MessageParam[];
const call = (name: string, given: unknown, id = `call_${name}`) => ({ id, type: 'function', function: { name, arguments: given } });

test('a request says model, limit and turns, and nothing that nobody asked for', () => {
  const expected: Anthropic.MessageCreateParamsNonStreaming = {
    model: 'claude-test',
    max_tokens: 4_096,
    messages: [{ role: 'user', content: [{ type: 'text', text: 'hello' }] }],
  };
  expect(translate({ stream: true, stream_options: { include_usage: true } })).toEqual(expected);
});

describe('messages', () => {
  test('of the system and the developer become the system prompt, in order, wherever they stand', () => {
    const messages = [
      { role: 'system', content: 'one' },
      hello,
      { role: 'developer', content: [{ type: 'text', text: 'two' }] },
      { role: 'assistant', content: 'hi' },
      { role: 'system', content: ' ' },
    ];
    const system: Anthropic.TextBlockParam[] = [
      { type: 'text', text: 'one' },
      { type: 'text', text: 'two' },
    ];
    expect(translate({ messages })).toMatchObject({ system, messages: [{ role: 'user' }, { role: 'assistant' }] });
  });

  test('of one role in a row are one turn, and empty ones are none', () => {
    const turns = turnsOf([
      hello,
      { role: 'user', content: '' },
      { role: 'user', content: 'again' },
      { role: 'assistant', content: null },
      hello,
    ]);
    expect(turns).toEqual([{ role: 'user', content: ['hello', 'again', 'hello'].map((text) => ({ type: 'text', text })) }]);
  });

  test('with calls of tools are followed by all their results and what the user says next, in one turn', () => {
    const turns = turnsOf([
      hello,
      { role: 'assistant', content: 'let me see', tool_calls: [call('a', '{"x":1}'), call('b', '')] },
      { role: 'tool', tool_call_id: 'call_a', content: 'first' },
      { role: 'tool', tool_call_id: 'call_b', content: [{ type: 'text', text: 'second' }] },
      { role: 'user', content: 'well?' },
    ]);
    const expected: Anthropic.MessageParam[] = [
      { role: 'user', content: [{ type: 'text', text: 'hello' }] },
      {
        role: 'assistant',
        content: [
          { type: 'text', text: 'let me see' },
          { type: 'tool_use', id: 'call_a', name: 'a', input: { x: 1 } },
          { type: 'tool_use', id: 'call_b', name: 'b', input: {} },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 'call_a', content: [{ type: 'text', text: 'first' }] },
          { type: 'tool_result', tool_use_id: 'call_b', content: [{ type: 'text', text: 'second' }] },
          { type: 'text', text: 'well?' },
        ],
      },
    ];
    expect(turns).toEqual(expected);
  });

  test('may have an empty result, and ids of another provider’s form become the same one in call and result', () => {
    const id = 'functions.get_weather:0';
    const turns = turnsOf([
      hello,
      { role: 'assistant', tool_calls: [call('f', '{}', id)] },
      { role: 'tool', tool_call_id: id, content: '' },
    ]);
    const use = turns[1]?.content[0] as Anthropic.ToolUseBlockParam | undefined;
    expect(use?.id).toMatch(/^call_[0-9a-f]{32}$/);
    expect(turns[2]?.content).toEqual([{ type: 'tool_result', tool_use_id: use?.id }]);
  });

  test('may hold images, as base64 and by address', () => {
    const parts = [
      { type: 'text', text: 'what is it?' },
      { type: 'image_url', image_url: { url: `data:image/PNG;base64,${png}`, detail: 'high' } },
      { type: 'image_url', image_url: { url: 'https://pictures.example/a.jpg' } },
    ];
    const expected: Anthropic.ContentBlockParam[] = [
      { type: 'text', text: 'what is it?' },
      { type: 'image', source: { type: 'base64', media_type: 'image/png', data: png } },
      { type: 'image', source: { type: 'url', url: 'https://pictures.example/a.jpg' } },
    ];
    expect(turnsOf([{ role: 'user', content: parts }])[0]?.content).toEqual(expected);
  });

  const user = (part: unknown) => [{ role: 'user', content: [part] }];
  const assistant = (fields: JsonObject) => [hello, { role: 'assistant', content: 'x', ...fields }];
  test.each<[string, readonly unknown[], string, string]>([
    ['sound', user({ type: 'input_audio', input_audio: {} }), 'unsupported_parameter', 'messages.0.content.0.type'],
    ['a file', user({ type: 'file', file: { file_id: 'file-1' } }), 'unsupported_parameter', 'messages.0.content.0.type'],
    ['a text that is none', user({ type: 'text', text: 1 }), 'invalid_value', 'messages.0.content.0.text'],
    ['a part that is none', user('x'), 'invalid_value', 'messages.0.content.0'],
    ['a content that is none', [{ role: 'user', content: 1 }], 'invalid_value', 'messages.0.content'],
    ['an image without address', user({ type: 'image_url' }), 'invalid_value', 'messages.0.content.0.image_url.url'],
    [
      'an image by file',
      user({ type: 'image_url', image_url: { url: 'file:///etc/passwd' } }),
      'invalid_value',
      'messages.0.content.0.image_url.url',
    ],
    [
      'an image as text',
      user({ type: 'image_url', image_url: { url: 'data:image/png,x' } }),
      'invalid_value',
      'messages.0.content.0.image_url.url',
    ],
    [
      'a picture of SVG',
      user({ type: 'image_url', image_url: { url: 'data:image/svg+xml;base64,x' } }),
      'unsupported_parameter',
      'messages.0.content.0.image_url.url',
    ],
    [
      'an image of the system',
      [{ role: 'system', content: [{ type: 'image_url' }] }, hello],
      'unsupported_parameter',
      'messages.0.content.0.type',
    ],
    ['the role function', [{ role: 'function', content: 'x' }], 'unsupported_parameter', 'messages.0.role'],
    ['a spoken answer', assistant({ audio: { id: 'a' } }), 'unsupported_parameter', 'messages.1.audio'],
    ['an old call of a function', assistant({ function_call: {} }), 'unsupported_parameter', 'messages.1.function_call'],
    [
      'a call of a custom tool',
      assistant({ tool_calls: [{ id: 'x', type: 'custom' }] }),
      'unsupported_parameter',
      'messages.1.tool_calls.0.type',
    ],
    ['arguments cut short', assistant({ tool_calls: [call('f', '{"a":')] }), 'invalid_value', 'messages.1.tool_calls.0.function.arguments'],
    [
      'arguments that are a list',
      assistant({ tool_calls: [call('f', '[]')] }),
      'invalid_value',
      'messages.1.tool_calls.0.function.arguments',
    ],
    ['nothing but the system', [{ role: 'system', content: 'x' }], 'invalid_value', 'messages'],
    ['nothing but white space', [{ role: 'user', content: ' \n' }], 'invalid_value', 'messages'],
  ])('with %s are refused by name', (_name, messages, code, param) => {
    expect(() => translate({ messages })).toThrow(expect.objectContaining({ code, param }));
  });
});

describe('tools', () => {
  const weather = {
    type: 'function',
    function: { name: 'weather', description: 'Now.', strict: true, parameters: { properties: { at: {} } } },
  };
  const bare = { type: 'function', function: { name: 'bare' } };

  test('keep name, description, schema and strictness', () => {
    const expected: Anthropic.Tool[] = [
      { name: 'weather', description: 'Now.', strict: true, input_schema: { type: 'object', properties: { at: {} } } },
      { name: 'bare', input_schema: { type: 'object', properties: {} } },
    ];
    expect(translate({ tools: [weather, bare] })).toMatchObject({ tools: expected });
  });

  test.each<[unknown, unknown, Anthropic.ToolChoice | undefined]>([
    [undefined, undefined, undefined],
    [undefined, true, undefined],
    [undefined, false, { type: 'auto', disable_parallel_tool_use: true }],
    ['auto', undefined, { type: 'auto' }],
    ['none', false, { type: 'none' }],
    ['required', undefined, { type: 'any' }],
    ['required', false, { type: 'any', disable_parallel_tool_use: true }],
    [{ type: 'function', function: { name: 'bare' } }, false, { type: 'tool', name: 'bare', disable_parallel_tool_use: true }],
  ])('are chosen by %j, with parallel_tool_calls %j', (choice, parallel, expected) => {
    expect(translate({ tools: [bare], tool_choice: choice, parallel_tool_calls: parallel })['tool_choice']).toEqual(expected);
  });

  test('that are not there need no choice', () => {
    expect(translate({ tools: [], tool_choice: 'auto', parallel_tool_calls: false })).not.toHaveProperty('tool_choice');
  });

  test.each<[JsonObject, string, string]>([
    [{ tools: [{ type: 'custom', custom: { name: 'x' } }] }, 'unsupported_parameter', 'tools.0.type'],
    [{ tools: [{ type: 'function', function: {} }] }, 'invalid_value', 'tools.0.function.name'],
    [{ tools: [bare], tool_choice: { type: 'allowed_tools' } }, 'unsupported_parameter', 'tool_choice'],
    [{ tool_choice: 'required' }, 'invalid_value', 'tool_choice'],
  ])('such as %j are refused by name', (body, code, param) => {
    expect(() => translate(body)).toThrow(expect.objectContaining({ code, param }));
  });
});

describe('the limit of the answer', () => {
  test.each<[JsonObject, number | undefined, number]>([
    [{}, undefined, 4_096],
    [{}, 900, 900],
    [{ max_tokens: 50 }, 900, 50],
    [{ max_completion_tokens: 60 }, 900, 60],
    [{ max_tokens: 50, max_completion_tokens: 60 }, undefined, 50],
    [{ max_tokens: 900 }, 900, 900],
    [{ max_tokens: 901 }, 900, 900],
    [{ max_tokens: null }, 900, 900],
  ])('of %j where the model gives %j is %d', (body, outputTokensMax, expected) => {
    expect(translate(body, { outputTokensMax })['max_tokens']).toBe(expected);
  });
});

describe('parameters', () => {
  test.each<[JsonObject, JsonObject]>([
    [
      { temperature: 0, top_p: 0.9 },
      { temperature: 0, top_p: 0.9 },
    ],
    [{ stop: 'END' }, { stop_sequences: ['END'] }],
    [{ stop: ['a', 'b'] }, { stop_sequences: ['a', 'b'] }],
    [{ reasoning_effort: 'minimal' }, { output_config: { effort: 'low' } }],
    [{ reasoning_effort: 'xhigh' }, { output_config: { effort: 'xhigh' } }],
    [{ reasoning_effort: 'none' }, { thinking: { type: 'disabled' } }],
    [{ service_tier: 'default' }, { service_tier: 'standard_only' }],
    [
      { reasoning_effort: 'high', response_format: { type: 'json_schema', json_schema: { name: 'n', schema: { type: 'object' } } } },
      { output_config: { effort: 'high', format: { type: 'json_schema', schema: { type: 'object' } } } },
    ],
  ])('such as %j become %j', (body, expected) => {
    const { model: _model, max_tokens: _maxTokens, messages: _messages, ...rest } = translate(body);
    expect(rest).toEqual(expected);
  });

  test.each<JsonObject>([
    {
      temperature: 1,
      top_p: 1,
      stop: [],
      n: 1,
      logprobs: false,
      top_logprobs: 0,
      presence_penalty: 0,
      frequency_penalty: 0,
      logit_bias: {},
    },
    { modalities: ['text'], store: false, verbosity: 'medium', service_tier: 'auto', response_format: { type: 'text' }, tools: [] },
    { seed: 7, metadata: { a: 'b' }, prediction: { type: 'content', content: 'x' }, prompt_cache_retention: '24h', prompt_cache_key: 'k' },
    { n: null, audio: null, functions: null, temperature: null, stop: null, tools: null, response_format: null, reasoning_effort: null },
  ])('that ask for what happens anyway, or that promise nothing, are not sent: %j', (body) => {
    expect(translate(body)).toEqual(translate({}));
  });

  test.each<[JsonObject, string, string]>([
    [{ n: 2 }, 'n', 'unsupported_parameter'],
    [{ logprobs: true }, 'logprobs', 'unsupported_parameter'],
    [{ top_logprobs: 3 }, 'top_logprobs', 'unsupported_parameter'],
    [{ presence_penalty: 0.1 }, 'presence_penalty', 'unsupported_parameter'],
    [{ frequency_penalty: -1 }, 'frequency_penalty', 'unsupported_parameter'],
    [{ logit_bias: { '50256': -100 } }, 'logit_bias', 'unsupported_parameter'],
    [{ modalities: ['text', 'audio'] }, 'modalities', 'unsupported_parameter'],
    [{ audio: { voice: 'alloy' } }, 'audio', 'unsupported_parameter'],
    [{ store: true }, 'store', 'unsupported_parameter'],
    [{ functions: [] }, 'functions', 'unsupported_parameter'],
    [{ web_search_options: {} }, 'web_search_options', 'unsupported_parameter'],
    [{ verbosity: 'low' }, 'verbosity', 'unsupported_parameter'],
    [{ service_tier: 'flex' }, 'service_tier', 'unsupported_parameter'],
    [{ not_known_yet: 1 }, 'not_known_yet', 'unsupported_parameter'],
    [{ constructor: 1 }, 'constructor', 'unsupported_parameter'],
    [{ reasoning_effort: 'toString' }, 'reasoning_effort', 'unsupported_parameter'],
    [{ response_format: { type: 'json_object' } }, 'response_format.type', 'unsupported_parameter'],
    [{ response_format: { type: 'json_schema' } }, 'response_format.json_schema.schema', 'invalid_value'],
    [{ temperature: 1.01 }, 'temperature', 'invalid_value'],
  ])('such as %j are refused by name, %s', (body, param, code) => {
    expect(() => translate(body)).toThrow(expect.objectContaining({ code, param }));
  });
});

describe('the end user', () => {
  const idOf = (body: JsonObject, cacheSalt: string | undefined) =>
    (translate(body, { cacheSalt })['metadata'] as { readonly user_id: string } | undefined)?.user_id;

  test('is an opaque id that no two tenants share and that stays the same', () => {
    const [ours, again, theirs] = ['a', 'a', 'b'].map((salt) => idOf({ user: 'ann@example.com' }, salt));
    expect(ours).toMatch(/^[0-9a-f]{64}$/);
    expect(again).toBe(ours);
    expect(theirs).not.toBe(ours);
    expect(idOf({ user: 'bob@example.com' }, 'a')).not.toBe(ours);
    expect(idOf({ user: 'x', safety_identifier: 'ann@example.com' }, 'a')).toBe(ours);
  });

  test('is not sent in the open where there is no salt, nor made up where there is none', () => {
    expect(JSON.stringify(translate({ user: 'ann@example.com' }))).not.toContain('ann');
    expect(idOf({}, 'a')).toBeUndefined();
  });
});

describe('the prompt cache', () => {
  const messages = [{ role: 'system', content: 'rules' }, hello];
  const tools = [{ type: 'function', function: { name: 'f' } }];
  const cached = (cacheSalt: string | undefined, key?: string) =>
    translate({ messages, tools, prompt_cache_key: key }, { cacheSalt }, true);
  const firstBlock = (request: JsonObject) => (request['system'] as readonly Anthropic.TextBlockParam[])[0]?.text;

  test('is not used unless the operator wants it and the tenant has a salt', () => {
    for (const request of [translate({ messages }, { cacheSalt: 'a' }, false), cached(undefined)]) {
      expect(JSON.stringify(request)).not.toContain('cache');
    }
  });

  test('marks no prefix that does not hold the tenant’s own block, its tools included', () => {
    const request = cached('a');
    const system = request['system'] as readonly Anthropic.TextBlockParam[];
    expect(system.map(({ cache_control: mark }) => mark)).toEqual([undefined, { type: 'ephemeral' }]);
    expect(request['cache_control']).toEqual({ type: 'ephemeral' });
    expect(JSON.stringify([request['tools'], request['messages']])).not.toContain('cache_control');
  });

  test('takes no mark from a client', () => {
    const marked = { type: 'text', text: 'x', cache_control: { type: 'ephemeral' } };
    const request = translate(
      { messages: [{ role: 'user', content: [marked] }], tools: [{ ...tools[0], cache_control: marked.cache_control }] },
      { cacheSalt: 'a' },
    );
    expect(JSON.stringify(request)).not.toContain('cache_control');
  });

  test('is a partition of each tenant’s, and of each key within', () => {
    const blocks = [cached('a'), cached('b'), cached('a', 'k'), cached('b', 'k')].map(firstBlock);
    expect(new Set(blocks).size).toBe(4);
    expect(firstBlock(cached('a'))).toBe(blocks[0]);
    expect(blocks[0]).toMatch(/^\[cache partition [0-9a-f]{32}\]$/);
    expect(firstBlock(translate({}, { cacheSalt: 'a' }, true))).toBe(blocks[0]);
  });
});
