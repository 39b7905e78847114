import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { expectValid } from '../../../test/conformance/openai-schema.ts';
import { collect, deltaText, never } from '../../../test/contracts/provider.ts';
import { simulated } from '../../../test/support/providers.ts';
import type { CompletionEvent, ProviderCall } from '../../inference/provider.ts';
import { ManualClock, systemClock } from '../../primitives/clock.ts';
import { countTokens } from '../../primitives/count-tokens.ts';

type Body = Readonly<Record<string, unknown>>;
interface Answered {
  readonly text: string | null;
  readonly finish: string;
  readonly calls: readonly { readonly id: string; readonly name: string; readonly arguments: string }[];
  readonly usage: Body & { readonly completion_tokens: number; readonly completion_tokens_details: { readonly reasoning_tokens: number } };
}

const asking = (content: unknown): Body => ({ messages: [{ role: 'user', content }] });
const callOf = (body: Body, model = 'sim-fast'): ProviderCall => ({ upstreamModel: model, requestId: 'req_1', body });

async function ask(body: Body, { provider = simulated(), model = 'sim-fast' } = {}): Promise<Answered> {
  const { parsed } = await provider.complete(callOf(body, model), never());
  expectValid('CreateChatCompletionResponse', parsed);
  return firstChoice(parsed);
}

function firstChoice(parsed: Body): Answered {
  const [choice] = parsed['choices'] as readonly {
    readonly message: {
      readonly content: string | null;
      readonly tool_calls?: readonly { readonly id: string; readonly function: { readonly name: string; readonly arguments: string } }[];
    };
    readonly finish_reason: string;
  }[];
  return {
    text: choice?.message.content ?? null,
    finish: choice?.finish_reason ?? '',
    calls: (choice?.message.tool_calls ?? []).map(({ id, function: called }) => ({ id, ...called })),
    usage: parsed['usage'] as Answered['usage'],
  };
}

const weather = {
  type: 'function',
  function: {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: { location: { type: 'string' }, unit: { enum: ['c', 'f'] } },
      required: ['location', 'unit'],
    },
  },
};
const lookUp = {
  type: 'function',
  function: {
    name: 'look_up',
    description: 'find a customer by invoice',
    parameters: { type: 'object', properties: { id: { type: 'string' } }, required: ['id'] },
  },
};

describe('the words', () => {
  test('say that they are simulated, and follow from seed and prompt', async () => {
    const { text, finish } = await ask(asking('Where is Rome?'));
    expect(text).toContain('simulated');
    expect(text).toContain('Where is Rome?');
    expect(finish).toBe('stop');
    expect((await ask(asking('Where is Rome?'))).text).toBe(text);
    const others = await Promise.all(
      Array.from({ length: 8 }, (_, seed) => ask(asking('Where is Rome?'), { provider: simulated({ seed: seed + 2 }) })),
    );
    expect(new Set(others.map((other) => other.text)).size).toBeGreaterThan(4);
  });

  test('are counted as they are delivered', async () => {
    const { text, usage } = await ask(asking('How long is a 长篇 story 🚀?'));
    expect(usage.completion_tokens).toBe(countTokens(text ?? ''));
    expect(usage['total_tokens']).toBe(Number(usage['prompt_tokens']) + usage.completion_tokens);
  });

  test.each(['max_tokens', 'max_completion_tokens'])('end at %s, counted exactly', async (limit) => {
    for (const tokens of [1, 5, 20]) {
      const { text, usage, finish } = await ask({ ...asking('Tell me about 多租户隔离 🚀🚀🚀'), [limit]: tokens });
      expect(finish).toBe('length');
      expect(usage.completion_tokens).toBeLessThanOrEqual(tokens);
      expect(text).not.toContain('\ufffd');
    }
    const whole = await ask(asking('x'));
    expect((await ask({ ...asking('x'), [limit]: whole.usage.completion_tokens })).finish).toBe('stop');
    expect((await ask({ ...asking('x'), [limit]: whole.usage.completion_tokens - 1 })).finish).toBe('length');
  });

  test('end before a stop sequence', async () => {
    expect((await ask({ ...asking('x'), stop: [' simulated', 'zzz'] })).text).toBe('This is a');
    expect((await ask({ ...asking('x'), stop: 'This' })).text).toBe('');
  });

  test('come in as many choices as asked for, each its own, all counted', async () => {
    const { parsed, usage } = await simulated().complete(callOf({ ...asking('x'), n: 8 }), never());
    const texts = (parsed['choices'] as { message: { content: string } }[]).map((choice) => choice.message.content);
    expect(new Set(texts).size).toBeGreaterThan(4);
    expect(usage?.outputTokens).toBe(texts.reduce((sum, text) => sum + countTokens(text), 0));
  });

  test('come in several choices side by side in a stream', async () => {
    const provider = simulated();
    const events = await collect(await provider.stream(callOf({ ...asking('x'), n: 3, stream: true }), never()));
    const { parsed } = await provider.complete(callOf({ ...asking('x'), n: 3 }), never());
    const streamed = [0, 1, 2].map((index) => textOfChoice(events, index));
    expect(streamed).toEqual((parsed['choices'] as { message: { content: string } }[]).map((choice) => choice.message.content));
  });

  test('mention images', async () => {
    const content = [
      { type: 'text', text: 'What is it?' },
      { type: 'image_url', image_url: { url: 'data:image/png;base64,AA' } },
    ];
    const { text, usage } = await ask(asking(content));
    expect(text).toContain('1 image');
    expect(usage['prompt_tokens']).toBeGreaterThan(85);
  });

  test('are thought about first by a reasoning model, within the limit', async () => {
    const { usage, text } = await ask(asking('x'), { model: 'sim-reasoning' });
    const { reasoning_tokens: reasoning } = usage.completion_tokens_details;
    expect(reasoning).toBeGreaterThan(0);
    expect(usage.completion_tokens).toBe(reasoning + countTokens(text ?? ''));
    const cut = await ask({ ...asking('x'), max_completion_tokens: 10 }, { model: 'sim-reasoning' });
    expect(cut).toMatchObject({ text: '', finish: 'length', usage: { completion_tokens: 10 } });
    const without = await ask({ ...asking('x'), reasoning_effort: 'none' }, { model: 'sim-reasoning' });
    expect(without.usage.completion_tokens_details.reasoning_tokens).toBe(0);
  });

  test('without messages are refused as a provider would', async () => {
    for (const messages of [undefined, [], 'hi']) {
      await expect(simulated().complete(callOf({ messages }), never())).rejects.toMatchObject({
        code: 'upstream_rejected',
        param: 'messages',
      });
    }
  });
});

function textOfChoice(events: readonly CompletionEvent[], index: number): string {
  const own = events.filter(({ parsed }) => (parsed['choices'] as { index: number }[])[0]?.index === index);
  return own.map(deltaText).join('');
}

describe('structured output', () => {
  const schema = {
    type: 'object',
    properties: { city: { type: 'string' }, days: { type: 'integer', minimum: 2 } },
    required: ['city', 'days'],
    additionalProperties: false,
  };

  test('satisfies its schema', async () => {
    const { text } = await ask({ ...asking('x'), response_format: { type: 'json_schema', json_schema: { name: 'trip', schema } } });
    expect(JSON.parse(text ?? '')).toEqual({ city: expect.any(String), days: 2 });
  });

  test('is an object when only JSON is asked for', async () => {
    const { text } = await ask({ ...asking('x'), response_format: { type: 'json_object' } });
    expect(JSON.parse(text ?? '')).toMatchObject({ simulated: true });
  });

  test('is plain text when that is asked for', async () => {
    expect((await ask({ ...asking('x'), response_format: { type: 'text' } })).text).toMatch(/^This is/);
  });
});

describe('tools', () => {
  const question = asking('What is the weather in San Francisco today?');

  test('are called with arguments that satisfy their schema', async () => {
    const { calls, finish, text } = await ask({ ...question, tools: [lookUp, weather] });
    expect(calls).toEqual([{ id: expect.stringMatching(/^call_/), name: 'get_weather', arguments: expect.any(String) }]);
    expect(JSON.parse(calls[0]?.arguments ?? '')).toEqual({ location: 'San Francisco', unit: expect.stringMatching(/^[cf]$/) });
    expect([finish, text]).toEqual(['tool_calls', null]);
  });

  test.each<[string, unknown, string[]]>([
    ['none', 'none', []],
    ['auto', 'auto', ['get_weather']],
    ['required', 'required', ['get_weather']],
    ['a named one', { type: 'function', function: { name: 'look_up' } }, ['look_up']],
    [
      'allowed ones',
      { type: 'allowed_tools', allowed_tools: { mode: 'auto', tools: [{ type: 'function', function: { name: 'look_up' } }] } },
      ['look_up'],
    ],
  ])('are chosen by tool_choice: %s', async (_name, choice, expected) => {
    const { calls } = await ask({ ...question, tools: [weather, lookUp], tool_choice: choice });
    expect(calls.map(({ name }) => name)).toEqual(expected);
  });

  test('are not called again when a result has come', async () => {
    const messages = [
      { role: 'user', content: 'Weather?' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'call_1', type: 'function', function: { name: 'get_weather', arguments: '{}' } }],
      },
      { role: 'tool', tool_call_id: 'call_1', content: '21 degrees and sunny' },
    ];
    const { calls, text, finish } = await ask({ messages, tools: [weather] });
    expect([calls, finish]).toEqual([[], 'stop']);
    expect(text).toContain('21 degrees and sunny');
  });

  test('are streamed in fragments that add up to the same', async () => {
    const provider = simulated();
    const body = { ...question, tools: [weather] };
    const events = await collect(await provider.stream(callOf({ ...body, stream: true }), never()));
    for (const event of events) expectValid('CreateChatCompletionStreamResponse', event.parsed);
    const fragments = events.flatMap(
      ({ parsed }) =>
        (
          parsed['choices'] as {
            delta: { tool_calls?: { index: number; id?: string; function: { name?: string; arguments: string } }[] };
          }[]
        )[0]?.delta.tool_calls ?? [],
    );
    expect(fragments.filter(({ id }) => id !== undefined)).toHaveLength(1);
    expect(fragments[0]).toMatchObject({ index: 0, id: expect.stringMatching(/^call_/), function: { name: 'get_weather' } });
    const { calls } = await ask(body, { provider });
    expect(fragments.map((fragment) => fragment.function.arguments).join('')).toBe(calls[0]?.arguments);
  });

  test('cut short by the limit leave out what was not begun', async () => {
    const { calls, finish } = await ask({ ...question, tools: [weather], max_tokens: 2 });
    expect([calls.length, finish]).toEqual([1, 'length']);
    expect(() => JSON.parse(calls[0]?.arguments ?? '')).toThrow();
  });
});

describe('retrieved passages', () => {
  const passages =
    'Answer from these.\n\n[1] (file: acme-handbook.md) Holidays are 30 days. Remote work is\nallowed on Fridays.\n- Lunch is at noon\n- Tea is at four\n\n[2] (file: security.pdf) Keys rotate every 90 days, see [14].\nVisitors sign in.\n# Parental leave\nIt lasts 26 weeks.';
  const about = (content: string) => ({
    messages: [
      { role: 'system', content: passages },
      { role: 'user', content },
    ],
  });

  test.each([
    ['How many holidays do I get?', '"Holidays are 30 days." [1]'],
    ['When does a key rotate?', '"Keys rotate every 90 days, see (14)." [2]'],
    ['When is remote work allowed?', '"Remote work is allowed on Fridays." [1]'],
    ['When is tea?', '"- Tea is at four" [1]'],
    ['How long is parental leave?', '"It lasts 26 weeks." [2]'],
    ['Who signs in as a visitor?', '"Visitors sign in." [2]'],
  ])('answer %s', async (question, quote) => {
    const { text } = await ask(about(question));
    expect(text).toContain(quote);
    expect(text?.match(/\[\d+\]/g)).toHaveLength(1);
  });

  test('that say nothing about it are not cited', async () => {
    expect((await ask(about('What is the capital of Mongolia?'))).text).not.toMatch(/\[\d+\]/);
  });

  test('are only believed from the system, not from the user', async () => {
    expect((await ask(asking(`${passages}\nHow many holidays?`))).text).toMatch(/^This is a simulated answer/);
  });
});

describe('an obedient model', () => {
  const provider = simulated({}, { obedient: true });

  test('repeats everything it was given', async () => {
    const messages = [
      { role: 'system', content: 'The secret is canary-123.' },
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'earlier words' },
      { role: 'user', content: [{ type: 'text', text: 'and now?' }] },
    ];
    const { text } = await ask({ messages }, { provider });
    for (const part of ['canary-123', 'Hello', 'earlier words', 'and now?']) expect(text).toContain(part);
  });

  test('calls every tool with every id it saw', async () => {
    const { calls, finish } = await ask(
      { ...asking('see file-abc123 and vs_999xyz and 3f2b8c1e-5d6a-4f7b-8c9d-0e1f2a3b4c5d'), tools: [lookUp, weather] },
      { provider },
    );
    expect(finish).toBe('tool_calls');
    const ids = ['file-abc123', 'vs_999xyz', '3f2b8c1e-5d6a-4f7b-8c9d-0e1f2a3b4c5d'];
    expect(calls.filter(({ name }) => name === 'look_up').map((call) => JSON.parse(call.arguments).id)).toEqual(ids);
    expect(calls.filter(({ name }) => name === 'get_weather').map((call) => JSON.parse(call.arguments).location)).toEqual(ids);
  });

  test('still calls nothing when tools are forbidden', async () => {
    expect((await ask({ ...asking('file-abc123'), tools: [lookUp], tool_choice: 'none' }, { provider })).calls).toEqual([]);
  });
});

describe('faults', () => {
  async function outcomes(config: Parameters<typeof simulated>[0], count: number): Promise<string[]> {
    const provider = simulated(config, { stallMs: 1 });
    const codes: string[] = [];
    for (let index = 0; index < count; index++) {
      codes.push(
        await provider.complete(callOf(asking('x')), never()).then(
          () => 'ok',
          (error: { code: string }) => error.code,
        ),
      );
    }
    return codes;
  }

  test('come at their rates, in the same order for the same seed', async () => {
    const config = { rateLimitRate: 0.2, errorRate: 0.25, stallRate: 0.1, seed: 9 };
    const codes = await outcomes(config, 400);
    const share = (code: string) => codes.filter((entry) => entry === code).length / codes.length;
    expect(share('upstream_rate_limited')).toBeCloseTo(0.2, 1);
    expect(share('upstream_error')).toBeCloseTo(0.2, 1);
    expect(share('upstream_timeout')).toBeCloseTo(0.06, 1);
    expect(share('upstream_timeout')).toBeGreaterThan(0);
    expect(await outcomes(config, 60)).toEqual(codes.slice(0, 60));
    expect(await outcomes({ ...config, seed: 10 }, 60)).not.toEqual(codes.slice(0, 60));
  });

  test('leave nothing running', async () => {
    const provider = simulated({ stallRate: 1 }, { stallMs: 1 });
    await expect(collect(await provider.stream(callOf(asking('x')), never()))).rejects.toMatchObject({ code: 'upstream_timeout' });
    await expect(provider.complete(callOf({}), never())).rejects.toMatchObject({ code: 'upstream_rejected' });
    expect(provider.inFlight).toBe(0);
    const broken = simulated({}, { ids: { next: () => expect.unreachable('no more ids') } });
    await expect(broken.complete(callOf(asking('x')), never())).rejects.toThrow('no more ids');
    expect(broken.inFlight).toBe(0);
  });

  test('of a rate limit say when to come back', async () => {
    const error = await simulated({ rateLimitRate: 1 })
      .complete(callOf(asking('x')), never())
      .catch((thrown: { retryAfterMs: number }) => thrown);
    expect(error).toMatchObject({ retryAfterMs: expect.any(Number) });
  });
});

describe('the limits', () => {
  const limited = (config: Parameters<typeof simulated>[0]) => {
    const clock = new ManualClock();
    const provider = simulated(config, { clock });
    const send = () => provider.complete(callOf({ ...asking('x'), max_tokens: 10 }), never());
    return { clock, provider, send };
  };
  const waitOf = (sent: Promise<unknown>) =>
    sent.then(
      () => 0,
      (error: { code: string; retryAfterMs: number }) =>
        error.code === 'upstream_rate_limited' ? error.retryAfterMs : Promise.reject(new Error(error.code)),
    );

  test('of requests a minute hold at n and n + 1, and a lone retry passes when it was told to', async () => {
    const { clock, send } = limited({ requestsPerMinute: 6 });
    for (let index = 0; index < 6; index++) expect(await waitOf(send())).toBe(0);
    expect(await waitOf(send())).toBe(10_000);
    clock.advance(9_999);
    expect(await waitOf(send())).toBe(1);
    clock.advance(1);
    expect(await waitOf(send())).toBe(0);
  });

  test('of tokens a minute count the prompt and the most it may answer', async () => {
    const { usage } = await limited({}).send();
    const each = (usage?.inputTokens ?? 0) + 10;
    const { clock, send } = limited({ tokensPerMinute: each * 3 });
    for (let index = 0; index < 3; index++) expect(await waitOf(send())).toBe(0);
    expect(await waitOf(send())).toBe(20_000);
    clock.advance(20_000);
    expect(await waitOf(send())).toBe(0);
    await expect(limited({ tokensPerMinute: each - 1 }).send()).rejects.toMatchObject({ code: 'upstream_rejected' });
    expect(await waitOf(limited({ tokensPerMinute: each }).send())).toBe(0);
  });

  test('of concurrency hold at n and n + 1, and a slot comes back', async () => {
    const provider = simulated({ concurrency: 2, timeToFirstTokenMs: 1_000, tokensPerSecond: 10 });
    const open = () => provider.stream(callOf({ ...asking('x'), max_tokens: 10 }), never());
    const first = await open();
    await open();
    const wait = await waitOf(open());
    expect(wait).toBeGreaterThan(50);
    expect(wait).toBeLessThan(20_000);
    await first[Symbol.asyncDispose]();
    await open();
    await expect(open()).rejects.toMatchObject({ code: 'upstream_rate_limited' });
    await provider.close();
    expect(provider.inFlight).toBe(0);
  });
});

describe('cached tokens', () => {
  const long = (ending: string) => ({ ...callOf(asking(`${'The lease runs for ten years. '.repeat(400)}${ending}`)) });
  const cachedOf = async (provider: ReturnType<typeof simulated>, cacheSalt: string | undefined, ending = 'a') =>
    (await provider.complete({ ...long(ending), cacheSalt }, never())).usage?.cacheReadTokens;

  test('are those of a prefix seen before under the same salt, and no other', async () => {
    const provider = simulated();
    expect(await cachedOf(provider, 'salt-a')).toBe(0);
    const cached = await cachedOf(provider, 'salt-a', 'b');
    expect(cached).toBeGreaterThan(1_024);
    expect((cached ?? 0) % 128).toBe(0);
    expect(await cachedOf(provider, 'salt-b')).toBe(0);
    expect(await cachedOf(provider, undefined)).toBe(0);
    expect(await cachedOf(provider, undefined)).toBe(0);
  });

  test('are none for a short prompt', async () => {
    const provider = simulated();
    const short = { ...callOf(asking('x'.repeat(600))), cacheSalt: 's' };
    await provider.complete(short, never());
    expect((await provider.complete(short, never())).usage?.cacheReadTokens).toBe(0);
  });
});

describe('the pace', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test('is the configured one', async () => {
    const provider = simulated({ timeToFirstTokenMs: 1_000, tokensPerSecond: 10 }, { clock: systemClock });
    const startedMs = performance.now();
    const stream = await provider.stream(callOf(asking('x')), never());
    const arrivals: number[] = [];
    const reading = (async () => {
      for await (const batch of stream.batches)
        for (const event of batch) if (deltaText(event) !== '') arrivals.push(performance.now() - startedMs);
    })();
    await vi.advanceTimersByTimeAsync(60_000);
    await reading;
    expect(arrivals[0]).toBeGreaterThan(300);
    expect(arrivals[0]).toBeLessThan(3_000);
    const gaps = arrivals.slice(1).map((at, index) => at - (arrivals[index] ?? 0));
    expect(Math.max(...gaps)).toBeLessThanOrEqual(106);
    expect((arrivals.at(-1) ?? 0) - (arrivals[0] ?? 0)).toBeCloseTo((arrivals.length - 1) * 100, -1);
  });

  test('shares timers among streams', async () => {
    const provider = simulated({ timeToFirstTokenMs: 20, tokensPerSecond: 20 }, { clock: systemClock });
    const streams = await Promise.all(Array.from({ length: 500 }, () => provider.stream(callOf(asking('x')), never())));
    const readings = Promise.all(streams.map(collect));
    // First tokens are spread over some 100 ms, and so over some 20 moments.
    expect(vi.getTimerCount()).toBeGreaterThan(5);
    expect(vi.getTimerCount()).toBeLessThanOrEqual(30);
    await vi.advanceTimersByTimeAsync(60_000);
    await readings;
    expect(vi.getTimerCount()).toBe(0);
  });

  test('takes no timers at all when there is none', async () => {
    await collect(await simulated().stream(callOf(asking('x')), never()));
    expect(vi.getTimerCount()).toBe(0);
  });

  test('leaves no timer behind when the caller goes', async () => {
    const leaving = new AbortController();
    const provider = simulated({ timeToFirstTokenMs: 1_000, tokensPerSecond: 1 }, { clock: systemClock });
    const waiting = provider.complete(callOf(asking('x')), leaving.signal);
    leaving.abort(new Error('left'));
    await expect(waiting).rejects.toThrow('left');
    expect([vi.getTimerCount(), provider.inFlight]).toEqual([0, 0]);
  });
});
