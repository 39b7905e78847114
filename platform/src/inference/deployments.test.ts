import { describe, expect, test } from 'vitest';
import type { ModelConfig } from '../config/schema.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { ErrorCode } from '../errors/catalogue.ts';
import { ManualClock } from '../primitives/clock.ts';
import { createInference, type Inference, type ModelRoute } from './deployments.ts';
import type { Completion, CompletionEvent, CompletionStream, Provider, ProviderCall } from './provider.ts';

const { signal } = new AbortController();
const call = { body: { messages: [] }, requestId: 'req_1' };
const anyModel = {};

/** A provider that does what its script says, call after call; an empty script answers. */
class ScriptedProvider implements Provider {
  readonly id: string;
  readonly calls: ProviderCall[] = [];
  script: (ErrorCode | 'answer' | 'break' | 'empty' | 'wait')[] = [];
  isClosed = false;
  disposals = 0;

  constructor(id: string) {
    this.id = id;
  }

  async complete(received: ProviderCall, given: AbortSignal): Promise<Completion> {
    await this.#act(received, given);
    return { body: Buffer.from('{}'), parsed: {} };
  }

  embed(received: ProviderCall, given: AbortSignal): Promise<Completion> {
    return this.complete(received, given);
  }

  async stream(received: ProviderCall, given: AbortSignal): Promise<CompletionStream> {
    const step = await this.#act(received, given);
    return {
      batches: eventsOf(step),
      [Symbol.asyncDispose]: async () => {
        this.disposals++;
      },
    };
  }

  async close(): Promise<void> {
    this.isClosed = true;
  }

  async #act(received: ProviderCall, given: AbortSignal): Promise<string> {
    this.calls.push(received);
    const step = this.script.shift() ?? 'answer';
    if (step === 'wait') await new Promise((_, reject) => given.addEventListener('abort', () => reject(given.reason as Error)));
    if (!['answer', 'break', 'empty'].includes(step)) {
      throw new BulkheadError(step as ErrorCode, 'scripted', step === 'upstream_rate_limited' ? { retryAfterMs: 7_000 } : {});
    }
    return step;
  }
}

async function* eventsOf(step: string): AsyncGenerator<readonly CompletionEvent[]> {
  if (step === 'empty') return;
  if (step === 'break') throw new BulkheadError('upstream_error', 'scripted');
  yield [{ json: '{"n":1}', parsed: { n: 1 } }];
  yield [{ json: '{"n":2}', parsed: { n: 2 } }];
  throw new BulkheadError('upstream_error', 'broke in the middle');
}

function model(id: string, ...deployments: (readonly [provider: string, model: string, concurrency?: number])[]): ModelConfig {
  return {
    id,
    kind: 'chat',
    contextTokens: 1_000,
    outputTokensMax: 16_384,
    deployments: deployments.map(([provider, upstream, concurrency]) => ({
      provider,
      model: upstream,
      limits: concurrency === undefined ? {} : { concurrency },
    })),
  };
}

function setUp(...models: ModelConfig[]) {
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((id) => new ScriptedProvider(id)) as [
    ScriptedProvider,
    ScriptedProvider,
    ScriptedProvider,
    ScriptedProvider,
  ];
  const clock = new ManualClock();
  return { a, b, c, d, clock, inference: createInference({ models, providers: [a, b, c, d], clock }) };
}

function routeOf(inference: Inference, id: string): ModelRoute {
  const route = inference.resolve(id, anyModel);
  if (route === undefined) throw new Error(`no route for ${id}`);
  return route;
}

const inFlight = (inference: Inference) => inference.deployments().map((deployment) => deployment.inFlight);

describe('a model', () => {
  test('that the policy does not grant looks like one that does not exist', () => {
    const { inference } = setUp(model('m1', ['a', 'x']), model('m2', ['a', 'y']));
    expect(inference.resolve('m2', { models: ['m1'] })).toBeUndefined();
    expect(inference.resolve('nope', {})).toBeUndefined();
    expect(inference.resolve('nope', { models: ['nope'] })).toBeUndefined();
    expect(inference.resolve('__proto__', {})).toBeUndefined();
    expect(inference.modelsFor({ models: ['m2', 'nope'] }).map(({ id }) => id)).toEqual(['m2']);
    expect(inference.modelsFor({}).map(({ id }) => id)).toEqual(['m1', 'm2']);
  });

  test('must name a provider that is there, and have an id of its own', () => {
    expect(() => setUp(model('m', ['nobody', 'x']))).toThrow('no provider "nobody"');
    expect(() => setUp(model('m', ['a', 'x']), model('m', ['a', 'y']))).toThrow('configured twice');
  });

  test('has a pool with the slots of its deployments', () => {
    const { inference } = setUp(model('m1', ['a', 'x', 3], ['b', 'x', 5]), model('m2', ['a', 'y']));
    expect(inference.pools()).toEqual([
      { poolId: 'm1', permits: 8 },
      { poolId: 'm2', permits: 64 },
    ]);
  });

  test('shares its pool with those it shares a deployment with, also over a third', () => {
    const { inference } = setUp(
      model('m1', ['a', 'x', 3]),
      model('m2', ['b', 'x', 5], ['d', 'x', 2]),
      model('m3', ['b', 'x', 4], ['a', 'x', 9]),
      model('m4', ['c', 'x', 1]),
      model('m5', ['d', 'x', 3]),
    );
    expect(inference.pools()).toEqual([
      { poolId: 'm1', permits: 9 },
      { poolId: 'm4', permits: 1 },
    ]);
  });
});

describe('a deployment is chosen', () => {
  test('by its load, then by the order of the configuration', async () => {
    const { a, b, inference } = setUp(model('m', ['a', 'x', 2], ['b', 'y', 4]));
    const route = routeOf(inference, 'm');
    const leaving = new AbortController();
    a.script = ['wait', 'wait'];
    b.script = ['wait', 'wait', 'wait', 'wait'];
    const start = () => inference.complete(route, call, leaving.signal).catch(() => {});
    const running = [start(), start(), start()];
    expect([a.calls.length, b.calls.length]).toEqual([1, 2]);
    running.push(start(), start(), start());
    expect([a.calls.length, b.calls.length]).toEqual([2, 4]);
    expect(inFlight(inference)).toEqual([2, 4]);
    await expect(inference.complete(route, call, signal)).rejects.toMatchObject({ code: 'capacity_unavailable', retryAfterMs: 1_000 });
    leaving.abort();
    await Promise.all(running);
    expect(inFlight(inference)).toEqual([0, 0]);
  });

  test('and named in the answer', async () => {
    const { b, inference } = setUp(model('m', ['b', 'real-name']));
    const { source } = await inference.embed(routeOf(inference, 'm'), { ...call, cacheSalt: 's' }, signal);
    expect(source).toEqual({ provider: 'b', upstreamModel: 'real-name' });
    expect(b.calls).toEqual([{ ...call, cacheSalt: 's', upstreamModel: 'real-name' }]);
  });

  test('after the others for as long as its failure makes it cool', async () => {
    const { a, b, clock, inference } = setUp(model('m', ['a', 'x'], ['b', 'y']));
    const route = routeOf(inference, 'm');
    a.script = ['upstream_rate_limited'];
    await inference.complete(route, call, signal);
    expect(inference.deployments().map(({ isCooling }) => isCooling)).toEqual([true, false]);
    clock.advance(6_999);
    await inference.complete(route, call, signal);
    expect([a.calls.length, b.calls.length]).toEqual([1, 2]);
    clock.advance(1);
    await inference.complete(route, call, signal);
    expect([a.calls.length, b.calls.length]).toEqual([2, 2]);
  });

  test('although it cools when there is no other', async () => {
    const { a, inference } = setUp(model('m', ['a', 'x']));
    a.script = ['upstream_rate_limited'];
    await expect(inference.complete(routeOf(inference, 'm'), call, signal)).rejects.toMatchObject({ code: 'upstream_rate_limited' });
    await inference.complete(routeOf(inference, 'm'), call, signal);
    expect(a.calls).toHaveLength(2);
  });
});

describe('when a call fails', () => {
  const retried: ErrorCode[] = ['upstream_error', 'upstream_timeout', 'upstream_rate_limited', 'upstream_misconfigured'];
  test.each(retried)('with %s another deployment is asked', async (code) => {
    const { a, b, inference } = setUp(model('m', ['a', 'x'], ['b', 'y']));
    a.script = [code];
    const { source } = await inference.complete(routeOf(inference, 'm'), call, signal);
    expect(source.provider).toBe('b');
    expect(b.calls[0]?.upstreamModel).toBe('y');
    expect(inFlight(inference)).toEqual([0, 0]);
  });

  const final: ErrorCode[] = ['upstream_rejected', 'context_length_exceeded', 'embedding_failed', 'model_not_found'];
  test.each(final)('with %s nobody else is asked', async (code) => {
    const { a, b, inference } = setUp(model('m', ['a', 'x'], ['b', 'y']));
    a.script = [code];
    await expect(inference.complete(routeOf(inference, 'm'), call, signal)).rejects.toMatchObject({ code });
    expect(b.calls).toHaveLength(0);
    expect(inFlight(inference)).toEqual([0, 0]);
  });

  test('three times that is enough, and a rate limit is what the client hears', async () => {
    const { a, b, c, d, inference } = setUp(model('m', ['a', 'x'], ['b', 'x'], ['c', 'x'], ['d', 'x']));
    a.script = ['upstream_error'];
    b.script = ['upstream_rate_limited'];
    c.script = ['upstream_misconfigured'];
    await expect(inference.complete(routeOf(inference, 'm'), call, signal)).rejects.toMatchObject({
      code: 'upstream_rate_limited',
      retryAfterMs: 7_000,
    });
    expect(d.calls).toHaveLength(0);
  });

  test('because the caller has gone, nobody else is asked', async () => {
    const { a, b, inference } = setUp(model('m', ['a', 'x'], ['b', 'y']));
    const leaving = new AbortController();
    a.script = ['wait'];
    const waiting = inference.complete(routeOf(inference, 'm'), call, leaving.signal);
    leaving.abort(new BulkheadError('upstream_timeout', 'took too long for us'));
    await expect(waiting).rejects.toThrow('took too long for us');
    expect(b.calls).toHaveLength(0);
  });
});

describe('a stream', () => {
  test.each(['break', 'empty', 'upstream_error'] as const)(
    'that fails before its first event (%s) is asked of another deployment',
    async (step) => {
      const { a, inference } = setUp(model('m', ['a', 'x'], ['b', 'y']));
      a.script = [step];
      const { stream, source } = await inference.stream(routeOf(inference, 'm'), call, signal);
      expect(source.provider).toBe('b');
      expect(inFlight(inference)).toEqual([0, 1]);
      expect(a.disposals).toBe(step === 'upstream_error' ? 0 : 1);
      await stream[Symbol.asyncDispose]();
    },
  );

  test('that fails later is never asked of another deployment', async () => {
    const { b, inference } = setUp(model('m', ['a', 'x'], ['b', 'y']));
    const { stream } = await inference.stream(routeOf(inference, 'm'), call, signal);
    const received: unknown[] = [];
    const reading = async () => {
      for await (const batch of stream.batches) received.push(...batch.map(({ parsed }) => parsed['n']));
    };
    await expect(reading()).rejects.toThrow('broke in the middle');
    expect(received).toEqual([1, 2]);
    expect(b.calls).toHaveLength(0);
    expect(inFlight(inference)).toEqual([0, 0]);
  });

  test('holds its slot until it is read, broken off, or disposed of, and gives it back once', async () => {
    const { a, inference } = setUp(model('m', ['a', 'x']));
    const route = routeOf(inference, 'm');
    const broken = await inference.stream(route, call, signal);
    const unread = await inference.stream(route, call, signal);
    expect(inFlight(inference)).toEqual([2]);
    for await (const _batch of broken.stream.batches) break;
    expect(inFlight(inference)).toEqual([1]);
    await unread.stream[Symbol.asyncDispose]();
    await unread.stream[Symbol.asyncDispose]();
    await broken.stream[Symbol.asyncDispose]();
    expect(inFlight(inference)).toEqual([0]);
    expect(a.disposals).toBe(2);
  });

  test('that was disposed of has no more events', async () => {
    const { inference } = setUp(model('m', ['a', 'x']));
    const { stream } = await inference.stream(routeOf(inference, 'm'), call, signal);
    await stream[Symbol.asyncDispose]();
    for await (const batch of stream.batches) expect.unreachable(JSON.stringify(batch));
  });

  test('is read by one reader', async () => {
    const { inference } = setUp(model('m', ['a', 'x']));
    const { stream } = await inference.stream(routeOf(inference, 'm'), call, signal);
    stream.batches[Symbol.asyncIterator]();
    expect(() => stream.batches[Symbol.asyncIterator]()).toThrow('read once');
    await stream[Symbol.asyncDispose]();
  });
});

test('closing closes every provider', async () => {
  const { a, d, inference } = setUp(model('m', ['a', 'x']));
  await inference.close();
  expect([a.isClosed, d.isClosed]).toEqual([true, true]);
});
