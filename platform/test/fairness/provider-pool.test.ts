/** The queue and the pool of providers together: what providers refuse is waited for in turn, and no provider is asked for more than it takes (invariant 24). */
import { setTimeout as wait } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { createInference, type ModelRoute } from '../../src/inference/deployments.ts';
import { type Completion, type Provider, type ProviderCall, UpstreamRefusal } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import { ticketOf } from './simulation.ts';

const waitMaxMs = 5_000;
const size = { inputTokens: 10, outputTokens: 10 };

type Fate = 'answer' | 'rate' | 'concurrency' | 'overloaded' | 'error';

/** Answers after a moment, or fails as it is told, and remembers what was asked of it and when. */
class WatchedProvider implements Provider {
  readonly id: string;
  readonly faults: string[] = [];
  readonly answered = new Map<string, number>();
  readonly attempts = new Map<string, number>();
  inFlight = 0;
  retryAfterMs = 5;
  fate: (call: ProviderCall) => Fate = () => 'answer';
  onCall: () => void = () => {};

  constructor(id: string) {
    this.id = id;
  }

  async complete(call: ProviderCall): Promise<Completion> {
    this.attempts.set(call.requestId, (this.attempts.get(call.requestId) ?? 0) + 1);
    this.inFlight++;
    this.onCall();
    try {
      await wait(1);
      const fate = this.fate(call);
      if (fate === 'error') throw new BulkheadError('upstream_error', 'failed');
      if (fate !== 'answer')
        throw new UpstreamRefusal(fate, { code: 'upstream_rate_limited', message: fate, options: { retryAfterMs: this.retryAfterMs } });
      this.answered.set(call.requestId, (this.answered.get(call.requestId) ?? 0) + 1);
      return { body: Buffer.from('{}'), parsed: {} };
    } finally {
      this.inFlight--;
    }
  }

  embed = this.complete.bind(this);
  stream = () => Promise.reject(new Error('not here'));
  close = async () => {};
}

function openPool(concurrency: readonly number[]) {
  const providers = concurrency.map((_, index) => new WatchedProvider(`p${index}`));
  const deployments = providers.map(({ id }, index) => ({ provider: id, model: 'x', limits: { concurrency: concurrency[index] } }));
  const model = { id: 'm', kind: 'chat' as const, contextTokens: 1_000, outputTokensMax: 1_000, deployments };
  const clock = systemClock;
  const inference = createInference({ models: [model], providers, clock, waitMaxMs, random: seededRandom(1) });
  const queue = new MemoryFairQueue({ clock, requestsPerTenantMax: 1_000, bytesMax: 1e9, waitMaxMs });
  inference.watchPools(({ poolId, permits, accountPermits: ofAll, resumesInMs = Number.POSITIVE_INFINITY }) =>
    queue.setCapacity(poolId, permits, { resumesInMs, ofAll }),
  );
  const route = inference.resolve('m', {}) as ModelRoute;
  const { signal } = new AbortController();
  const ask = async (requestId: string, tenant = 'aa') => {
    const permit = await queue.acquire({ ...ticketOf({ tenant, input: 10, output: 10 }), poolId: 'm' }, signal);
    try {
      const requeue = () => queue.requeue(permit, signal);
      await inference.complete(route, { body: {}, requestId, cacheSalt: tenant, size, requeue }, signal);
      permit.finish(size);
    } finally {
      permit.cancel();
    }
  };
  return { providers, inference, queue, ask };
}

describe('any number of requests to providers that refuse and fail', () => {
  // Planted: a slot that is not given back, one that is given back twice; sending while paused; a fourth attempt; asking again after an answer.
  it('are each answered at most once, after at most three attempts, and no provider has more than its limit or is asked while it is paused', async () => {
    const fates: readonly Fate[] = ['answer', 'answer', 'answer', 'rate', 'concurrency', 'overloaded', 'error'];
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 }),
        fc.integer(),
        async (concurrency, seed) => {
          const { providers, inference, queue, ask } = openPool(concurrency);
          const random = seededRandom(seed);
          for (const provider of providers) {
            provider.fate = () => fates[Math.floor(random.next() * fates.length)] ?? 'answer';
            provider.onCall = () => {
              const seen = inference.deployments().find(({ id }) => id === `${provider.id}/x`);
              if (seen === undefined || seen.inFlight > seen.concurrency || seen.inFlight !== provider.inFlight)
                provider.faults.push('too many');
              if (seen?.permits === 0) provider.faults.push(`asked while ${seen.state}`);
            };
          }
          const requests = Array.from({ length: 60 }, (_, index) => `r${index}`);
          const ended = await Promise.allSettled(requests.map((id, index) => ask(id, ['aa', 'bb', 'cc'][index % 3])));
          expect(providers.flatMap(({ faults }) => faults)).toEqual([]);
          for (const [index, id] of requests.entries()) {
            const answers = providers.reduce((sum, { answered }) => sum + (answered.get(id) ?? 0), 0);
            expect(answers).toBe(ended[index]?.status === 'fulfilled' ? 1 : 0);
            expect(providers.reduce((sum, { attempts }) => sum + (attempts.get(id) ?? 0), 0)).toBeLessThanOrEqual(3);
          }
          expect(inference.deployments().map(({ inFlight }) => inFlight)).toEqual(concurrency.map(() => 0));
          expect(queue.snapshot()[0]).toMatchObject({ inFlight: 0, queued: 0 });
          await inference.close();
          queue.close();
        },
      ),
      { numRuns: 15 },
    );
  });
});

describe('a provider that pauses everybody', () => {
  it('is followed by the order of the queue: who had little comes before who had much', async () => {
    const { providers, queue, inference, ask } = openPool([4]);
    const [provider] = providers as [WatchedProvider];
    let limited = 4;
    provider.retryAfterMs = 500;
    provider.fate = () => (limited-- > 0 ? 'rate' : 'answer');
    const order: string[] = [];
    const noisy = Array.from({ length: 12 }, (_, index) => ask(`noisy${index}`, 'noisy').then(() => order.push('noisy')));
    await expect.poll(() => inference.deployments()[0]?.state, { interval: 5 }).toBe('paused');
    const quiet = ask('quiet', 'quiet').then(() => order.push('quiet'));
    await Promise.all([...noisy, quiet]);
    expect(order.indexOf('quiet')).toBeLessThanOrEqual(1);
    await inference.close();
    queue.close();
  });

  it('is not asked when a queue that closes ends the wait', async () => {
    const { providers, queue, inference, ask } = openPool([1]);
    const [provider] = providers as [WatchedProvider];
    provider.fate = () => 'rate';
    provider.retryAfterMs = 2_000;
    const asked = ask('any');
    await expect.poll(() => queue.snapshot()[0]?.queued, { interval: 5 }).toBe(1);
    queue.close();
    await expect(asked).rejects.toMatchObject({ code: 'upstream_rate_limited' });
    expect(provider.attempts.get('any')).toBe(1);
    await inference.close();
  });
});
