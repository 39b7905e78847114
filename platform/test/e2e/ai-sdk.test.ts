/** The unchanged OpenAI SDK and a real Bulkhead, with Google's and Amazon's APIs behind the AI SDK's packages: configured in two lines each, priced, apart by tenant. */
import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bedrockSecret } from '../support/bedrock-upstream.ts';
import { geminiFailure, geminiKey, generating } from '../support/gemini-upstream.ts';
import { openProviderWorld, type ProviderWorld } from '../support/provider-world.ts';
import { answer, ScriptedUpstream } from '../support/scripted-upstream.ts';

const hello: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'hello' }];
const tools: OpenAI.ChatCompletionTool[] = [
  { type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: {} } } },
];

let upstream: ScriptedUpstream;
let world: ProviderWorld;
let openai: ProviderWorld['openai'];
let plainOpenai: ProviderWorld['plainOpenai'];

const configuration = (baseUrl: string) => `
providers:
  - { id: google, kind: ai-sdk, package: "@ai-sdk/google", baseUrl: "${baseUrl}", apiKey: ${geminiKey} }
  - { id: amazon, kind: ai-sdk, package: "@ai-sdk/amazon-bedrock", baseUrl: "${baseUrl}",
      settings: { region: eu-central-1, accessKeyId: AKIAIOSFODNN7EXAMPLE, secretAccessKey: ${bedrockSecret} } }
models:
  - { id: gemini, deployments: [ { provider: google, model: gemini-2.5-flash } ], outputTokensMax: 2000 }
  - { id: either, deployments: [ { provider: google, model: gemini-2.5-flash }, { provider: amazon, model: "amazon.nova-lite-v1:0" } ] }
`;

beforeAll(async () => {
  upstream = await ScriptedUpstream.start(generating([{ text: 'hi' }]));
  world = await openProviderWorld(configuration(upstream.baseUrl));
  ({ openai, plainOpenai } = world);
}, 120_000);
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  await upstream[Symbol.asyncDispose]();
});

describe('the unchanged OpenAI SDK', () => {
  it('chats with Gemini, and is priced for what was cached and thought', async () => {
    const usage = {
      promptTokenCount: 1_000,
      cachedContentTokenCount: 400,
      candidatesTokenCount: 10,
      thoughtsTokenCount: 90,
      totalTokenCount: 1_100,
    };
    upstream.answerWith(generating([{ text: 'Hello.' }], 'STOP', usage));
    const sent = await openai().chat.completions.create({ model: 'gemini', messages: hello }).withResponse();
    expect(sent.data.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: 'Hello.' } });
    expect(sent.data.usage).toMatchObject({ prompt_tokens: 1_000, completion_tokens: 100, prompt_tokens_details: { cached_tokens: 400 } });
    // gemini-2.5-flash in the price file, USD per million: input 0.3, cache read 0.03, output 2.5.
    const usd = (600 * 0.3 + 400 * 0.03 + 100 * 2.5) / 1e6;
    expect(Number(sent.response.headers.get('x-bulkhead-cost-usd'))).toBeCloseTo(usd, 9);
    expect(upstream.received.at(-1)?.body).toMatchObject({ generationConfig: { maxOutputTokens: 2_000 } });
  });

  it('calls tools with it, streamed, and gives their results back with what Gemini signed', async () => {
    const calling = generating([{ functionCall: { id: 'c1', name: 'weather', args: {} }, thoughtSignature: 'c2lnbmVk' }]);
    upstream.answerWith((response, request) =>
      ((request.body['contents'] as unknown[]).length === 1 ? calling : generating([{ text: '12 degrees.' }]))(response, request),
    );
    const client = openai();
    const asked = (await client.chat.completions.create({ model: 'gemini', messages: hello, tools })).choices[0]?.message;
    if (asked === undefined) throw new Error('no answer');
    const results = (asked.tool_calls ?? []).map(
      ({ id }): OpenAI.ChatCompletionMessageParam => ({ role: 'tool', tool_call_id: id, content: '12' }),
    );
    const stream = client.chat.completions.stream({ model: 'gemini', messages: [...hello, asked, ...results], tools });
    expect((await stream.finalChatCompletion()).choices[0]?.message.content).toBe('12 degrees.');
    expect(JSON.stringify(upstream.received.at(-1)?.body['contents'])).toContain('"thoughtSignature":"c2lnbmVk"');
  });

  it('answers the Responses API too', async () => {
    upstream.answerWith(generating([{ text: 'Hello there.' }]));
    expect((await openai().responses.create({ model: 'gemini', input: 'hello' })).output_text).toBe('Hello there.');
  });

  it('is answered by the other provider when one is overloaded', async () => {
    upstream.answerWith((response, request) =>
      request.path.includes('gemini') ? geminiFailure(503, 'UNAVAILABLE', 'overloaded')(response, request) : converse(response, request),
    );
    for (let time = 0; time < 4; time++) {
      const answered = await openai().chat.completions.create({ model: 'either', messages: hello });
      expect(answered.choices[0]?.message.content).toBe('From Amazon.');
    }
    expect(new Set(upstream.received.slice(-8).map(({ path }) => path.includes('gemini')))).toEqual(new Set([true, false]));
  });

  it('is told by name what cannot be had, before anything is spent', async () => {
    const before = upstream.received.length;
    const refused = plainOpenai().chat.completions.create({ model: 'gemini', messages: hello, n: 2 });
    await expect(refused).rejects.toMatchObject({ status: 400, code: 'unsupported_parameter', param: 'n' });
    expect(upstream.received).toHaveLength(before);
  });

  it('shares no prompt cache with another tenant, and no name leaves', async () => {
    upstream.answerWith(generating([{ text: 'hi' }]));
    for (const tenant of ['acme', 'globex', 'acme']) {
      await openai(tenant).chat.completions.create({ model: 'gemini', messages: hello, user: 'ann@example.com', prompt_cache_key: 'same' });
    }
    const begun = upstream.received.slice(-3).map(({ body }) => JSON.stringify(body['systemInstruction']));
    expect(begun[0]).toMatch(/cache partition [0-9a-f]{32}/);
    expect(begun[0]).toBe(begun[2]);
    expect(begun[0]).not.toBe(begun[1]);
    expect(JSON.stringify(upstream.received.map(({ body }) => body))).not.toMatch(/ann@example|acme|globex/);
    expect(world.bulkhead.log()).not.toContain(geminiKey);
    expect(world.bulkhead.log()).not.toContain(bedrockSecret);
  });
});

const converse = answer(200, {
  output: { message: { role: 'assistant', content: [{ text: 'From Amazon.' }] } },
  stopReason: 'end_turn',
  usage: { inputTokens: 3, outputTokens: 5, totalTokens: 8 },
  metrics: { latencyMs: 1 },
});
