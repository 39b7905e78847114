/** The unchanged OpenAI SDK, a real Bulkhead, and a server that speaks Anthropic's Messages API; and Anthropic's own SDK, which vouches for that server. */
import Anthropic from '@anthropic-ai/sdk';
import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  answeringWith,
  errorBody,
  eventsOf,
  framed,
  message,
  secretKey,
  textBlock,
  thinkingBlock,
  toolUseBlock,
  usageCounts,
} from '../support/anthropic-upstream.ts';
import { openProviderWorld, type ProviderWorld } from '../support/provider-world.ts';
import { answer, eventStream, ScriptedUpstream } from '../support/scripted-upstream.ts';

const tools: OpenAI.ChatCompletionTool[] = [
  { type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } },
  { type: 'function', function: { name: 'today' } },
];
const hello: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'hello' }];
const calling = message([
  thinkingBlock('let me see'),
  textBlock('I look it up.'),
  toolUseBlock('weather', { city: 'Zürich' }),
  toolUseBlock('today', {}),
]);
const cached = message([textBlock('From the cache.')], {
  usage: usageCounts({
    input_tokens: 5,
    cache_read_input_tokens: 100,
    cache_creation_input_tokens: 40,
    cache_creation: { ephemeral_5m_input_tokens: 40, ephemeral_1h_input_tokens: 0 },
    output_tokens: 9,
  }),
});

let upstream: ScriptedUpstream;
let world: ProviderWorld;
let openai: ProviderWorld['openai'];
let plainOpenai: ProviderWorld['plainOpenai'];

const configuration = (baseUrl: string) => `
providers: [ { id: claude, kind: anthropic, baseUrl: "${baseUrl}", apiKey: ${secretKey}, promptCache: true } ]
models:
  - { id: claude, deployments: [ { provider: claude, model: claude-sonnet-4-5 } ], outputTokensMax: 2000 }
`;

beforeAll(async () => {
  upstream = await ScriptedUpstream.start(answeringWith(message([textBlock('hi')])));
  world = await openProviderWorld(configuration(upstream.baseUrl.replace(/\/v1$/, '')));
  ({ openai, plainOpenai } = world);
}, 120_000);
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  await upstream[Symbol.asyncDispose]();
});

function anthropic(): Anthropic {
  return new Anthropic({ baseURL: upstream.baseUrl.replace(/\/v1$/, ''), apiKey: secretKey, maxRetries: 0 });
}

describe('the server of these tests', () => {
  const request: Anthropic.MessageCreateParamsNonStreaming = {
    model: 'claude-test',
    max_tokens: 10,
    messages: [{ role: 'user', content: 'x' }],
  };

  it.each([
    ['text', message([textBlock('größe 🚀')])],
    ['thoughts and calls', calling],
    ['cached tokens', cached],
    ['no content', message([], { stop_reason: 'refusal' })],
  ])('is read by Anthropic’s own SDK: %s, whole and streamed, to the same message', async (_name, whole) => {
    upstream.answerWith(answeringWith(whole));
    expect(await anthropic().messages.create(request)).toMatchObject({ ...whole });
    const streamed = await anthropic().messages.stream(request).finalMessage();
    expect({ content: streamed.content, stop_reason: streamed.stop_reason }).toMatchObject({
      content: whole.content,
      stop_reason: whole.stop_reason,
    });
    expect(streamed.usage).toMatchObject({ input_tokens: whole.usage.input_tokens, output_tokens: whole.usage.output_tokens });
  });

  it('refuses what the API refuses, in the errors that SDK knows', async () => {
    upstream.answerWith(answeringWith(cached));
    const empty = anthropic().messages.create({ ...request, messages: [] });
    await expect(empty).rejects.toBeInstanceOf(Anthropic.BadRequestError);
    const stranger = new Anthropic({ baseURL: upstream.baseUrl.replace(/\/v1$/, ''), apiKey: 'other', maxRetries: 0 });
    await expect(stranger.messages.create(request)).rejects.toBeInstanceOf(Anthropic.AuthenticationError);
    upstream.answerWith(answer(429, errorBody('rate_limit_error', 'slow down'), { 'retry-after': '7' }));
    await expect(anthropic().messages.create(request)).rejects.toMatchObject({ status: 429, type: 'rate_limit_error' });
    upstream.answerWith(eventStream(framed(errorBody('overloaded_error', 'Overloaded'))));
    await expect(anthropic().messages.stream(request).finalMessage()).rejects.toMatchObject({ type: 'overloaded_error' });
  });
});

describe('the unchanged OpenAI SDK, through Bulkhead to Anthropic', () => {
  it('chats, and its answer is priced with what the cache gave and took', async () => {
    upstream.answerWith(answeringWith(cached));
    const sent = await openai()
      .chat.completions.create({ model: 'claude', messages: [{ role: 'system', content: 'Be brief.' }, ...hello] })
      .withResponse();
    expect(sent.data.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: 'From the cache.' } });
    expect(sent.data.usage).toMatchObject({
      prompt_tokens: 145,
      completion_tokens: 9,
      total_tokens: 154,
      prompt_tokens_details: { cached_tokens: 100 },
    });
    // claude-sonnet-4-5 in the price file, USD per million: input 3, cache read 0.3, written for 5 minutes 3.75, output 15.
    const usd = (5 * 3 + 100 * 0.3 + 40 * 3.75 + 9 * 15) / 1e6;
    expect(Number(sent.response.headers.get('x-bulkhead-cost-usd'))).toBeCloseTo(usd, 9);
    expect([...sent.response.headers.keys()].filter((name) => name.startsWith('anthropic'))).toEqual([]);
    expect(upstream.received.at(-1)?.body['max_tokens']).toBe(2_000);
  });

  it('streams text, thoughts and calls of tools, with usage when asked', async () => {
    upstream.answerWith(answeringWith(calling));
    const stream = openai().chat.completions.stream({ model: 'claude', messages: hello, tools, stream_options: { include_usage: true } });
    const final = await stream.finalChatCompletion();
    expect(final.choices[0]?.finish_reason).toBe('tool_calls');
    expect(final.choices[0]?.message.content).toBe('I look it up.');
    expect(final.choices[0]?.message.tool_calls).toMatchObject([
      { id: 'toolu_01weather', function: { name: 'weather', arguments: '{"city":"Zürich"}' } },
      { id: 'toolu_01today', function: { name: 'today', arguments: '{}' } },
    ]);
    expect(final.usage).toMatchObject({ prompt_tokens: 11, completion_tokens: 7 });
  });

  it('gives results of tools back in its own words, call after call', async () => {
    upstream.answerWith((response, request) => {
      const turns = request.body['messages'] as readonly unknown[];
      return answeringWith(turns.length === 1 ? calling : message([textBlock('12 degrees.')]))(response, request);
    });
    const client = openai();
    const first = await client.chat.completions.create({ model: 'claude', messages: hello, tools });
    const asked = first.choices[0]?.message;
    if (asked === undefined) throw new Error('no answer');
    const results = (asked.tool_calls ?? []).map(
      ({ id }): OpenAI.ChatCompletionMessageParam => ({ role: 'tool', tool_call_id: id, content: '12' }),
    );
    const second = await client.chat.completions.create({ model: 'claude', messages: [...hello, asked, ...results], tools });
    expect(second.choices[0]?.message.content).toBe('12 degrees.');
  });

  it('answers the Responses API too', async () => {
    upstream.answerWith(answeringWith(message([textBlock('Hello there.')])));
    const response = await openai().responses.create({ model: 'claude', input: 'hello', instructions: 'Be brief.' });
    expect(response.output_text).toBe('Hello there.');
  });

  it('is told by name what cannot be had, before anything is spent', async () => {
    const before = upstream.received.length;
    const refused = plainOpenai().chat.completions.create({ model: 'claude', messages: hello, n: 2 });
    await expect(refused).rejects.toMatchObject({ status: 400, code: 'unsupported_parameter', param: 'n' });
    expect(upstream.received).toHaveLength(before);
  });

  it('sees an overloaded provider as one that failed, whole, at once and in the middle', async () => {
    // It is asked again a second later, and two seconds after that; then it is left alone for a while, which an operator ends here.
    const ask = async (stream: boolean) => {
      await world.admin('/deployments', { id: 'claude/claude-sonnet-4-5', to: 'auto' });
      return plainOpenai().chat.completions.create({ model: 'claude', messages: hello, stream });
    };
    upstream.answerWith(answer(529, errorBody('overloaded_error', 'Overloaded')));
    await expect(ask(false)).rejects.toMatchObject({ status: 502, code: 'upstream_error' });
    upstream.answerWith(eventStream(...eventsOf(calling).slice(0, 2).map(framed), framed(errorBody('overloaded_error', 'Overloaded'))));
    await expect(ask(true)).rejects.toMatchObject({ status: 502, code: 'upstream_error' });
    upstream.answerWith(eventStream(...eventsOf(calling).slice(0, 6).map(framed), framed(errorBody('overloaded_error', 'Overloaded'))));
    const read = async () => {
      for await (const chunk of (await ask(true)) as AsyncIterable<unknown>) expect(chunk).toBeDefined();
    };
    await expect(read()).rejects.toMatchObject({ code: 'upstream_error' });
    await world.admin('/deployments', { id: 'claude/claude-sonnet-4-5', to: 'auto' });
  });

  it('shares no prompt cache and no end user with another tenant, and no name of a user leaves', async () => {
    upstream.answerWith(answeringWith(cached));
    for (const tenant of ['acme', 'globex', 'acme']) {
      await openai(tenant).chat.completions.create({ model: 'claude', messages: hello, user: 'ann@example.com', prompt_cache_key: 'same' });
    }
    const sent = upstream.received
      .slice(-3)
      .map(({ body }) => ({ partition: JSON.stringify(body['system']), user: JSON.stringify(body['metadata']) }));
    expect(sent[0]).toEqual(sent[2]);
    expect(sent[0]?.partition).not.toBe(sent[1]?.partition);
    expect(sent[0]?.user).not.toBe(sent[1]?.user);
    expect(JSON.stringify(upstream.received.map(({ body }) => body))).not.toMatch(/ann@example|acme|globex/);
    expect(world.bulkhead.log()).not.toContain(secretKey);
  });
});
