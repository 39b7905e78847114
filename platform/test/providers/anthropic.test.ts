/** Anthropic's API, and what may be in its place, against a real server: it is trusted as little as any provider. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { AnthropicProvider } from '../../src/adapters/anthropic/anthropic-provider.ts';
import type { AnthropicProviderConfig } from '../../src/config/schema.ts';
import type { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { type ProviderCall, UpstreamRefusal } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { deltaText, never } from '../contracts/provider.ts';
import { answeringWith, errorBody, eventsOf, framed, message, secretKey, textBlock } from '../support/anthropic-upstream.ts';
import { anthropicConfig } from '../support/providers.ts';
import { answer, eventStream, openStream, ScriptedUpstream, type UpstreamScript } from '../support/scripted-upstream.ts';

const call: ProviderCall = {
  upstreamModel: 'claude-test',
  requestId: 'req_1',
  body: { model: 'p', messages: [{ role: 'user', content: 'hi' }] },
};
const spoken = 'größe 多租户 🚀';
const standard = eventsOf(message([textBlock(spoken)]))
  .map(framed)
  .join('');
const begun = eventsOf(message([textBlock('first')]), 5)
  .slice(0, 4)
  .map(framed)
  .join('');

let upstream: ScriptedUpstream;
let provider: AnthropicProvider;

beforeAll(async () => {
  upstream = await ScriptedUpstream.start(answer(200, {}));
  provider = open();
});
afterAll(async () => {
  await provider.close();
  await upstream[Symbol.asyncDispose]();
});

function open(config: Partial<AnthropicProviderConfig> = {}): AnthropicProvider {
  return new AnthropicProvider(anthropicConfig(upstream.baseUrl, config), systemClock);
}

/** What a reader got, and how it ended. */
async function readStream(script: UpstreamScript, reader = provider): Promise<{ text: string; failure: BulkheadError | undefined }> {
  upstream.answerWith(script);
  let text = '';
  try {
    const stream = await reader.stream(call, never());
    for await (const batch of stream.batches) text += batch.map(deltaText).join('');
    return { text, failure: undefined };
  } catch (error) {
    return { text, failure: error as BulkheadError };
  }
}

/** Whole and streamed, which must fail alike. */
async function failureOf(script: UpstreamScript, reader = provider): Promise<BulkheadError> {
  upstream.answerWith(script);
  const [whole, streamed] = await Promise.allSettled([reader.complete(call, never()), reader.stream(call, never())]);
  const failures = [whole, streamed].map((outcome) => (outcome.status === 'rejected' ? (outcome.reason as BulkheadError) : undefined));
  expect(failures[1]).toEqual(failures[0]);
  if (failures[0] === undefined) throw new Error('the call succeeded');
  return failures[0];
}

const singly = (text: string) => [...Buffer.from(text)].map((byte) => Buffer.from([byte]));

describe('a stream', () => {
  test.each<[string, (string | Buffer)[]]>([
    ['whole', [standard]],
    ['in single bytes', singly(standard)],
    ['with carriage returns alone', [standard.replaceAll('\n', '\r')]],
    ['with both, in single bytes', singly(standard.replaceAll('\n', '\r\n'))],
    ['without the last line break', [standard.slice(0, -1)]],
    ['with events after its end', [standard, standard]],
    [
      'with comments and unknown events',
      [`: hi\n\nevent: later\ndata: {"type":"later"}\n\n${standard.replaceAll('\n\n', '\n\n: ping\n\n')}`],
    ],
    ['without names of events', [standard.replaceAll(/^event: .*\n/gm, '')]],
  ])('may come %s', async (_name, pieces) => {
    expect(await readStream(eventStream(...pieces))).toEqual({ text: spoken, failure: undefined });
  });

  test.each<[string, string[]]>([
    ['that is not JSON', ['event: content_block_delta\ndata: {"type":\n\n']],
    ['that is a list', ['data: [1]\n\n']],
    ['of ten megabytes', [`data: {"x":"${'x'.repeat(10_000_000)}"}\n\n`]],
    ['that never ends', ['data: '.padEnd(1_100_000, 'x')]],
    ['after a flood of comments', [': flood\n'.repeat(200_000), standard]],
    ['missing at its end', []],
  ])('with an event %s ends there, after what came before', async (_name, pieces) => {
    const { text, failure } = await readStream(eventStream(begun, ...pieces));
    expect(failure).toMatchObject({ code: 'upstream_error' });
    expect(text).toBe('first');
    await vi.waitFor(() => expect(upstream.running).toBe(0), 1_000);
  });

  test.each([
    ['overloaded_error', 'upstream_error'],
    ['api_error', 'upstream_error'],
    ['not_known_yet', 'upstream_error'],
    ['timeout_error', 'upstream_timeout'],
    ['rate_limit_error', 'upstream_rate_limited'],
    ['authentication_error', 'upstream_misconfigured'],
    ['billing_error', 'upstream_misconfigured'],
    ['permission_error', 'upstream_misconfigured'],
    ['not_found_error', 'upstream_misconfigured'],
    ['invalid_request_error', 'upstream_rejected'],
    ['request_too_large', 'upstream_rejected'],
  ])('with an event of the error %s fails as %s', async (type, code) => {
    const { text, failure } = await readStream(eventStream(begun, framed(errorBody(type, 'Overloaded')), standard));
    expect(failure).toMatchObject({ code });
    expect(text).toBe('first');
  });

  test('whose socket breaks has failed', async () => {
    const { text, failure } = await readStream(async (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(begun, () => response.destroy());
    });
    expect(failure).toMatchObject({ code: 'upstream_error' });
    expect(text).toBe('first');
  });

  test('that hangs is a timeout, before its head and after its first words', async () => {
    const hasty = open({ headersTimeoutMs: 100, idleTimeoutMs: 100 });
    expect(await failureOf(() => {}, hasty)).toMatchObject({ code: 'upstream_timeout' });
    expect(await readStream(openStream(begun), hasty)).toMatchObject({ text: 'first', failure: { code: 'upstream_timeout' } });
    await hasty.close();
  });

  test('ends at message_stop, although the connection stays open, and is then cut off', async () => {
    expect(await readStream(openStream(standard))).toEqual({ text: spoken, failure: undefined });
    await vi.waitFor(() => expect(upstream.running).toBe(0), 3_000);
  });

  test('uses its connection again after message_stop', async () => {
    const reader = open({ connectionsMax: 1 });
    for (let round = 0; round < 3; round++) expect((await readStream(eventStream(standard), reader)).failure).toBeUndefined();
    await reader.close();
  });

  test.each([
    ['text/html', '<h1>hello</h1>'],
    ['application/json', '{"type":"message"}'],
  ])('of type %s is none', async (type, body) => {
    expect((await readStream(answer(200, body, { 'content-type': type }))).failure).toMatchObject({ code: 'upstream_error' });
  });
});

describe('an answer', () => {
  test.each<[string, UpstreamScript, string]>([
    ['HTML', answer(200, '<html>gateway login</html>'), 'upstream_error'],
    ['a list', answer(200, []), 'upstream_error'],
    ['no message', answer(200, { id: 'x' }), 'upstream_error'],
    ['an error with status 200', answer(200, errorBody('overloaded_error', 'secret')), 'upstream_error'],
    ['a refusal with status 200', answer(200, errorBody('not_found_error', 'secret')), 'upstream_misconfigured'],
    ['33 MB', answer(200, { content: [], padding: 'x'.repeat(33 * 1_024 * 1_024) }), 'upstream_error'],
    [
      'cut short',
      (response) => void response.writeHead(200, { 'content-length': '100' }).write('{"id":', () => response.destroy()),
      'upstream_error',
    ],
  ])('that is %s is a failure of the provider', async (_name, script, code) => {
    upstream.answerWith(script);
    await expect(provider.complete(call, never())).rejects.toMatchObject({ code, message: expect.not.stringMatching(/secret|html/) });
  });

  const wait = { 'retry-after': '7' };
  const spent = { error_code: 'enforced_spend_limit_reached' };
  test.each<[number, unknown, string, Record<string, string>?]>([
    [302, '', 'upstream_misconfigured'],
    [400, errorBody('invalid_request_error', 'max_tokens: too many'), 'upstream_rejected'],
    [400, errorBody('invalid_request_error', 'prompt is too long: 201 tokens > 200 maximum'), 'context_length_exceeded'],
    [400, errorBody('invalid_request_error', 'input length and `max_tokens` exceed context limit: 3 + 4 > 5'), 'context_length_exceeded'],
    [400, errorBody('invalid_request_error', 'Your credit balance is too low to pay'), 'upstream_misconfigured'],
    [400, errorBody('invalid_request_error', 'You have reached your specified API usage limits, pay'), 'upstream_misconfigured'],
    [400, errorBody('invalid_request_error', 'pay', { error_code: 'organization_on_hold' }), 'upstream_misconfigured'],
    [400, '<html>', 'upstream_rejected'],
    [401, errorBody('authentication_error', `invalid x-api-key ${secretKey}`), 'upstream_misconfigured'],
    [402, errorBody('billing_error', 'pay'), 'upstream_misconfigured'],
    [403, errorBody('permission_error', 'trace'), 'upstream_misconfigured'],
    [404, errorBody('not_found_error', 'model: claude-secret'), 'upstream_misconfigured'],
    [404, '<html>', 'upstream_misconfigured'],
    [413, errorBody('request_too_large', 'Request exceeds the maximum size'), 'upstream_rejected'],
    [413, '<html>', 'upstream_rejected'],
    [429, errorBody('rate_limit_error', 'trace'), 'upstream_rate_limited', wait],
    [429, errorBody('rate_limit_error', 'pay'), 'upstream_misconfigured'],
    [429, errorBody('rate_limit_error', 'pay', spent), 'upstream_misconfigured', wait],
    [500, errorBody('api_error', `trace ${secretKey}`), 'upstream_error'],
    [504, errorBody('timeout_error', 'trace'), 'upstream_timeout'],
    [529, errorBody('overloaded_error', 'trace'), 'upstream_error'],
    [529, '<html>', 'upstream_error'],
  ])('of status %i with %j is %s', async (status, body, code, headers = {}) => {
    const failure = await failureOf(answer(status, body, headers));
    expect(failure).toMatchObject({ code });
    expect(`${failure.message}${JSON.stringify(failure.details ?? {})}${String(failure.cause)}`).not.toMatch(/secret|html|trace|pay/);
    expect(failure.rule.status).not.toBe(401);
  });

  test.each<[number, unknown, string | undefined, Record<string, string>?]>([
    [429, errorBody('rate_limit_error', 'x'), 'rate', wait],
    [429, errorBody('rate_limit_error', 'Number of concurrent connections has exceeded your rate limit'), 'concurrency', wait],
    [429, errorBody('rate_limit_error', 'x'), 'account'],
    [429, errorBody('rate_limit_error', 'x', spent), 'account', wait],
    [402, errorBody('billing_error', 'x'), 'account'],
    [400, errorBody('invalid_request_error', 'Your credit balance is too low to pay'), 'account'],
    [529, errorBody('overloaded_error', 'x'), 'overloaded'],
    [400, errorBody('invalid_request_error', 'x'), undefined],
    [500, errorBody('api_error', 'x'), undefined],
  ])('of status %i with %j says of the account: %s', async (status, body, limit, headers = {}) => {
    const failure = await failureOf(
      answer(status, body, { ...headers, 'anthropic-ratelimit-requests-limit': '50', 'anthropic-ratelimit-requests-remaining': '0' }),
    );
    const told = failure instanceof UpstreamRefusal ? failure : undefined;
    expect(told?.limit).toBe(limit);
    expect(told?.quota?.requests?.remaining).toBe(limit === undefined ? undefined : 0);
  });

  test.each<[number, string, number | undefined]>([
    [429, '7', 7_000],
    [429, '99999999', 60_000],
    [529, '3', 3_000],
    [529, '-5', undefined],
  ])('of status %i with retry-after %s asks to wait %s ms', async (status, seconds, retryAfterMs) => {
    expect((await failureOf(answer(status, errorBody('x', 'x'), { 'retry-after': seconds }))).retryAfterMs).toBe(retryAfterMs);
  });

  test('that explains a refusal is cleaned and cut', async () => {
    const text = `messages.0: bad \u001b[31mvalue for sk-ant-api03-abcdefghijkl ${'word '.repeat(500)}`;
    const { message: shown } = await failureOf(answer(400, errorBody('invalid_request_error', text)));
    expect(shown).toMatch(/^messages\.0: bad \[31mvalue for \[redacted\] word word/);
    expect(shown.length).toBeLessThanOrEqual(300);
  });

  test('from a port where nobody listens is a failure of the provider', async () => {
    const lost = new AnthropicProvider(anthropicConfig('http://127.0.0.1:9'), systemClock);
    await expect(lost.complete(call, never())).rejects.toMatchObject({ code: 'upstream_error' });
    await lost.close();
  });

  test('to a key that is no header is the operator’s affair, and the key stays here', async () => {
    const broken = open({ apiKey: 'secret\r\nx-evil: 1' });
    const failure = await broken.complete(call, never()).catch((error: BulkheadError) => error);
    expect(failure).toMatchObject({ code: 'upstream_misconfigured', message: expect.not.stringContaining('secret') });
    await broken.close();
  });
});

describe('what is sent upstream', () => {
  test('goes to the Messages API with the key and the version, and nothing of the request’s own headers', async () => {
    upstream.answerWith(answeringWith(message([textBlock('x')])));
    await provider.complete(call, never());
    const { path, headers } = upstream.received.at(-1) ?? { path: '', headers: {} };
    expect(path).toBe('/v1/messages');
    expect(headers).toMatchObject({ 'x-api-key': secretKey, 'anthropic-version': '2023-06-01', 'content-type': 'application/json' });
    expect(headers).not.toHaveProperty('authorization');
  });

  test('is nothing at all when the request cannot be translated', async () => {
    const before = upstream.received.length;
    const body = { ...call.body, n: 2 };
    await expect(provider.complete({ ...call, body }, never())).rejects.toMatchObject({ code: 'unsupported_parameter', param: 'n' });
    await expect(provider.stream({ ...call, body }, never())).rejects.toMatchObject({ code: 'unsupported_parameter', param: 'n' });
    expect(upstream.received).toHaveLength(before);
  });
});
