/**
 * Nobody waits while a permit is free, and nothing waits beyond the bounds (invariants 10 and 18 of the scheduler).
 */
import { getEventListeners } from 'node:events';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { BulkheadError } from '../../src/errors/bulkhead-error.ts';
import { ManualClock, systemClock } from '../../src/primitives/clock.ts';
import type { Permit, Ticket } from '../../src/scheduler/fair-queue.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import type { FairQueueOptions } from '../../src/scheduler/weighted-fair-queue.ts';
import { type Job, Simulation, ticketOf } from './simulation.ts';

const job = fc.record({
  tenant: fc.constantFrom('aa', 'bb', 'cc'),
  user: fc.constantFrom('u1', 'u2'),
  weight: fc.constantFrom(1, 3),
  input: fc.integer({ min: 1, max: 500 }),
  output: fc.integer({ min: 1, max: 100 }),
  predicted: fc.integer({ min: 0, max: 300 }),
  bytes: fc.integer({ min: 0, max: 3_000 }),
});
const ending = fc.oneof(
  { weight: 3, arbitrary: fc.constant({}) },
  fc.record({ leavesAfterMs: fc.integer({ min: 0, max: 3_000 }) }),
  fc.record({ failsAfterMs: fc.integer({ min: 0, max: 3_000 }) }),
);
const history = fc.array(fc.tuple(fc.integer({ min: 0, max: 20_000 }), job, ending), { minLength: 1, maxLength: 80, size: 'max' });
const capacities = fc.array(fc.tuple(fc.integer({ min: 0, max: 20_000 }), fc.integer({ min: 0, max: 6 })), { maxLength: 5 });

function openQueue(options: Partial<FairQueueOptions> = {}, permits = 1) {
  const clock = new ManualClock();
  const queue = new MemoryFairQueue({ clock, requestsPerTenantMax: 100, bytesMax: 1e9, waitMaxMs: 30_000, ...options });
  queue.setCapacity('pool', permits);
  return { clock, queue };
}

const ticket = (changes: Partial<Job> = {}): Ticket => ticketOf({ tenant: 'aa', input: 10, output: 10, ...changes });
const noSignal = new AbortController().signal;

/** Settles into what happened, so that a test can go on while it waits. */
function watch(work: Promise<Permit>) {
  const seen: { permit?: Permit; error?: unknown } = {};
  const done = work.then(
    (permit) => {
      seen.permit = permit;
    },
    (error: unknown) => {
      seen.error = error;
    },
  );
  return Object.assign(seen, { done });
}

async function refusal(work: Promise<unknown>): Promise<BulkheadError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(BulkheadError);
  return error as BulkheadError;
}

describe('any history of arrivals, aborts, failures and changes of capacity', () => {
  // Planted: not dispatching after a cancel, after an abort, after a larger capacity; dispatching one instead of all.
  it('never leaves a permit free while somebody waits, and never gives more permits than there are (invariant 10)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), history, capacities, async (capacity, arrivals, changes) => {
        let largest = capacity;
        const simulation = new Simulation({
          capacity,
          waitMaxMs: 4_000,
          requestsPerTenantMax: 10,
          bytesMax: 20_000,
          afterEach: ({ pool }) => {
            expect(pool.queued > 0 && pool.inFlight < pool.capacity).toBe(false);
            expect(pool.inFlight).toBeLessThanOrEqual(largest);
          },
        });
        for (const [atMs, size, end] of arrivals) simulation.arrive(atMs, { ...size, ...end });
        for (const [atMs, permits] of changes) {
          largest = Math.max(largest, permits);
          simulation.at(atMs, () => simulation.queue.setCapacity('pool', permits));
        }
        await simulation.run(40_000);
        simulation.queue.setCapacity('pool', 100);
        await simulation.run(80_000);
        expect(simulation.pool).toMatchObject({ inFlight: 0, queued: 0, tenants: [] });
        expect(simulation.waiting).toBe(0);
      }),
      { numRuns: 150 },
    );
  });

  // Planted: checking deadlines only in the timer; taking the newest request of a user; counting bytes once for two tenants.
  it('starts nothing after its deadline, keeps each user’s order and stays inside its bounds (invariant 18)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), history, async (capacity, arrivals) => {
        const bytesMax = 8_000;
        const requestsPerTenantMax = 5;
        const waitMaxMs = 2_000;
        const simulation = new Simulation({
          capacity,
          waitMaxMs,
          requestsPerTenantMax,
          bytesMax,
          afterEach: ({ pool, waiting, waitingBytes }) => {
            expect(waiting).toBe(pool.queued);
            expect(waitingBytes).toBeLessThanOrEqual(bytesMax);
            for (const tenant of pool.tenants) expect(tenant.queued).toBeLessThanOrEqual(requestsPerTenantMax);
            expect(pool.tenants.reduce((sum, tenant) => sum + tenant.queued, 0)).toBe(pool.queued);
          },
        });
        for (const [atMs, size, end] of arrivals) simulation.arrive(atMs, { ...size, ...end });
        await simulation.run(60_000);
        const lastOf = new Map<string, number>();
        for (const start of simulation.started) {
          expect(start.queueMs).toBeLessThan(waitMaxMs);
          expect(start.queueMs).toBeCloseTo(start.atMs - start.arrivedAtMs, 6);
          const flow = `${start.job.tenant} ${start.job.user}`;
          expect(start.number).toBeGreaterThan(lastOf.get(flow) ?? -1);
          lastOf.set(flow, start.number);
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('a queue with bounds', () => {
  it('holds n requests of a tenant and refuses the next, with a reason and a time', async () => {
    const { queue } = openQueue({ requestsPerTenantMax: 3 });
    const waiting = Array.from({ length: 4 }, () => watch(queue.acquire(ticket(), noSignal)));
    const error = await refusal(queue.acquire(ticket(), noSignal));
    expect(error).toMatchObject({ code: 'queue_full', details: { limit: 'tenant.queued', used: 3, limit_value: 3 } });
    expect(error.retryAfterMs).toBeGreaterThan(0);
    expect(queue.snapshot()[0]?.queued).toBe(3);
    const other = watch(queue.acquire(ticket({ tenant: 'bb' }), noSignal));
    expect(queue.snapshot()[0]?.queued).toBe(4);
    queue.close();
    await Promise.all([...waiting, other].map(({ done }) => done));
  });

  it('makes room for a colleague by refusing the newest of the user with the most', async () => {
    const { queue } = openQueue({ requestsPerTenantMax: 3 });
    await queue.acquire(ticket(), noSignal);
    const script = Array.from({ length: 3 }, () => watch(queue.acquire(ticket({ user: 'script' }), noSignal)));
    const colleague = watch(queue.acquire(ticket({ user: 'colleague' }), noSignal));
    await script[2]?.done;
    expect(script[2]?.error).toMatchObject({ code: 'queue_full' });
    expect(script.slice(0, 2).map(({ error }) => error)).toEqual([undefined, undefined]);
    expect(colleague.error).toBeUndefined();
    // A second one of the colleague would only turn the tables.
    expect((await refusal(queue.acquire(ticket({ user: 'colleague' }), noSignal))).code).toBe('queue_full');
    queue.close();
  });

  it('holds n bytes over all pools; beyond that the tenant with the longest queue for its weight makes room', async () => {
    const { queue } = openQueue({ bytesMax: 10_000 });
    queue.setCapacity('other', 0);
    await queue.acquire(ticket(), noSignal);
    const heavyTicket = { ...ticket({ tenant: 'heavy', bytes: 1_000 }), poolId: 'other' };
    const heavy = Array.from({ length: 4 }, () => watch(queue.acquire(heavyTicket, noSignal)));
    const large = watch(queue.acquire(ticket({ tenant: 'large', weight: 8, bytes: 6_000 }), noSignal));
    const light = watch(queue.acquire(ticket({ tenant: 'light', bytes: 1_000 }), noSignal));
    await heavy[3]?.done;
    expect(heavy[3]?.error).toMatchObject({ code: 'queue_full', details: { limit: 'queue.bytes', limit_value: 10_000 } });
    expect([...heavy.slice(0, 3), large, light].map(({ error }) => error)).toEqual([undefined, undefined, undefined, undefined, undefined]);
    expect((await refusal(queue.acquire(heavyTicket, noSignal))).code).toBe('queue_full');
    queue.close();
  });

  it('refuses what alone is larger than the queue, and disturbs nobody for it', async () => {
    const { queue } = openQueue({ bytesMax: 1_000 });
    await queue.acquire(ticket(), noSignal);
    const small = watch(queue.acquire(ticket({ tenant: 'bb', bytes: 1_000 }), noSignal));
    expect((await refusal(queue.acquire(ticket({ bytes: 1_001 }), noSignal))).code).toBe('queue_full');
    // Planted: refusing it only after all with more bytes for their weight have made room.
    expect((await refusal(queue.acquire(ticket({ bytes: 1_001, weight: 1_000 }), noSignal))).code).toBe('queue_full');
    expect(small.error).toBeUndefined();
    queue.close();
  });

  it('refuses early what would wait longer than the deadline, by the speed it has seen', async () => {
    const simulation = new Simulation({ capacity: 2, waitMaxMs: 10_000 });
    simulation.flood({ fromMs: 0, untilMs: 120_000, depth: 200 }, () => ({ tenant: 'flood', input: 100, output: 100 }));
    simulation.arrive(60_000, { tenant: 'light', input: 100, output: 100 });
    simulation.arrive(80_000, { tenant: 'flood', user: 'colleague', input: 100, output: 100 });
    await simulation.run(140_000);
    const early = simulation.refused.filter(
      ({ error }) => error instanceof BulkheadError && error.details?.['estimated_wait_ms'] !== undefined,
    );
    expect(early.length).toBeGreaterThan(0);
    for (const { error } of early)
      expect(error).toMatchObject({ code: 'queue_timeout', details: { limit: 'queue.wait', limit_value: 10_000 } });
    // Neither a light tenant nor a colleague is refused for the queue of another, and their own wait is short.
    const light = simulation.started.filter(({ job: { tenant, user } }) => tenant === 'light' || user === 'colleague');
    expect(light).toHaveLength(2);
    for (const { queueMs } of light) expect(queueMs).toBeLessThan(2_400);
    // Refusing early costs no capacity: both permits were busy all the time.
    expect(simulation.started.filter((start) => start.atMs < 120_000).length).toBeGreaterThan((2 * 120_000) / 1_100);
  });

  // Planted: a speed that is lost when the capacity is 0; time without permits counting as time they were slow.
  it('refuses nobody early because the pool had no permits for a while', async () => {
    const simulation = new Simulation({ capacity: 2, waitMaxMs: 25_000 });
    // 20 requests wait, one starts every 525 ms: half the deadline.
    simulation.flood({ fromMs: 0, untilMs: 100_000, depth: 22 }, () => ({ tenant: 'aa', input: 100, output: 100 }));
    for (const fromMs of [20_000, 50_000]) {
      simulation.at(fromMs, () => simulation.queue.setCapacity('pool', 0));
      simulation.at(fromMs + 10_000, () => simulation.queue.setCapacity('pool', 2));
    }
    await simulation.run(150_000);
    expect(simulation.refused).toEqual([]);
  });

  // Planted: measuring the speed by what was charged, where a failed request counts as nothing done.
  it('refuses nobody early because requests fail fast or their prediction is wrong', async () => {
    const simulation = new Simulation({ capacity: 2, waitMaxMs: 25_000 });
    const job = { tenant: 'aa', input: 100, output: 100, predicted: 800 };
    simulation.flood({ fromMs: 0, untilMs: 40_000, depth: 22 }, () => job);
    simulation.flood({ fromMs: 40_000, untilMs: 60_000, depth: 22 }, () => ({ ...job, failsAfterMs: 200 }));
    await simulation.run(100_000);
    expect(simulation.refused).toEqual([]);
  });

  it('tells the caller within the wait, by its own timer', async () => {
    const { queue } = openQueue({ clock: systemClock, waitMaxMs: 20 });
    const permit = await queue.acquire(ticket(), noSignal);
    expect((await refusal(queue.acquire(ticket(), noSignal))).code).toBe('queue_timeout');
    expect((await refusal(queue.acquire(ticket(), noSignal))).code).toBe('queue_timeout');
    permit.finish({ inputTokens: 1, outputTokens: 1 });
    expect(queue.snapshot()[0]).toMatchObject({ inFlight: 0, queued: 0 });
  });

  it('refuses nobody early because answers are long and come whole', async () => {
    const simulation = new Simulation({ capacity: 1, waitMaxMs: 45_000, chunkTokens: 2_000 });
    const job = { tenant: 'aa', input: 100, output: 1_000 };
    for (const atMs of [0, 2_000, 4_000, 6_000]) simulation.arrive(atMs, job);
    for (let atMs = 15_000; atMs < 200_000; atMs += 10_100) simulation.arrive(atMs, job);
    await simulation.run(300_000);
    expect(simulation.refused).toEqual([]);
  });

  // Planted: a timer that rings once.
  it('tells each caller at its own deadline, with one timer for all', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const { clock, queue } = openQueue();
      await queue.acquire(ticket(), noSignal);
      const callers: ReturnType<typeof watch>[] = [];
      const pass = async (ms: number) => {
        clock.advance(ms);
        await vi.advanceTimersByTimeAsync(ms);
      };
      for (let count = 0; count < 3; count++) {
        callers.push(watch(queue.acquire(ticket(), noSignal)));
        await pass(1_000);
      }
      expect(vi.getTimerCount()).toBe(1);
      await pass(26_999);
      for (let refused = 0; refused < 3; refused++) {
        expect(callers.filter(({ error }) => error !== undefined)).toHaveLength(refused);
        await pass(refused === 0 ? 1 : 1_000);
      }
      expect(callers.filter(({ error }) => error !== undefined)).toHaveLength(3);
    } finally {
      vi.useRealTimers();
    }
  });

  // Planted: a tenant's backlog that never falls.
  it('estimates by what waits now, not by what has passed', async () => {
    const simulation = new Simulation({ capacity: 1, waitMaxMs: 60_000 });
    const job = { tenant: 'aa', input: 100, output: 100 };
    // Teaches the speed, one request a second.
    simulation.flood({ fromMs: 0, untilMs: 200_000, depth: 3 }, () => job);
    for (let count = 0; count < 11; count++) simulation.arrive(195_000, { ...job, user: 'many' });
    for (let index = 0; index < 10; index++) simulation.arrive(195_000, { ...job, user: `u${index}` });
    simulation.arrive(195_001, { ...job, user: 'many' });
    await simulation.run(300_000);
    expect(simulation.refused).toEqual([]);
  });

  // Planted: keeping the weight of tenants that left.
  it('estimates without those that have left', async () => {
    const simulation = new Simulation({ capacity: 1, waitMaxMs: 30_000 });
    const job = { tenant: 'aa', input: 100, output: 100 };
    simulation.flood({ fromMs: 0, untilMs: 100_000, depth: 8 }, () => job);
    for (let index = 0; index < 500; index++)
      simulation.arrive(40_000 + 100 * index, { ...job, tenant: `left${index}`, leavesAfterMs: 50 });
    await simulation.run(150_000);
    expect(simulation.refused.filter(({ job: { tenant } }) => tenant === 'aa')).toEqual([]);
  });

  // Planted: a timer that keeps the process alive.
  it('keeps no process alive for those that wait', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    const { queue } = openQueue();
    await queue.acquire(ticket(), noSignal);
    const before = timers();
    const waiting = watch(queue.acquire(ticket(), noSignal));
    expect(timers()).toBe(before);
    queue.close();
    await waiting.done;
  });

  it('starts at one millisecond before the deadline and not at it', async () => {
    for (const [waitedMs, code] of [
      [29_999, undefined],
      [30_000, 'queue_timeout'],
    ] as const) {
      const { clock, queue } = openQueue();
      const running = await queue.acquire(ticket(), noSignal);
      const waiting = watch(queue.acquire(ticket(), noSignal));
      clock.advance(waitedMs);
      running.finish({ inputTokens: 1, outputTokens: 1 });
      await waiting.done;
      expect((waiting.error as BulkheadError | undefined)?.code).toBe(code);
      expect(waiting.permit?.queueMs).toBe(code === undefined ? 29_999 : undefined);
    }
  });
});

describe('a caller', () => {
  it('that leaves gets its own reason, and its place is free', async () => {
    const { queue } = openQueue();
    const running = await queue.acquire(ticket(), noSignal);
    const leaving = new AbortController();
    const first = watch(queue.acquire(ticket({ tenant: 'bb' }), leaving.signal));
    const second = watch(queue.acquire(ticket({ tenant: 'bb' }), noSignal));
    leaving.abort(new Error('closed the tab'));
    await first.done;
    expect(first.error).toEqual(new Error('closed the tab'));
    expect(queue.snapshot()[0]?.queued).toBe(1);
    running.finish({ inputTokens: 1, outputTokens: 1 });
    await second.done;
    expect(second.permit).toBeDefined();
  });

  it('that has left before it asks takes nothing', async () => {
    const { queue } = openQueue();
    await expect(queue.acquire(ticket(), AbortSignal.abort(new Error('gone')))).rejects.toThrow('gone');
    expect(queue.snapshot()[0]).toMatchObject({ inFlight: 0, queued: 0 });
  });

  it('leaves no listener on its signal, granted or refused', async () => {
    const { queue, clock } = openQueue();
    const { signal } = new AbortController();
    const running = await queue.acquire(ticket(), signal);
    const granted = watch(queue.acquire(ticket(), signal));
    const refused = watch(queue.acquire(ticket({ tenant: 'bb', input: 90_000 }), signal));
    running.finish({ inputTokens: 1, outputTokens: 1 });
    await Promise.race([granted.done, refused.done]);
    clock.advance(40_000);
    queue.sweep();
    await Promise.all([granted.done, refused.done]);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  it('is told when the queue closes; what runs may finish', async () => {
    const { queue } = openQueue();
    const running = await queue.acquire(ticket(), noSignal);
    const waiting = watch(queue.acquire(ticket(), noSignal));
    queue.close();
    await waiting.done;
    expect(waiting.error).toMatchObject({ code: 'shutting_down' });
    expect((await refusal(queue.acquire(ticket(), noSignal))).code).toBe('shutting_down');
    running.finish({ inputTokens: 1, outputTokens: 1 });
    expect(queue.snapshot()[0]?.inFlight).toBe(0);
  });

  it('of a pool that was never given a capacity is refused at once', async () => {
    const { queue } = openQueue();
    expect((await refusal(queue.acquire({ ...ticket(), poolId: 'unknown' }, noSignal))).code).toBe('capacity_unavailable');
    expect(queue.snapshot()).toHaveLength(1);
  });

  it('that ends its permit twice returns one slot', async () => {
    const { queue } = openQueue({}, 2);
    const [first] = await Promise.all([queue.acquire(ticket(), noSignal), queue.acquire(ticket(), noSignal)]);
    for (let count = 0; count < 3; count++) first.finish({ inputTokens: 1, outputTokens: 1 });
    first.cancel();
    expect(queue.snapshot()[0]?.inFlight).toBe(1);
  });
});

describe('capacity', () => {
  it('that grows starts as many as there are new permits; that shrinks takes effect as permits return', async () => {
    const { queue } = openQueue();
    const first = await queue.acquire(ticket(), noSignal);
    const waiting = Array.from({ length: 4 }, (_, index) => watch(queue.acquire(ticket({ tenant: `t${index}` }), noSignal)));
    queue.setCapacity('pool', 3);
    expect(queue.snapshot()[0]).toMatchObject({ inFlight: 3, queued: 2 });
    queue.setCapacity('pool', 1);
    first.finish({ inputTokens: 1, outputTokens: 1 });
    expect(queue.snapshot()[0]).toMatchObject({ inFlight: 2, queued: 2 });
    await waiting[0]?.done;
    waiting[0]?.permit?.cancel();
    expect(queue.snapshot()[0]).toMatchObject({ inFlight: 1, queued: 2 });
    queue.close();
  });
});

describe('memory', () => {
  it('holds nothing for tenants that were refused, left or have finished', async () => {
    const { queue } = openQueue({ bytesMax: 5_000 });
    await queue.acquire(ticket({ tenant: 'stays' }), noSignal);
    const kept = watch(queue.acquire(ticket({ tenant: 'stays', bytes: 4_900 }), noSignal));
    for (let index = 0; index < 50; index++) await refusal(queue.acquire(ticket({ tenant: `refused${index}`, bytes: 6_000 }), noSignal));
    for (let index = 0; index < 50; index++) {
      const leaving = new AbortController();
      const left = watch(queue.acquire(ticket({ tenant: `left${index}`, bytes: 10 }), leaving.signal));
      leaving.abort();
      await left.done;
    }
    expect(queue.snapshot()[0]?.tenants.map(({ tenantId }) => tenantId)).toEqual(['stays']);
    queue.close();
    await kept.done;
  });

  it('is bounded for tenants that have finished and owe', async () => {
    const { queue } = openQueue({}, 2);
    await queue.acquire(ticket({ tenant: 'stays' }), noSignal);
    for (let index = 0; index < 25_000; index++) {
      const permit = await queue.acquire(ticket({ tenant: `t${index}` }), noSignal);
      permit.finish({ inputTokens: 1_000, outputTokens: 1_000 });
    }
    expect(queue.snapshot()[0]?.tenants.length).toBeLessThanOrEqual(10_001);
  });
});
