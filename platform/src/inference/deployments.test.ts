import { describe, expect, test } from 'vitest';
import type { ModelConfig } from '../config/schema.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { ErrorCode } from '../errors/catalogue.ts';
import { ManualClock } from '../primitives/clock.ts';
import { createInference, type Inference, type ModelRoute } from './deployments.ts';
import {
  type Completion,
  type CompletionEvent,
  type CompletionStream,
  type Provider,
  type ProviderCall,
  type QuotaReport,
  UpstreamRefusal,
} from './provider.ts';

const { signal } = new AbortController();
const call = { body: { messages: [] }, requestId: 'req_1', size: { inputTokens: 10, outputTokens: 20 } };
const anyModel = {};

/** A provider that does what its script says, call after call; an empty script answers. */
class ScriptedProvider implements Provider {
  readonly id: string;
  readonly calls: ProviderCall[] = [];
  script: (ErrorCode | 'concurrency' | 'account' | 'answer' | 'break' | 'empty' | 'wait' | 'whole')[] = [];
  retryAfterMs = 7_000;
  quota: QuotaReport | undefined;
  isClosed = false;
  disposals = 0;

  constructor(id: string) {
    this.id = id;
  }

  async complete(received: ProviderCall, given: AbortSignal): Promise<Completion> {
    await this.#act(received, given);
    return { body: Buffer.from('{}'), parsed: {}, quota: this.quota };
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
    const message = 'scripted';
    const options = { retryAfterMs: this.retryAfterMs };
    if (step === 'upstream_rate_limited') throw new UpstreamRefusal('rate', { code: step, message, options });
    if (step === 'concurrency') throw new UpstreamRefusal(step, { code: 'upstream_rate_limited', message });
    if (step === 'account') throw new UpstreamRefusal(step, { code: 'upstream_misconfigured', message });
    if (!['answer', 'break', 'empty', 'whole'].includes(step)) throw new BulkheadError(step as ErrorCode, message);
    return step;
  }
}

async function* eventsOf(step: string): AsyncGenerator<readonly CompletionEvent[]> {
  if (step === 'empty') return;
  if (step === 'break') throw new BulkheadError('upstream_error', 'scripted');
  yield [{ json: '{"n":1}', parsed: { n: 1 } }];
  if (step === 'whole') return;
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
  return {
    a,
    b,
    c,
    d,
    clock,
    inference: createInference({ models, providers: [a, b, c, d], clock, waitMaxMs: 30_000, random: { next: () => 0 } }),
  };
}

function routeOf(inference: Inference, id: string): ModelRoute {
  const route = inference.resolve(id, anyModel);
  if (route === undefined) throw new Error(`no route for ${id}`);
  return route;
}

/** As they are now, and kept up to date. */
function capacities(inference: Inference): Record<string, number> {
  const known: Record<string, number> = {};
  inference.watchPools(({ poolId, permits }) => (known[poolId] = permits));
  return known;
}

const states = (inference: Inference) => inference.deployments().map(({ state }) => state);
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
    expect(capacities(inference)).toEqual({ m1: 8, m2: 64 });
  });

  test('shares its pool with those it shares a deployment with, also over a third', () => {
    const { inference } = setUp(
      model('m1', ['a', 'x', 3]),
      model('m2', ['b', 'x', 5], ['d', 'x', 2]),
      model('m3', ['b', 'x', 4], ['a', 'x', 9]),
      model('m4', ['c', 'x', 1]),
      model('m5', ['d', 'x', 3]),
    );
    expect(capacities(inference)).toEqual({ m1: 9, m4: 1 });
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
    const seventh = inference.complete(route, call, signal);
    expect([a.calls.length, b.calls.length]).toEqual([2, 4]);
    leaving.abort();
    await Promise.all(running);
    await seventh;
    expect(inFlight(inference)).toEqual([0, 0]);
  });

  test('and named in the answer', async () => {
    const { b, inference } = setUp(model('m', ['b', 'real-name']));
    const { source } = await inference.embed(routeOf(inference, 'm'), { ...call, cacheSalt: 's' }, signal);
    expect(source).toEqual({ provider: 'b', upstreamModel: 'real-name' });
    const { body, requestId } = call;
    expect(b.calls).toEqual([{ body, requestId, cacheSalt: 's', upstreamModel: 'real-name', outputTokensMax: 16_384 }]);
  });

  test('by how the prompt begins, while it is not busier than the others', async () => {
    const { a, b, inference } = setUp(model('m', ['a', 'x', 8], ['b', 'y', 8]));
    const route = routeOf(inference, 'm');
    const ask = (tenant: string, prompt: string) =>
      inference.complete(route, { ...call, cacheSalt: tenant, body: { messages: [{ content: prompt }] } }, signal);
    for (let time = 0; time < 10; time++) await ask('t1', 'one prompt');
    expect([a.calls.length, b.calls.length].toSorted((left, right) => left - right)).toEqual([0, 10]);
    for (let tenant = 0; tenant < 40; tenant++) await ask(`t${tenant}`, 'one prompt');
    expect(Math.min(a.calls.length, b.calls.length)).toBeGreaterThan(8);
    const leaving = new AbortController();
    a.script = Array.from({ length: 8 }, () => 'wait' as const);
    b.script = Array.from({ length: 8 }, () => 'wait' as const);
    const running = Array.from({ length: 8 }, () =>
      inference
        .complete(route, { ...call, cacheSalt: 't1', body: { messages: [{ content: 'one prompt' }] } }, leaving.signal)
        .catch(() => {}),
    );
    expect(Math.max(...inFlight(inference))).toBeLessThanOrEqual(5);
    leaving.abort();
    await Promise.all(running);
  });
});

describe('a provider that limits its rate', () => {
  test('is not asked until the time it named, and then by a quarter more each second', async () => {
    const { a, b, clock, inference } = setUp(model('m', ['a', 'x', 8], ['b', 'y', 8]));
    const pools = capacities(inference);
    const route = routeOf(inference, 'm');
    a.script = ['upstream_rate_limited'];
    await inference.complete(route, call, signal);
    expect(states(inference)).toEqual(['paused', 'serving']);
    expect(inference.deployments()[0]).toMatchObject({ permits: 0, adaptiveLimit: 5, refusals: 1, resumesInMs: 7_000 });
    expect(pools).toEqual({ m: 8 });
    clock.advance(6_999);
    await inference.complete(route, call, signal);
    expect([a.calls.length, b.calls.length]).toEqual([1, 2]);
    clock.advance(1);
    expect(inference.deployments()[0]).toMatchObject({ state: 'ramping', permits: 1 });
    clock.advance(2_000);
    expect(inference.deployments()[0]).toMatchObject({ state: 'ramping', permits: 3 });
    clock.advance(1_000);
    expect(inference.deployments()[0]).toMatchObject({ state: 'serving', permits: 5 });
    await inference.complete(route, call, signal);
    expect(a.calls).toHaveLength(2);
  });

  test('is waited for in the queue when there is no other, and then asked again', async () => {
    const { a, clock, inference } = setUp(model('m', ['a', 'x']));
    const pools = capacities(inference);
    a.script = ['upstream_rate_limited', 'upstream_rate_limited'];
    let requeued = 0;
    const requeue = async () => {
      requeued++;
      expect(pools).toEqual({ m: 0 });
      clock.advance(7_000);
    };
    const { source } = await inference.complete(routeOf(inference, 'm'), { ...call, requeue }, signal);
    expect([source.provider, a.calls.length, requeued]).toEqual(['a', 3, 2]);
  });

  test('three times is left alone, and the client hears when to come back', async () => {
    const { a, clock, inference } = setUp(model('m', ['a', 'x']));
    a.script = ['upstream_rate_limited', 'upstream_rate_limited', 'upstream_rate_limited'];
    const requeue = async () => clock.advance(7_000);
    await expect(inference.complete(routeOf(inference, 'm'), { ...call, requeue }, signal)).rejects.toMatchObject({
      code: 'upstream_rate_limited',
      retryAfterMs: 7_000,
    });
    expect(a.calls).toHaveLength(3);
  });

  test('is not waited for longer than anybody may wait', async () => {
    const { a, inference } = setUp(model('m', ['a', 'x']));
    a.script = ['upstream_rate_limited'];
    a.retryAfterMs = 40_000;
    const requeue = () => Promise.reject(new Error('waited'));
    await expect(inference.complete(routeOf(inference, 'm'), { ...call, requeue }, signal)).rejects.toMatchObject({ retryAfterMs: 40_000 });
    await expect(inference.complete(routeOf(inference, 'm'), { ...call, requeue }, signal)).rejects.toMatchObject({
      code: 'capacity_unavailable',
      retryAfterMs: 40_000,
    });
    expect(a.calls).toHaveLength(1);
  });

  test('says its own refusal when the queue refuses the wait', async () => {
    const { a, inference } = setUp(model('m', ['a', 'x']));
    a.script = ['upstream_rate_limited'];
    const requeue = () => Promise.reject(new BulkheadError('queue_timeout', 'waited'));
    await expect(inference.complete(routeOf(inference, 'm'), { ...call, requeue }, signal)).rejects.toMatchObject({
      code: 'upstream_rate_limited',
    });
  });

  test('at its concurrency is asked less, at once, and not paused', async () => {
    const { a, inference } = setUp(model('m', ['a', 'x', 10]));
    const pools = capacities(inference);
    a.script = ['concurrency'];
    const { source } = await inference.complete(routeOf(inference, 'm'), call, signal);
    expect([source.provider, a.calls.length]).toEqual(['a', 2]);
    expect(pools).toEqual({ m: 7 });
  });

  test('is asked more again by those who wait, although their replica has few of the calls', async () => {
    const { a, inference } = setUp(model('m', ['a', 'x', 10]));
    a.script = ['concurrency'];
    const route = routeOf(inference, 'm');
    await inference.complete(route, call, signal);
    for (let count = 0; count < 7; count++) await inference.complete(route, call, signal);
    expect(inference.deployments()[0]?.adaptiveLimit).toBe(7);
    for (let count = 0; count < 7; count++) await inference.complete(route, { ...call, hasWaited: true }, signal);
    expect(inference.deployments()[0]?.adaptiveLimit).toBe(8);
  });

  test('without money is asked again after a minute', async () => {
    const { a, b, clock, inference } = setUp(model('m', ['a', 'x'], ['b', 'y']));
    a.script = ['account'];
    await inference.complete(routeOf(inference, 'm'), call, signal);
    expect(states(inference)).toEqual(['broken', 'serving']);
    clock.advance(59_999);
    expect(states(inference)).toEqual(['broken', 'serving']);
    clock.advance(1);
    expect(states(inference)).toEqual(['probing', 'serving']);
    await inference.complete(routeOf(inference, 'm'), call, signal);
    expect([a.calls.length, b.calls.length]).toEqual([2, 1]);
    expect(states(inference)).toEqual(['serving', 'serving']);
  });
});

describe('the limits of our account', () => {
  const limited = (limits: ModelConfig['deployments'][number]['limits']): ModelConfig => ({
    ...model('m', ['a', 'x']),
    deployments: [{ provider: 'a', model: 'x', limits }],
  });

  test('hold calls back before the provider has to', async () => {
    const { a, clock, inference } = setUp(limited({ requestsPerMinute: 2 }));
    const route = routeOf(inference, 'm');
    await inference.complete(route, call, signal);
    await inference.complete(route, call, signal);
    const waits: number[] = [];
    const requeue = async () => {
      waits.push(inference.deployments()[0]?.resumesInMs ?? 0);
      expect(states(inference)).toEqual(['no_quota']);
      clock.advance(waits.at(-1) ?? 0);
    };
    await inference.complete(route, { ...call, requeue }, signal);
    expect([a.calls.length, waits]).toEqual([3, [30_000]]);
  });

  test.each([
    ['inputTokensPerMinute', 20],
    ['outputTokensPerMinute', 40],
    ['tokensPerMinute', 60],
  ] as const)('hold %s', async (name, limit) => {
    const { a, clock, inference } = setUp(limited({ [name]: limit }));
    const route = routeOf(inference, 'm');
    await inference.complete(route, call, signal);
    await inference.complete(route, call, signal);
    const requeue = async () => clock.advance(inference.deployments()[0]?.resumesInMs ?? 0);
    await inference.complete(route, { ...call, requeue }, signal);
    expect([a.calls.length, clock.monotonicMs()]).toEqual([3, 30_000]);
  });

  test('are what the provider says is left', async () => {
    const { a, clock, inference } = setUp(model('m', ['a', 'x']));
    a.quota = { tokens: { limit: 600, remaining: 15 } };
    const route = routeOf(inference, 'm');
    await inference.complete(route, call, signal);
    expect(inference.deployments()[0]?.quota).toEqual({ tokens: { limit: 600, remaining: 15 } });
    const requeue = async () => {
      expect(inference.deployments()[0]).toMatchObject({ state: 'no_quota', resumesInMs: 1_500 });
      clock.advance(1_500);
    };
    await inference.complete(route, { ...call, requeue }, signal);
    expect(a.calls).toHaveLength(2);
  });

  test('refuse once what they can never hold', async () => {
    const { a, inference } = setUp(limited({ tokensPerMinute: 29 }));
    await expect(inference.complete(routeOf(inference, 'm'), call, signal)).rejects.toMatchObject({ code: 'request_too_large_for_limit' });
    expect(a.calls).toHaveLength(0);
  });
});

describe('a circuit', () => {
  const fail = async (inference: Inference, tenants: readonly string[]) => {
    for (const cacheSalt of tenants) await inference.complete(routeOf(inference, 'm'), { ...call, cacheSalt }, signal).catch(() => {});
  };

  test('opens after failures of several tenants, lets one call try, and opens for longer', async () => {
    const { a, clock, inference } = setUp(model('m', ['a', 'x']));
    a.script = Array.from({ length: 6 }, () => 'upstream_error' as const);
    await fail(inference, ['t1', 't2', 't1', 't2']);
    expect(states(inference)).toEqual(['serving']);
    await fail(inference, ['t1']);
    expect(states(inference)).toEqual(['broken']);
    clock.advance(2_000);
    expect(inference.deployments()[0]).toMatchObject({ state: 'probing', permits: 1 });
    await fail(inference, ['t1']);
    clock.advance(3_999);
    expect(states(inference)).toEqual(['broken']);
    clock.advance(1);
    await fail(inference, ['t1']);
    expect(states(inference)).toEqual(['serving']);
  });

  test('does not open soon for the calls of one tenant', async () => {
    const { a, inference } = setUp(model('m', ['a', 'x']));
    a.script = Array.from({ length: 20 }, () => 'upstream_error' as const);
    await fail(
      inference,
      Array.from({ length: 19 }, () => 't1'),
    );
    expect(states(inference)).toEqual(['serving']);
    await fail(inference, ['t1']);
    expect(states(inference)).toEqual(['broken']);
  });

  // Planted: taking no notice of a refusal.
  test('is closed by a request that the provider refuses as wrong, and opened by none', async () => {
    const { a, clock, inference } = setUp(model('m', ['a', 'x']));
    const failures = Array.from({ length: 5 }, () => 'upstream_error' as const);
    a.script = [...failures.slice(1), 'upstream_rejected', ...failures.slice(1), 'upstream_error', 'context_length_exceeded'];
    await fail(inference, ['t1', 't2', 't1', 't2', 't1', 't2', 't1', 't2', 't1']);
    expect(states(inference)).toEqual(['serving']);
    await fail(inference, ['t2']);
    expect(states(inference)).toEqual(['broken']);
    clock.advance(2_000);
    await fail(inference, ['t1']);
    expect(states(inference)).toEqual(['serving']);
  });

  // Planted: a probe that is let through without quota, which looks for room for ever.
  test('lets no call try while our account has no room', async () => {
    const limits = { requestsPerMinute: 5 };
    const { a, clock, inference } = setUp({ ...model('m', ['a', 'x']), deployments: [{ provider: 'a', model: 'x', limits }] });
    a.script = Array.from({ length: 5 }, () => 'upstream_error' as const);
    await fail(inference, ['t1', 't2', 't1', 't2', 't1']);
    clock.advance(2_000);
    expect(states(inference)).toEqual(['probing']);
    const requeue = async () => {
      expect(states(inference)).toEqual(['no_quota']);
      clock.advance(inference.deployments()[0]?.resumesInMs ?? 0);
    };
    await inference.complete(routeOf(inference, 'm'), { ...call, requeue }, signal);
    expect([a.calls.length, states(inference)]).toEqual([6, ['serving']]);
  });

  describe('for streams that break in the middle', () => {
    const streamOf = async (inference: Inference, cacheSalt: string, read: 'all' | 'one' = 'all') => {
      const { stream } = await inference.stream(routeOf(inference, 'm'), { ...call, cacheSalt }, signal);
      for await (const _batch of stream.batches) if (read === 'one') return;
    };
    const broken = (inference: Inference, cacheSalt: string) =>
      expect(streamOf(inference, cacheSalt)).rejects.toMatchObject({ message: 'broke in the middle' });
    const stateOf = (inference: Inference) => inference.deployments()[0]?.state;

    test('opens after five of several tenants, and for longer while none comes to its end', async () => {
      const { clock, inference } = setUp(model('m', ['a', 'x']));
      for (let count = 0; count < 4; count++) await broken(inference, `salt-${count % 2}`);
      expect(stateOf(inference)).toBe('serving');
      await broken(inference, 'salt-0');
      expect(inference.deployments()[0]).toMatchObject({ state: 'broken', resumesInMs: 2_000, failures: 5 });
      clock.advance(2_000);
      // The one that tries begins well and breaks as well: that is one more, and no answer.
      await broken(inference, 'salt-1');
      expect(inference.deployments()[0]).toMatchObject({ state: 'broken', resumesInMs: 4_000 });
    });

    test('opens for one tenant alone after twenty', async () => {
      const { inference } = setUp(model('m', ['a', 'x']));
      for (let count = 0; count < 19; count++) await broken(inference, 'salt');
      expect(stateOf(inference)).toBe('serving');
      await broken(inference, 'salt');
      expect(stateOf(inference)).toBe('broken');
    });

    test('counts anew after one that comes to its end or a whole answer, and counts none that its reader left', async () => {
      const { a, inference } = setUp(model('m', ['a', 'x']));
      for (let round = 0; round < 3; round++) {
        for (let count = 0; count < 4; count++) await broken(inference, `salt-${count % 2}`);
        if (round === 0) await inference.complete(routeOf(inference, 'm'), call, signal);
        else {
          a.script = ['whole'];
          await streamOf(inference, 'salt-0');
        }
      }
      for (let count = 0; count < 30; count++) await streamOf(inference, `salt-${count % 2}`, 'one');
      expect(stateOf(inference)).toBe('serving');
    });
  });

  test('is overruled by the operator', async () => {
    const { a, inference } = setUp(model('m', ['a', 'x', 4]));
    const pools = capacities(inference);
    a.script = Array.from({ length: 6 }, () => 'upstream_error' as const);
    await fail(inference, ['t1', 't2', 't1', 't2', 't1']);
    expect(pools).toEqual({ m: 0 });
    expect(inference.override('a/x', 'open')).toMatchObject({ state: 'serving', override: 'open' });
    expect(pools).toEqual({ m: 4 });
    expect(inference.override('a/x', 'closed')).toMatchObject({ state: 'closed' });
    expect(pools).toEqual({ m: 0 });
    await expect(inference.complete(routeOf(inference, 'm'), call, signal)).rejects.toMatchObject({ code: 'capacity_unavailable' });
    expect(inference.override('a/x', 'auto')).toMatchObject({ state: 'serving' });
    expect(inference.override('a/nothing', 'auto')).toBeUndefined();
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

  test.each(['unsupported_parameter', 'invalid_value'] as const)(
    'because the provider cannot be asked this (%s), all others are, for it costs nothing',
    async (code) => {
      const { a, b, c, d, inference } = setUp(model('m', ['a', 'x'], ['b', 'x'], ['c', 'x'], ['d', 'x']));
      for (const provider of [a, b, c]) provider.script = [code];
      expect((await inference.complete(routeOf(inference, 'm'), call, signal)).source.provider).toBe('d');
      expect([a, b, c].map(({ calls }) => calls.length)).toEqual([1, 1, 1]);
      for (const { state } of inference.deployments()) expect(state).toBe('serving');
      for (const provider of [a, b, c, d]) provider.script = [code];
      await expect(inference.complete(routeOf(inference, 'm'), call, signal)).rejects.toMatchObject({ code });
      expect(inFlight(inference)).toEqual([0, 0, 0, 0]);
    },
  );

  test('because the provider cannot be asked this, nothing of our account there is used up', async () => {
    const { a, b, inference } = setUp(model('m', ['a', 'x'], ['b', 'x']));
    a.quota = { requests: { limit: 10, remaining: 9, resetMs: 6_000 }, tokens: { limit: 1_000, remaining: 900, resetMs: 6_000 } };
    await inference.complete(routeOf(inference, 'm'), call, signal);
    const before = inference.deployments()[0]?.quota;
    expect(before).toMatchObject({ requests: { remaining: 9 }, tokens: { remaining: 900 } });
    a.script = Array.from({ length: 50 }, () => 'unsupported_parameter' as const);
    for (let count = 0; count < 50; count++) await inference.complete(routeOf(inference, 'm'), call, signal);
    expect(b.calls).toHaveLength(50);
    expect(inference.deployments()[0]?.quota).toEqual(before);
  });

  test.each([
    [['unsupported_parameter', 'upstream_error'], 'upstream_error'],
    [['upstream_error', 'unsupported_parameter'], 'upstream_error'],
  ] as const)('with %j the client hears what it can do most about: %s', async (codes, heard) => {
    const { a, b, c, inference } = setUp(model('m', ...(['a', 'b', 'c'] as const).slice(0, codes.length).map((id) => [id, 'x'] as const)));
    for (const [index, provider] of [a, b, c].entries()) provider.script = Array.from({ length: 5 }, () => codes[index] ?? 'answer');
    await expect(inference.complete(routeOf(inference, 'm'), call, signal)).rejects.toMatchObject({ code: heard });
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
