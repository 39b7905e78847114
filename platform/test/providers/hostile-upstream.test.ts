/** A model provider is not trusted: bad inputs 72 and 80 to 82 of the threat model, against a real server. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { OpenAiCompatibleProvider } from '../../src/adapters/openai-compatible/openai-compatible-provider.ts';
import type { OpenAiCompatibleProviderConfig } from '../../src/config/schema.ts';
import type { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import type { CompletionEvent, ProviderCall } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { collect, deltaText, never } from '../contracts/provider.ts';
import { openAiConfig } from '../support/providers.ts';
import { answer, eventStream, openStream, ScriptedUpstream, type UpstreamScript } from '../support/scripted-upstream.ts';

const secret = openAiConfig('http://unused.example').apiKey ?? '';
const call: ProviderCall = { upstreamModel: 'm', requestId: 'req_1', body: { model: 'p', messages: [{ role: 'user', content: 'hi' }] } };
const text = (content: string) => JSON.stringify({ choices: [{ index: 0, delta: { content } }] });
const event = (content: string) => `data: ${text(content)}\n\n`;
const done = 'data: [DONE]\n\n';

let upstream: ScriptedUpstream;
let provider: OpenAiCompatibleProvider;

beforeAll(async () => {
  upstream = await ScriptedUpstream.start(answer(200, {}));
  provider = open();
});
afterAll(async () => {
  await provider.close();
  await upstream[Symbol.asyncDispose]();
});

function open(config: Partial<OpenAiCompatibleProviderConfig> = {}): OpenAiCompatibleProvider {
  return new OpenAiCompatibleProvider(openAiConfig(upstream.baseUrl, config), systemClock);
}

/** What a reader got, and how it ended. */
async function readStream(script: UpstreamScript, reader = provider): Promise<{ texts: string[]; failure: BulkheadError | undefined }> {
  upstream.answerWith(script);
  const texts: string[] = [];
  try {
    const stream = await reader.stream(call, never());
    for await (const batch of stream.batches) texts.push(...batch.map(deltaText));
    return { texts, failure: undefined };
  } catch (error) {
    return { texts, failure: error as BulkheadError };
  }
}

async function failureOf(script: UpstreamScript, reader = provider): Promise<BulkheadError> {
  upstream.answerWith(script);
  const [whole, streamed] = await Promise.allSettled([reader.complete(call, never()), reader.stream(call, never())]);
  const failures = [whole, streamed].map((outcome) => (outcome.status === 'rejected' ? (outcome.reason as BulkheadError) : undefined));
  expect(failures[1]).toEqual(failures[0]);
  if (failures[0] === undefined) throw new Error('the call succeeded');
  return failures[0];
}

describe('a stream', () => {
  const expected = ['größe ', '多租户 ', '🚀'];
  const standard = Buffer.from(`${expected.map(event).join('')}${done}`);
  const bytewise = [...standard].map((byte) => Buffer.from([byte]));

  test.each<[string, (string | Buffer)[]]>([
    ['whole', [standard]],
    ['in single bytes', bytewise],
    ['with carriage returns alone', [standard.toString().replaceAll('\n', '\r')]],
    ['with both, in single bytes', [...Buffer.from(standard.toString().replaceAll('\n', '\r\n'))].map((byte) => Buffer.from([byte]))],
    ['with [DONE] twice and an event after it', [standard, event('late'), done]],
    ['without [DONE]', [standard.subarray(0, -done.length)]],
    ['without [DONE] and without the last line break', [standard.subarray(0, -done.length - 2)]],
    ['with comments to keep it alive', [`: ping\n\n${standard.toString().replaceAll('\n\n', '\n\n: ping\n\n')}`]],
    ['in several data lines', [standard.toString().replaceAll('"choices"', '\ndata: "choices"')]],
  ])('may come %s', async (_name, pieces) => {
    expect(await readStream(eventStream(...pieces))).toEqual({ texts: expected, failure: undefined });
  });

  test('of several data lines is passed on as one line', async () => {
    upstream.answerWith(eventStream('data: {"choices":\ndata: []}\n\n', done));
    const events = await collect(await provider.stream(call, never()));
    expect(events.map(({ json }) => json)).toEqual(['{"choices":[]}']);
  });

  test.each<[string, string[]]>([
    ['that is not JSON', ['data: {"choices":\n\n']],
    ['that is a list', ['data: [1]\n\n']],
    ['that is a word', ['data: null\n\n']],
    ['of ten megabytes', [`data: {"x":"${'x'.repeat(10_000_000)}"}\n\n`, done]],
    ['that never ends', ['data: '.padEnd(1_100_000, 'x')]],
    ['after a flood of comments', [': flood\n'.repeat(200_000), event('late')]],
    ['that is an error', ['data: {"error":{"message":"secret","type":"server_error"}}\n\n', event('late')]],
    ['named an error', ['event: error\ndata: {"message":"secret"}\n\n', event('late')]],
  ])('with an event %s ends there, after what came before', async (_name, pieces) => {
    const { texts, failure } = await readStream(eventStream(event('first'), ...pieces));
    expect(failure).toMatchObject({ code: 'upstream_error' });
    expect(failure?.message).not.toContain('secret');
    expect(texts).toEqual(['first']);
    await vi.waitFor(() => expect(upstream.running).toBe(0), 1_000);
  });

  test.each([
    [{ code: 'rate_limit_exceeded', message: 'x' }, 'upstream_rate_limited'],
    [{ code: 429, message: 'x' }, 'upstream_rate_limited'],
    [{ code: 504, message: 'x' }, 'upstream_timeout'],
    [{ code: 'context_length_exceeded', message: 'x' }, 'context_length_exceeded'],
    [{ type: 'insufficient_quota', message: 'x' }, 'upstream_misconfigured'],
    ['a text', 'upstream_error'],
  ])('with the error %j fails as %s', async (error, code) => {
    const { failure } = await readStream(eventStream(`data: ${JSON.stringify({ error })}\n\n`));
    expect(failure).toMatchObject({ code });
  });

  test('that breaks off has failed', async () => {
    const { texts, failure } = await readStream(async (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(event('first'), () => response.destroy());
    });
    expect(failure).toMatchObject({ code: 'upstream_error' });
    expect(texts).toEqual(['first']);
  });

  test('ends at [DONE], although the connection stays open, and is then cut off', async () => {
    expect(await readStream(openStream(event('first'), done))).toEqual({ texts: ['first'], failure: undefined });
    await vi.waitFor(() => expect(upstream.running).toBe(0), 3_000);
  });

  test('uses its connection again after [DONE]', async () => {
    const reader = open({ connectionsMax: 1 });
    for (let round = 0; round < 3; round++) expect((await readStream(eventStream(standard), reader)).failure).toBeUndefined();
    await reader.close();
  });

  test.each([
    ['text/html', '<h1>hello</h1>'],
    ['application/json', '{"choices":[]}'],
  ])('of type %s is none', async (type, body) => {
    const { failure } = await readStream(answer(200, body, { 'content-type': type }));
    expect(failure).toMatchObject({ code: 'upstream_error' });
  });
});

describe('an answer', () => {
  test.each<[string, UpstreamScript]>([
    ['HTML', answer(200, '<html>gateway login</html>')],
    ['a list', answer(200, [])],
    ['an object without choices', answer(200, { id: 'x' })],
    ['an error with status 200', answer(200, { error: { message: 'secret', code: 'boom' } })],
    ['33 MB', answer(200, { choices: [], padding: 'x'.repeat(33 * 1_024 * 1_024) })],
    ['cut short', (response) => void response.writeHead(200, { 'content-length': '100' }).write('{"choices":', () => response.destroy())],
  ])('that is %s is a failure of the provider', async (_name, script) => {
    upstream.answerWith(script);
    await expect(provider.complete(call, never())).rejects.toMatchObject({
      code: 'upstream_error',
      message: expect.not.stringMatching(/secret|html/),
    });
  });

  test.each<[number, unknown, string]>([
    [302, '', 'upstream_misconfigured'],
    [400, { error: { message: 'bad' } }, 'upstream_rejected'],
    [400, '<html>', 'upstream_rejected'],
    [400, { error: { message: 'too long', code: 'context_length_exceeded' } }, 'context_length_exceeded'],
    [401, { error: { message: `Incorrect API key provided: ${secret}` } }, 'upstream_misconfigured'],
    [403, '<html>', 'upstream_misconfigured'],
    [404, { error: { message: 'no such thing' } }, 'upstream_rejected'],
    [404, { error: { message: 'no such model', code: 'model_not_found' } }, 'upstream_misconfigured'],
    [404, '<html>', 'upstream_misconfigured'],
    [408, '', 'upstream_timeout'],
    [413, '', 'upstream_rejected'],
    [422, { error: { message: 'bad' } }, 'upstream_rejected'],
    [429, {}, 'upstream_rate_limited'],
    [429, { error: { code: 'insufficient_quota', message: 'pay' } }, 'upstream_misconfigured'],
    [500, `stack trace with ${secret}`, 'upstream_error'],
    [503, '', 'upstream_error'],
    [504, '', 'upstream_timeout'],
    [529, '', 'upstream_error'],
  ])('of status %i with %j is %s', async (status, body, code) => {
    const failure = await failureOf(answer(status, body, { location: 'http://169.254.169.254/' }));
    expect(failure).toMatchObject({ code });
    expect(`${failure.message}${JSON.stringify(failure.details ?? {})}${String(failure.cause)}`).not.toMatch(/secret|html|trace|pay/);
    expect(failure.rule.status).not.toBe(401);
  });

  test.each<[Record<string, string>, number | undefined]>([
    [{ 'retry-after': '99999999' }, 60_000],
    [{ 'retry-after': '7' }, 7_000],
    [{ 'retry-after': '7', 'retry-after-ms': '120' }, 120],
    [{ 'retry-after': 'Fri, 31 Dec 2999 23:59:59 GMT' }, 60_000],
    [{ 'retry-after': 'Fri, 31 Dec 1999 23:59:59 GMT' }, 0],
    [{ 'retry-after': '-5' }, undefined],
    [{ 'retry-after': 'NaN' }, undefined],
    [{ 'retry-after': '9'.repeat(400) }, undefined],
    [{}, undefined],
  ])('of status 429 with %j asks to wait %s ms', async (headers, retryAfterMs) => {
    expect(await failureOf(answer(429, {}, headers))).toMatchObject({ code: 'upstream_rate_limited', retryAfterMs });
  });

  test('that explains a refusal is cleaned and cut', async () => {
    const message = `Bad \u001b[31mvalue\u0000 for org-AbCdEf123 with sk-proj-abcdefghijkl and ${'x'.repeat(64)}\n\u202e ${'word '.repeat(500)}`;
    const failure = await failureOf(answer(400, { error: { message, param: 'messages.0.content', code: 'bad' } }));
    expect(failure.param).toBe('messages.0.content');
    expect(failure.message.length).toBeLessThanOrEqual(300);
    expect(failure.message).toMatch(/^Bad \[31mvalue for \[redacted\] with \[redacted\] and \[redacted\] word word/);
  });

  test('whose explanation names a hostile parameter names none', async () => {
    expect((await failureOf(answer(400, { error: { message: 'x', param: 'a\r\nset-cookie: b' } }))).param).toBeNull();
  });

  test('that never comes is a timeout', async () => {
    const hasty = open({ headersTimeoutMs: 100, idleTimeoutMs: 100 });
    expect(await failureOf(() => {}, hasty)).toMatchObject({ code: 'upstream_timeout' });
    expect(await readStream(openStream(event('first')), hasty)).toMatchObject({ texts: ['first'], failure: { code: 'upstream_timeout' } });
    await hasty.close();
  });

  test('from a port where nobody listens is a failure of the provider', async () => {
    const lost = new OpenAiCompatibleProvider(openAiConfig('http://127.0.0.1:9/v1'), systemClock);
    await expect(lost.complete(call, never())).rejects.toMatchObject({ code: 'upstream_error' });
    await lost.close();
  });

  test('that says "processing" for ever is cut off', async () => {
    upstream.answerWith((response) => {
      const again = () => {
        if (response.destroyed) return;
        response.writeProcessing();
        setImmediate(again);
      };
      again();
    });
    await expect(provider.complete(call, never())).rejects.toMatchObject({ code: 'upstream_error' });
  });

  test('to a key that is no header is the operator’s affair, and the key stays here', async () => {
    const broken = open({ apiKey: 'secret\r\nx-evil: 1' });
    const failure = await broken.complete(call, never()).catch((error: BulkheadError) => error);
    expect(failure).toMatchObject({ code: 'upstream_misconfigured', message: expect.not.stringContaining('secret') });
    await broken.close();
  });
});

describe('what a model says', () => {
  const contents = [
    '\n\ndata: {"fake":1}\n\n',
    '</script><script>alert(1)</script>',
    '\u001b[2J',
    '![x](https://evil.example/?q=1)',
    '\u2028\u2029\r\n',
  ];

  test('arrives unchanged and cannot break the framing', async () => {
    upstream.answerWith(eventStream(...contents.map(event), done));
    const events = await collect(await provider.stream(call, never()));
    expect(events.map(deltaText)).toEqual(contents);
    for (const { json } of events) expect(json).not.toMatch(/[\r\n]/);
  });

  test.each<[string, unknown[]]>([
    [
      'ten thousand parallel tool calls',
      Array.from({ length: 10_000 }, (_, index) => ({ index, id: `call_${index}`, function: { name: 'f', arguments: '{}' } })),
    ],
    ['arguments that are not JSON', [{ index: 0, id: 'call_0', function: { name: 'f', arguments: '{"tenant_id": "b"' } }]],
    ['a call of an unknown tool', [{ index: 0, id: 'call_0', function: { name: 'drop_table', arguments: '{"tenant_id":"b"}' } }]],
  ])('may be %s, for others to judge', async (_name, calls) => {
    const chunk = { choices: [{ index: 0, delta: { tool_calls: calls } }] };
    upstream.answerWith(eventStream(`data: ${JSON.stringify(chunk)}\n\n`, done));
    const events: CompletionEvent[] = await collect(await provider.stream(call, never()));
    expect(events.map(({ parsed }) => parsed)).toEqual([chunk]);
  });
});

describe('an embedding', () => {
  const vectors = (...embeddings: unknown[]) => ({
    data: embeddings.map((embedding, index) => ({ object: 'embedding', index, embedding })),
    usage: { prompt_tokens: 2, total_tokens: 2 },
  });
  const asked = (extra: Record<string, unknown> = {}) => ({
    upstreamModel: 'm',
    requestId: 'req_1',
    body: { input: ['a', 'b'], ...extra },
  });
  const base64 = (...values: number[]) => Buffer.from(Float32Array.from(values).buffer).toString('base64');

  test.each<[string, unknown, Record<string, unknown>?]>([
    ['fewer vectors than inputs', vectors([1, 0])],
    ['more vectors than inputs', vectors([1], [1], [1])],
    ['no list', { object: 'list' }],
    ['changing dimensions', vectors([1, 0], [1, 0, 0])],
    ['other dimensions than asked for', vectors([1, 0], [1, 0]), { dimensions: 3 }],
    ['a zero vector', vectors([1, 0], [0, 0])],
    ['a zero vector in base64', vectors(base64(1, 0), base64(0, 0))],
    ['a number that is none', vectors([1, 0], [1, null])],
    ['NaN in base64', vectors(base64(1, 0), base64(Number.NaN, 0))],
    ['no dimensions', vectors([], [])],
    ['half a float', vectors(Buffer.alloc(6, 1).toString('base64'), base64(1))],
    [
      'vectors out of order',
      {
        data: [
          { index: 1, embedding: [1] },
          { index: 0, embedding: [1] },
        ],
      },
    ],
    ['words', vectors(['1'], ['2'])],
    ['HTML', '<html>'],
  ])('answer of %s is refused', async (_name, body, extra) => {
    upstream.answerWith(answer(200, body));
    await expect(provider.embed(asked(extra), never())).rejects.toMatchObject({ code: 'embedding_failed' });
  });

  test('with a number beyond all bounds is refused', async () => {
    upstream.answerWith(answer(200, '{"data":[{"index":0,"embedding":[1e999]},{"index":1,"embedding":[1]}]}'));
    await expect(provider.embed(asked(), never())).rejects.toMatchObject({ code: 'embedding_failed' });
  });

  test('comes in the encoding that was asked for, whatever the provider sends', async () => {
    upstream.answerWith(answer(200, vectors([0.5, -1], base64(0.25, 2))));
    const floats = await provider.embed(asked(), never());
    expect(floats.parsed['data']).toMatchObject([{ embedding: [0.5, -1] }, { embedding: [0.25, 2] }]);
    const encoded = await provider.embed(asked({ encoding_format: 'base64' }), never());
    expect(JSON.parse(encoded.body.toString()).data).toMatchObject([{ embedding: base64(0.5, -1) }, { embedding: base64(0.25, 2) }]);
    expect(upstream.received.slice(-2).map(({ body }) => body['encoding_format'])).toEqual(['float', 'base64']);
  });
});

describe('what is sent upstream', () => {
  test('is the body under the provider’s name of the model, with usage asked for in a stream', async () => {
    const body = { model: 'public', messages: [], unknown_field: { a: [1] }, stream: true, stream_options: { include_obfuscation: false } };
    upstream.answerWith(eventStream(done));
    await collect(await provider.stream({ upstreamModel: 'real', requestId: 'req_42', body, cacheSalt: 'salt' }, never()));
    const { stream, stream_options: options, ...rest } = body;
    expect(upstream.received.at(-1)).toMatchObject({
      path: '/v1/chat/completions',
      headers: { authorization: `Bearer ${secret}`, 'x-client-request-id': 'req_42', 'content-type': 'application/json' },
      body: { ...body, model: 'real', stream_options: { include_obfuscation: false, include_usage: true } },
    });
    expect(upstream.received.at(-1)?.body).not.toHaveProperty('prompt_cache_key');
    upstream.answerWith(answer(200, { choices: [] }));
    await provider.complete({ upstreamModel: 'real', requestId: 'req_43', body }, never());
    expect(stream && options).toBeTruthy();
    expect(upstream.received.at(-1)?.body).toEqual({ ...rest, model: 'real' });
  });

  test.each(['prompt_cache_key', 'cache_salt'] as const)('is a %s that no two tenants share', async (field) => {
    const salted = open({ promptCacheSalt: field });
    upstream.answerWith(answer(200, { choices: [] }));
    for (const [cacheSalt, key] of [
      ['a', 'k'],
      ['b', 'k'],
      ['a', undefined],
      ['a', 'k'],
    ] as const) {
      await salted.complete({ ...call, body: { ...call.body, [field]: key }, cacheSalt }, never());
    }
    const keys = upstream.received.slice(-4).map(({ body }) => body[field]);
    expect(new Set(keys).size).toBe(3);
    expect(keys[3]).toBe(keys[0]);
    await salted.close();
  });

  test.each([false, 'cache_salt', 'prompt_cache_key'] as const)(
    'is never the caller’s own name of a cache (%s)',
    async (promptCacheSalt) => {
      const provider = open({ promptCacheSalt });
      upstream.answerWith(answer(200, { choices: [] }));
      const named = { ...call.body, prompt_cache_key: 'theirs', cache_salt: 'theirs' };
      await provider.complete({ ...call, body: named }, never());
      upstream.answerWith(eventStream('data: [DONE]\n\n'));
      await (await provider.stream({ ...call, body: { ...named, stream: true }, cacheSalt: 's' }, never()))[Symbol.asyncDispose]();
      for (const { body } of upstream.received.slice(-2)) expect(JSON.stringify(body)).not.toContain('theirs');
      await provider.close();
    },
  );
});
