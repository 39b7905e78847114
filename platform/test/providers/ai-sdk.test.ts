/** Providers behind the AI SDK's packages, and what may be in their place, against real servers: trusted as little as any provider. */
import type { ServerResponse } from 'node:http';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { AiSdkProvider } from '../../src/adapters/ai-sdk/ai-sdk-provider.ts';
import { CallTransport } from '../../src/adapters/ai-sdk/call-transport.ts';
import type { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { type ProviderCall, UpstreamRefusal } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { UpstreamConnection } from '../../src/upstream/upstream-connection.ts';
import { collect, deltaText, never } from '../contracts/provider.ts';
import { bedrockFrame, bedrockSecret, beginBedrock } from '../support/bedrock-upstream.ts';
import { beginGemini, geminiEvent, geminiFailure, geminiKey, generating, response } from '../support/gemini-upstream.ts';
import { bedrockConfig, geminiConfig } from '../support/providers.ts';
import { answer, eventStream, openStream, ScriptedUpstream, type UpstreamScript } from '../support/scripted-upstream.ts';

const hello = { role: 'user', content: 'hi' };
const spoken = 'größe 多租户 🚀';

let upstream: ScriptedUpstream;
let gemini: AiSdkProvider;
let bedrock: AiSdkProvider;

beforeAll(async () => {
  upstream = await ScriptedUpstream.start(answer(200, {}));
  gemini = await AiSdkProvider.open(geminiConfig(upstream.baseUrl), systemClock);
  bedrock = await AiSdkProvider.open(bedrockConfig(upstream.baseUrl), systemClock);
});
afterAll(async () => {
  await gemini.close();
  await bedrock.close();
  await upstream[Symbol.asyncDispose]();
});

function chat(body: Record<string, unknown> = {}, rest: Partial<ProviderCall> = {}): ProviderCall {
  return { upstreamModel: 'gemini-2.5-flash', requestId: 'req_1', body: { model: 'p', messages: [hello], ...body }, ...rest };
}

/** What the provider was sent. */
async function sent(call: ProviderCall, script = generating([{ text: 'ok' }])): Promise<Record<string, unknown>> {
  upstream.answerWith(script);
  await gemini.complete(call, never());
  return { ...upstream.received.at(-1)?.body };
}

async function whole(script: UpstreamScript, call = chat()): Promise<Record<string, unknown>> {
  upstream.answerWith(script);
  return { ...(await gemini.complete(call, never())).parsed };
}

/** The answer put together from a stream's chunks as clients do it. */
async function streamed(script: UpstreamScript, call = chat({ stream: true, stream_options: { include_usage: true } })) {
  upstream.answerWith(script);
  const events = await collect(await gemini.stream(call, never()));
  const deltas = events.flatMap(({ parsed }) => parsed['choices'] as readonly Chunk[]);
  const calls: Record<string, unknown>[] = [];
  for (const { index, function: piece, ...rest } of deltas.flatMap(({ delta }) => delta.tool_calls ?? [])) {
    const known = calls[index] ?? { function: { name: '', arguments: '' } };
    calls[index] = known;
    const made = known['function'] as Record<string, string>;
    Object.assign(known, rest);
    made['name'] += piece?.name ?? '';
    made['arguments'] += piece?.arguments ?? '';
  }
  return {
    content: deltas.map(({ delta }) => delta.content ?? '').join(''),
    reasoning: deltas.map(({ delta }) => delta.reasoning_content ?? '').join(''),
    calls,
    finishReasons: deltas.flatMap(({ finish_reason: reason }) => (reason === null ? [] : [reason])),
    usage: events.at(-1)?.parsed['usage'],
  };
}

interface Chunk {
  readonly delta: {
    readonly content?: string;
    readonly reasoning_content?: string;
    readonly tool_calls?: readonly {
      readonly index: number;
      readonly function?: { readonly name?: string; readonly arguments?: string };
    }[];
  };
  readonly finish_reason: string | null;
}

/** Whole and streamed, which must fail alike. */
async function failureOf(script: UpstreamScript, provider = gemini, call = chat()): Promise<BulkheadError> {
  upstream.answerWith(script);
  const read = async () => collect(await provider.stream(call, never()));
  const [one, other] = await Promise.allSettled([provider.complete(call, never()), read()]);
  const failures = [one, other].map((outcome) => (outcome.status === 'rejected' ? (outcome.reason as BulkheadError) : undefined));
  expect(failures[1]).toMatchObject({ code: failures[0]?.code, param: failures[0]?.param });
  if (failures[0] === undefined) throw new Error('the call succeeded');
  return failures[0];
}

const weather = { type: 'function', function: { name: 'weather', parameters: { properties: { city: { type: 'string' } } }, strict: true } };

describe('what is sent', () => {
  test('is the request in Google’s words, with the key in a header and nothing of ours', async () => {
    const body = await sent(
      chat(
        {
          messages: [
            hello,
            { role: 'system', content: 'Be brief.' },
            { role: 'assistant', content: 'yes?' },
            { role: 'user', content: 'go' },
          ],
          max_completion_tokens: 900,
          temperature: 0.5,
          top_p: 0.9,
          stop: ['END'],
          seed: 7,
          tools: [weather],
          tool_choice: 'required',
          user: 'mail@example.com',
          n: 1,
        },
        { outputTokensMax: 500 },
      ),
    );
    expect(body).toMatchObject({
      systemInstruction: { parts: [{ text: 'Be brief.' }] },
      contents: [
        { role: 'user', parts: [{ text: 'hi' }] },
        { role: 'model', parts: [{ text: 'yes?' }] },
        { role: 'user', parts: [{ text: 'go' }] },
      ],
      generationConfig: { maxOutputTokens: 500, temperature: 0.5, topP: 0.9, stopSequences: ['END'], seed: 7 },
      tools: [{ functionDeclarations: [{ name: 'weather' }] }],
      toolConfig: { functionCallingConfig: { mode: expect.stringMatching(/ANY|VALIDATED/) } },
    });
    const { path, headers } = upstream.received.at(-1) ?? { path: '', headers: {} };
    expect(path).toBe('/v1/models/gemini-2.5-flash:generateContent');
    expect(headers).toMatchObject({ 'x-goog-api-key': geminiKey, 'content-type': 'application/json' });
    expect(JSON.stringify([body, headers])).not.toMatch(/mail@example|req_1|authorization/);
  });

  test('begins with a name of the tenant’s own where the provider caches unasked, and with none elsewhere', async () => {
    const first = async (cacheSalt?: string, key?: string) => {
      const body = await sent(chat(key === undefined ? {} : { prompt_cache_key: key }, { cacheSalt }));
      return JSON.stringify(body['systemInstruction'] ?? null);
    };
    const acme = await first('salt-of-acme');
    expect(acme).toMatch(/^\{"parts":\[\{"text":"\[cache partition [0-9a-f]{32}\]"\}\]\}$/);
    expect(acme).not.toContain('salt-of-acme');
    expect(await first('salt-of-acme')).toBe(acme);
    expect(await first('salt-of-globex')).not.toBe(acme);
    expect(await first('salt-of-acme', 'chat-1')).not.toBe(acme);
    expect(await first('salt-of-acme', 'chat-1')).not.toBe(await first('salt-of-globex', 'chat-1'));
    expect(await first()).toBe('null');
    const off = await AiSdkProvider.open(geminiConfig(upstream.baseUrl, { cachePartition: false }), systemClock);
    await off.complete(chat({}, { cacheSalt: 'salt-of-acme' }), never());
    expect(upstream.received.at(-1)?.body).not.toHaveProperty('systemInstruction');
    await off.close();
    upstream.answerWith(answer(200, converse('ok')));
    await bedrock.complete(chat({}, { cacheSalt: 'salt-of-acme' }), never());
    expect(upstream.received.at(-1)?.body['system'] ?? []).toEqual([]);
  });

  test('is signed for Amazon, and the secret stays here', async () => {
    upstream.answerWith(answer(200, converse('ok')));
    const call = chat({ messages: [{ role: 'system', content: 'Be brief.' }, hello] }, { upstreamModel: 'eu.amazon.nova-lite-v1:0' });
    const { parsed } = await bedrock.complete(call, never());
    expect(parsed).toMatchObject({ choices: [{ message: { content: 'ok' } }], usage: { prompt_tokens: 3, completion_tokens: 5 } });
    const { path, headers, body } = upstream.received.at(-1) ?? { path: '', headers: {}, body: {} };
    expect(decodeURIComponent(path)).toBe('/v1/model/eu.amazon.nova-lite-v1:0/converse');
    expect(headers['authorization']).toMatch(
      /^AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE\/\d{8}\/eu-central-1\/bedrock\/aws4_request/,
    );
    expect(body).toMatchObject({ system: [{ text: 'Be brief.' }], messages: [{ role: 'user', content: [{ text: 'hi' }] }] });
    expect(JSON.stringify([headers, body])).not.toContain(bedrockSecret);
  });

  test('holds images as bytes', async () => {
    const url = 'data:image/png;base64,aGk=';
    const body = await sent(
      chat({
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'see' },
              { type: 'image_url', image_url: { url } },
            ],
          },
        ],
      }),
    );
    expect(body['contents']).toEqual([{ role: 'user', parts: [{ text: 'see' }, { inlineData: { mimeType: 'image/png', data: 'aGk=' } }] }]);
  });

  test('asks for JSON by the schema', async () => {
    const schema = { type: 'object', properties: { a: { type: 'string' } }, required: ['a'] };
    const body = await sent(chat({ response_format: { type: 'json_schema', json_schema: { name: 'x', schema } } }));
    expect(body['generationConfig']).toMatchObject({ responseMimeType: 'application/json' });
    expect(JSON.stringify(body['generationConfig'])).toContain('"required":["a"]');
    expect((await sent(chat({ response_format: { type: 'json_object' } })))['generationConfig']).toMatchObject({
      responseMimeType: 'application/json',
    });
  });

  test.each<[string, Record<string, unknown>, string]>([
    ['several answers', { n: 2 }, 'n'],
    ['log probabilities', { logprobs: true }, 'logprobs'],
    ['a bias', { logit_bias: { 5: 1 } }, 'logit_bias'],
    ['one call at a time', { tools: [weather], parallel_tool_calls: false }, 'parallel_tool_calls'],
    ['a parameter nobody knows', { frobnicate: 1 }, '"frobnicate"'],
    ['an effort nobody knows', { reasoning_effort: 'max' }, 'reasoning_effort'],
    ['another tier', { service_tier: 'flex' }, 'service_tier'],
    ['tools that are no functions', { tools: [{ type: 'custom' }] }, 'tools.0.type'],
    [
      'an image by address',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://x.test/a.png' } }] }] },
      'messages.0.content.0.image_url.url',
    ],
    ['audio', { messages: [{ role: 'user', content: [{ type: 'input_audio', input_audio: {} }] }] }, 'messages.0.content.0.type'],
    ['a role nobody knows', { messages: [{ role: 'function', content: 'x' }] }, 'messages.0.role'],
  ])('is nothing for %s', async (_name, body, named) => {
    const before = upstream.received.length;
    const refused = { code: 'unsupported_parameter', param: named.replaceAll('"', '') };
    await expect(gemini.complete(chat(body), never())).rejects.toMatchObject(refused);
    await expect(gemini.stream(chat(body), never())).rejects.toMatchObject(refused);
    expect(upstream.received).toHaveLength(before);
  });

  test.each([
    ['the answer of a tool nobody called', [hello, { role: 'tool', tool_call_id: 'x', content: '1' }]],
    ['nobody', [{ role: 'system', content: 'x' }]],
    [
      'a call that is no JSON',
      [hello, { role: 'assistant', tool_calls: [{ id: 'x', type: 'function', function: { name: 'f', arguments: '{' } }] }],
    ],
  ])('is nothing for messages of %s', async (_name, messages) => {
    const before = upstream.received.length;
    await expect(gemini.complete(chat({ messages }), never())).rejects.toMatchObject({ code: 'invalid_value' });
    expect(upstream.received).toHaveLength(before);
  });

  test.each([['presence_penalty'], ['frequency_penalty']])('is nothing to Amazon with a %s, which its package drops', async (name) => {
    const before = upstream.received.length;
    await expect(bedrock.complete(chat({ [name]: 1 }), never())).rejects.toMatchObject({ code: 'unsupported_parameter', param: name });
    await expect(bedrock.complete(chat({ reasoning_effort: 'high' }), never())).rejects.toMatchObject({ param: 'reasoning_effort' });
    expect(upstream.received).toHaveLength(before);
  });
});

describe('an answer', () => {
  const cached = {
    promptTokenCount: 100,
    cachedContentTokenCount: 60,
    candidatesTokenCount: 7,
    thoughtsTokenCount: 20,
    totalTokenCount: 127,
  };
  const usage = {
    prompt_tokens: 100,
    completion_tokens: 27,
    total_tokens: 127,
    prompt_tokens_details: { cached_tokens: 60 },
    completion_tokens_details: { reasoning_tokens: 20 },
  };

  test('has its thoughts apart and everything counted, whole and streamed alike', async () => {
    const script = generating([{ text: 'let me see', thought: true }, { text: spoken }], 'STOP', cached);
    expect(await whole(script)).toMatchObject({
      id: 'chatcmpl-req_1',
      choices: [{ message: { content: spoken, reasoning_content: 'let me see' }, finish_reason: 'stop' }],
      usage,
    });
    expect(await streamed(script)).toMatchObject({ content: spoken, reasoning: 'let me see', finishReasons: ['stop'], usage });
  });

  test('that calls tools carries what has to come back with the call, and takes it back', async () => {
    const parts = [
      { functionCall: { id: 'c1', name: 'weather', args: { city: 'Zürich' } }, thoughtSignature: 'c2lnbmVk' },
      { functionCall: { id: 'c2', name: 'today' } },
    ];
    const made = [
      {
        id: 'c1',
        type: 'function',
        function: { name: 'weather', arguments: '{"city":"Zürich"}' },
        extra_content: { google: { thoughtSignature: 'c2lnbmVk' } },
      },
      { id: 'c2', type: 'function', function: { name: 'today', arguments: '{}' } },
    ];
    const call = chat({ tools: [weather] }, { upstreamModel: 'gemini-3-pro-preview' });
    const answered = await whole(generating(parts), call);
    const [{ message, finish_reason: reason }] = answered['choices'] as [
      { message: { content: null; tool_calls: unknown }; finish_reason: string },
    ];
    expect(message).toMatchObject({ content: null, tool_calls: made });
    expect(reason).toBe('tool_calls');
    const pieces = await streamed(generating(parts), { ...call, body: { ...call.body, stream: true } });
    expect(pieces).toMatchObject({ calls: made, finishReasons: ['tool_calls'] });
    const results = ['c1', 'c2'].map((id) => ({ role: 'tool', tool_call_id: id, content: `result of ${id}` }));
    const back = await sent(chat({ messages: [hello, message, ...results], tools: [weather] }, { upstreamModel: 'gemini-3-pro-preview' }));
    expect(back['contents']).toMatchObject([
      { role: 'user' },
      {
        role: 'model',
        parts: [
          { functionCall: { name: 'weather', args: { city: 'Zürich' } }, thoughtSignature: 'c2lnbmVk' },
          { functionCall: { name: 'today' } },
        ],
      },
      { role: 'user', parts: [{ functionResponse: { name: 'weather' } }, { functionResponse: { name: 'today' } }] },
    ]);
    expect(JSON.stringify(back['contents'])).toContain('result of c2');
  });

  test.each([
    ['MAX_TOKENS', 'length'],
    ['SAFETY', 'content_filter'],
    ['RECITATION', 'content_filter'],
    ['STOP', 'stop'],
  ])('that ended by %s ended by %s', async (reason, told) => {
    const script = generating([{ text: 'x' }], reason);
    expect(await whole(script)).toMatchObject({ choices: [{ finish_reason: told }] });
    expect((await streamed(script)).finishReasons).toEqual([told]);
  });

  test('to a prompt that was blocked is empty and filtered', async () => {
    const rest = { promptFeedback: { blockReason: 'PROHIBITED_CONTENT' } };
    const blocked = response({ usage: { promptTokenCount: 4, totalTokenCount: 4 }, rest });
    expect(await whole(answer(200, blocked))).toMatchObject({ choices: [{ message: { content: '' }, finish_reason: 'content_filter' }] });
    expect(await streamed(eventStream(geminiEvent(blocked)))).toMatchObject({ content: '', finishReasons: ['content_filter'] });
  });

  test('to what the package would drop is a refusal before anything is sent, whole and streamed', async () => {
    // The model takes no penalties; the package leaves them out and warns.
    const call = chat({ frequency_penalty: 1 });
    const before = upstream.received.length;
    expect(await failureOf(generating([{ text: 'an answer to another question' }]), gemini, call)).toMatchObject({
      code: 'unsupported_parameter',
      param: 'frequency_penalty',
    });
    const warm = chat({ temperature: 1.5 }, { upstreamModel: 'eu.amazon.nova-lite-v1:0' });
    expect(await failureOf(answer(200, converse('clamped')), bedrock, warm)).toMatchObject({
      code: 'unsupported_parameter',
      param: 'temperature',
    });
    // An answer that is refused would have been paid for, and charged to nobody.
    expect(upstream.received).toHaveLength(before);
  });

  test('that ended by a mistake of the model has failed', async () => {
    expect(await failureOf(generating([{ text: 'x' }], 'MALFORMED_FUNCTION_CALL'))).toMatchObject({ code: 'upstream_error' });
  });
});

describe('a stream', () => {
  const begun = geminiEvent(response({ parts: [{ text: 'first' }] }));

  async function read(script: UpstreamScript, provider = gemini) {
    upstream.answerWith(script);
    let text = '';
    try {
      const stream = await provider.stream(chat({ stream: true }), never());
      for await (const batch of stream.batches) text += batch.map(deltaText).join('');
      return { text, failure: undefined };
    } catch (error) {
      return { text, failure: error as BulkheadError };
    }
  }

  test.each<[string, string[]]>([
    ['that is not JSON', ['data: {"candidates":\r\n\r\n']],
    ['that is a list', ['data: [1]\n\n']],
    ['that never ends', ['data: '.padEnd(4_200_000, 'x')]],
    ['after a flood of comments', [': flood\n'.repeat(600_000)]],
    ['missing at its end', []],
    ['that is an error', [geminiEvent({ error: { code: 503, message: 'overloaded', status: 'UNAVAILABLE' } })]],
  ])('with an event %s ends there, after what came before', async (_name, pieces) => {
    const { text, failure } = await read(eventStream(begun, ...pieces));
    expect(failure).toMatchObject({ code: 'upstream_error' });
    expect(text).toBe('first');
    await vi.waitFor(() => expect(upstream.running).toBe(0), 1_000);
  });

  test.each<[string, (response: ServerResponse) => void, string]>([
    ['of Google’s', beginGemini, 'gemini'],
    ['of Amazon’s', beginBedrock, 'bedrock'],
  ])('%s that never makes sense is cut off, and does not fill the memory', async (_name, begin, which) => {
    let written = 0;
    const junk = Buffer.alloc(65_536, 'x');
    const { failure } = await read(
      async (sentTo) => {
        begin(sentTo);
        while (!sentTo.destroyed && written < 200_000_000) {
          written += junk.length;
          await new Promise((resolve) => sentTo.write(junk, resolve));
        }
      },
      which === 'gemini' ? gemini : bedrock,
    );
    expect(failure).toMatchObject({ code: 'upstream_error', message: expect.stringContaining('without completing an event') });
    expect(written).toBeLessThan(20_000_000);
  });

  test('whose socket breaks has failed', async () => {
    const { text, failure } = await read((sentTo) => {
      beginGemini(sentTo);
      sentTo.write(begun, () => sentTo.destroy());
    });
    expect({ text, failure }).toMatchObject({ text: 'first', failure: { code: 'upstream_error' } });
  });

  test('that hangs is a timeout, before its head and after its first words', async () => {
    const hasty = await AiSdkProvider.open(geminiConfig(upstream.baseUrl, { headersTimeoutMs: 200, idleTimeoutMs: 200 }), systemClock);
    expect((await read(() => {}, hasty)).failure).toMatchObject({ code: 'upstream_timeout' });
    expect(await read(openStream(begun), hasty)).toMatchObject({ text: 'first', failure: { code: 'upstream_timeout' } });
    await hasty.close();
  });

  test.each<[string, Buffer[]]>([
    ['a frame of four gigabytes', [Buffer.from([255, 255, 255, 255]), Buffer.alloc(4_200_000)]],
    [
      'a frame whose sum is wrong',
      [
        Buffer.concat([
          bedrockFrame('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'x' } }).subarray(0, -1),
          Buffer.from([1]),
        ]),
      ],
    ],
    ['half a frame', [bedrockFrame('messageStop', { stopReason: 'end_turn' }).subarray(0, 20)]],
    ['an exception', [bedrockFrame('modelStreamErrorException', { message: 'x' }, 'exception')]],
    ['nothing', []],
  ])('of Amazon’s ends at %s, after what came before', async (_name, frames) => {
    const { text, failure } = await read((sentTo) => {
      beginBedrock(sentTo);
      for (const frame of [bedrockFrame('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'first' } }), ...frames])
        sentTo.write(frame);
      sentTo.end();
    }, bedrock);
    expect(failure).toMatchObject({ code: 'upstream_error' });
    expect(text).toBe('first');
    await vi.waitFor(() => expect(upstream.running).toBe(0), 1_000);
  });

  test.each([
    ['throttlingException', 'upstream_rate_limited'],
    ['serviceUnavailableException', 'upstream_error'],
    ['validationException', 'upstream_rejected'],
  ])('of Amazon’s with a %s fails as %s', async (name, code) => {
    const { failure } = await read((sentTo) => {
      beginBedrock(sentTo);
      sentTo.end(bedrockFrame(name, { message: 'x' }, 'exception'));
    }, bedrock);
    expect(failure).toMatchObject({ code });
  });
});

describe('a failure', () => {
  const quota = (quotaId: string) => [{ '@type': 'type.googleapis.com/google.rpc.QuotaFailure', violations: [{ quotaId }] }];
  const soon = [{ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '7.5s' }];
  const keyInvalid = [{ '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: 'API_KEY_INVALID' }];

  test.each<[string, UpstreamScript, string, string | undefined, number | undefined]>([
    ['a rate', geminiFailure(429, 'RESOURCE_EXHAUSTED', 'x', soon), 'upstream_rate_limited', 'rate', 7_500],
    [
      'a day’s quota',
      geminiFailure(429, 'RESOURCE_EXHAUSTED', 'x', quota('GenerateRequestsPerDayPerProject')),
      'upstream_misconfigured',
      'account',
      undefined,
    ],
    ['an overload', geminiFailure(503, 'UNAVAILABLE', 'The model is overloaded.'), 'upstream_error', 'overloaded', undefined],
    ['a key', geminiFailure(400, 'INVALID_ARGUMENT', 'API key not valid.', keyInvalid), 'upstream_misconfigured', undefined, undefined],
    ['no bill', geminiFailure(400, 'FAILED_PRECONDITION', 'Enable billing.'), 'upstream_misconfigured', undefined, undefined],
    ['no right', geminiFailure(403, 'PERMISSION_DENIED', 'x'), 'upstream_misconfigured', undefined, undefined],
    ['no such model', geminiFailure(404, 'NOT_FOUND', 'x'), 'upstream_misconfigured', undefined, undefined],
    [
      'a prompt too long',
      geminiFailure(400, 'INVALID_ARGUMENT', 'The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).'),
      'context_length_exceeded',
      undefined,
      undefined,
    ],
    ['a bad request', geminiFailure(400, 'INVALID_ARGUMENT', 'Unable to submit.'), 'upstream_rejected', undefined, undefined],
    ['a deadline', geminiFailure(504, 'DEADLINE_EXCEEDED', 'x'), 'upstream_timeout', undefined, undefined],
    ['a page of HTML', answer(500, '<html>'), 'upstream_error', undefined, undefined],
    ['a page of HTML that says all is well', answer(200, '<html>ok</html>'), 'upstream_error', undefined, undefined],
    ['another place', answer(302, '', { location: 'http://127.0.0.1:9/' }), 'upstream_misconfigured', undefined, undefined],
    [
      'a wait for ever',
      geminiFailure(429, 'RESOURCE_EXHAUSTED', 'x', [{ retryDelay: '99999999s' }]),
      'upstream_rate_limited',
      'rate',
      60_000,
    ],
  ])('for %s', async (_name, script, code, limit, retryAfterMs) => {
    const failure = await failureOf(script);
    expect(failure).toMatchObject({ code, ...(retryAfterMs !== undefined && { retryAfterMs }) });
    expect(failure instanceof UpstreamRefusal ? failure.limit : undefined).toBe(limit);
  });

  test.each<[number, string, string, string | undefined]>([
    [429, 'ThrottlingException', 'upstream_rate_limited', 'rate'],
    [429, 'ModelNotReadyException', 'upstream_rate_limited', 'overloaded'],
    [400, 'ServiceQuotaExceededException', 'upstream_misconfigured', 'account'],
    [403, 'AccessDeniedException', 'upstream_misconfigured', undefined],
    [403, 'ExpiredTokenException', 'upstream_misconfigured', undefined],
    [404, 'ResourceNotFoundException', 'upstream_misconfigured', undefined],
    [408, 'ModelTimeoutException', 'upstream_timeout', undefined],
    [424, 'ModelErrorException', 'upstream_error', undefined],
    [503, 'ServiceUnavailableException', 'upstream_error', 'overloaded'],
    [400, 'ValidationException', 'upstream_rejected', undefined],
  ])('of Amazon’s: %i %s is %s', async (status, type, code, limit) => {
    const failure = await failureOf(answer(status, { message: 'x' }, { 'x-amzn-errortype': `${type}:http://amazon` }), bedrock);
    expect(failure).toMatchObject({ code });
    expect(failure instanceof UpstreamRefusal ? failure.limit : undefined).toBe(limit);
  });

  test('that explains a refusal is cleaned, and our key is not in it', async () => {
    const text = `bad \u001b[31mvalue ${geminiKey} ${'word '.repeat(500)}`;
    const { message } = await failureOf(geminiFailure(400, 'INVALID_ARGUMENT', text));
    expect(message).toMatch(/^bad \[31mvalue /);
    expect(message).not.toContain(geminiKey);
    expect(message.length).toBeLessThanOrEqual(300);
  });

  test('is what an answer of forty megabytes becomes', async () => {
    upstream.answerWith(answer(200, response({ parts: [{ text: 'x'.repeat(40_000_000) }], finishReason: 'STOP' })));
    await expect(gemini.complete(chat(), never())).rejects.toMatchObject({ code: 'upstream_error' });
  });
});

describe('embeddings', () => {
  test('are asked for in as many requests as the model needs, and come in order', async () => {
    let open = 0;
    let most = 0;
    upstream.answerWith(async (sentTo, request) => {
      most = Math.max(most, ++open);
      const { inputText } = request.body;
      await new Promise((resolve) => setTimeout(resolve, 60 - 5 * Number(inputText)));
      open--;
      await answer(200, { embedding: [Number(inputText), 1], inputTextTokenCount: 2 })(sentTo, request);
    });
    const input = Array.from({ length: 9 }, (_, index) => String(index + 1));
    const { parsed, usage } = await bedrock.embed(chat({ input }, { upstreamModel: 'amazon.titan-embed-text-v2:0' }), never());
    expect((parsed['data'] as { embedding: number[] }[]).map(({ embedding }) => embedding[0])).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(usage?.inputTokens).toBe(18);
    expect(most).toBe(4);
  });

  test('of which one fails have failed, and the others are called off', async () => {
    const before = upstream.received.length;
    let failing: (() => void | Promise<void>) | undefined;
    // It fails when the others are there.
    upstream.answerWith(async (sentTo, request) => {
      if (request.body['inputText'] === '2') failing = () => answer(503, { message: 'x' })(sentTo, request);
      if (upstream.received.length === before + 4) await failing?.();
    });
    const call = chat({ input: ['1', '2', '3', '4', '5'] }, { upstreamModel: 'amazon.titan-embed-text-v2:0' });
    const startedMs = performance.now();
    await expect(bedrock.embed(call, never())).rejects.toMatchObject({ code: 'upstream_error' });
    // Those that hang would be given up after five seconds.
    expect(performance.now() - startedMs).toBeLessThan(3_000);
    await vi.waitFor(() => expect(upstream.running).toBe(0), 1_000);
    expect(upstream.received.length - before).toBe(4);
  });

  test('of another size are asked for in the provider’s words', async () => {
    upstream.answerWith(answer(200, { embedding: { values: [1, 2] } }));
    await gemini.embed(chat({ input: 'x', dimensions: 2 }, { upstreamModel: 'gemini-embedding-001' }), never());
    expect(upstream.received.at(-1)?.body).toMatchObject({ outputDimensionality: 2 });
    await expect(
      gemini.embed(chat({ input: 'x', dimensions: 3 }, { upstreamModel: 'gemini-embedding-001' }), never()),
    ).rejects.toMatchObject({
      code: 'embedding_failed',
    });
  });
});

describe('a package', () => {
  test.each([
    ['that is not installed', '@ai-sdk/none', 'npm install --workspace platform @ai-sdk/none'],
    ['that is something else', 'csv-parse', 'makes no provider'],
    ['that makes something else', 'commander', 'makes no provider with language models'],
  ])('%s is named at the start', async (_name, name, said) => {
    await expect(AiSdkProvider.open(geminiConfig(upstream.baseUrl, { package: name }), systemClock)).rejects.toThrow(said);
  });

  test('is given no key that is no header', async () => {
    const opening = AiSdkProvider.open(geminiConfig(upstream.baseUrl, { apiKey: 'secret\r\nx-evil: 1' }), systemClock);
    await expect(opening).rejects.toThrow('no header may have');
    await expect(opening).rejects.not.toThrow('secret');
  });

  test('makes requests to its provider alone, with a body, and not for ever', async () => {
    const connection = new UpstreamConnection({
      ...geminiConfig(upstream.baseUrl),
      failureOfStatus: () => new Error('x') as BulkheadError,
    });
    const { origin } = new URL(upstream.baseUrl);
    const transport = new CallTransport(connection, { origin, signal: never(), answerBytesMax: 1_000 });
    upstream.answerWith(answer(200, {}));
    const before = upstream.received.length;
    await expect(transport.fetch('http://127.0.0.1:9/steal', { body: '{}' })).rejects.toMatchObject({ code: 'upstream_error' });
    await expect(transport.fetch(upstream.baseUrl)).rejects.toMatchObject({ code: 'upstream_error' });
    expect(upstream.received).toHaveLength(before);
    for (let time = 0; time < 4; time++) await transport.fetch(upstream.baseUrl, { body: '{}' });
    await expect(transport.fetch(upstream.baseUrl, { body: '{}' })).rejects.toMatchObject({ code: 'upstream_error' });
    expect(upstream.received).toHaveLength(before + 4);
    await connection.close();
  });
});

function converse(text: string): unknown {
  const message = { role: 'assistant', content: [{ text }] };
  return {
    output: { message },
    stopReason: 'end_turn',
    usage: { inputTokens: 3, outputTokens: 5, totalTokens: 8 },
    metrics: { latencyMs: 1 },
  };
}
