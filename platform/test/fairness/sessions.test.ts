/** Sessions inside a user: who gets how much, what makes room, and what names cost (invariants 14, 15 and 18 of the scheduler, for sessions). */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { Permit } from '../../src/scheduler/fair-queue.ts';
import { sessionsPerUserMax, usersPerTenantMax } from '../../src/scheduler/flow-places.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import { costOf, type Job, msPerCost, Simulation, ticketOf } from './simulation.ts';

const noSignal = new AbortController().signal;
/** Runs 550 ms. */
const call = { tenant: 'acme', input: 100, output: 50 };
const startsOf = (simulation: Simulation, isMeant: (job: Job) => boolean) => simulation.started.filter(({ job }) => isMeant(job));

describe('sessions of one user', () => {
  // Planted: sessions not charged at dispatch; not charged when a request ends; one flow for all sessions.
  it('share by service: the difference of two with work waiting has the bound of invariant 11', async () => {
    const size = fc.record({
      input: fc.integer({ min: 1, max: 2_000 }),
      output: fc.integer({ min: 1, max: 300 }),
      error: fc.constantFrom(0.2, 1, 4),
    });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 8 }), fc.constantFrom(0, 0.25, 1), size, size, async (capacity, theta, one, other) => {
        const simulation = new Simulation({ capacity, theta });
        const untilMs = 30_000;
        for (const [session, { input, output, error }] of [['one', one] as const, ['other', other] as const]) {
          const job = { tenant: 'acme', session, input, output, predicted: Math.ceil(output * error) };
          simulation.flood({ fromMs: 0, untilMs, depth: 2 * capacity + 2 }, () => job);
        }
        await simulation.run(untilMs);
        let [difference, least, most] = [0, 0, 0];
        for (const { job, cost } of simulation.served) {
          difference += job.session === 'one' ? cost : -cost;
          [least, most] = [Math.min(least, difference), Math.max(most, difference)];
        }
        const costMax = ({ input, output, error }: typeof one) => costOf({ input, output: Math.ceil(output * Math.max(1, error)) });
        expect(most - least).toBeLessThanOrEqual((capacity + 1) * (costMax(one) + costMax(other)));
      }),
      { numRuns: 30 },
    );
  });

  it('start in order of arrival inside each, whatever fails, leaves or is refused (invariant 18)', async () => {
    const job = fc.record({
      tenant: fc.constantFrom('aa', 'bb'),
      user: fc.constantFrom('u1', 'u2'),
      session: fc.constantFrom(undefined, 's1', 's2', 's3'),
      input: fc.integer({ min: 1, max: 500 }),
      output: fc.integer({ min: 1, max: 100 }),
    });
    const ending = fc.constantFrom({}, {}, { leavesAfterMs: 700 }, { failsAfterMs: 300 });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: 15_000 }), job, ending), { minLength: 1, maxLength: 80, size: 'max' }),
        async (capacity, arrivals) => {
          const simulation = new Simulation({
            capacity,
            waitMaxMs: 4_000,
            requestsPerTenantMax: 8,
            afterEach: ({ pool, waiting }) => {
              expect(pool.queued > 0 && pool.inFlight < pool.capacity).toBe(false);
              expect(waiting).toBe(pool.queued);
            },
          });
          for (const [atMs, size, end] of arrivals) simulation.arrive(atMs, { ...size, ...end });
          await simulation.run(60_000);
          expect(simulation.pool).toMatchObject({ inFlight: 0, queued: 0, tenants: [] });
          const lastOf = new Map<string, number>();
          for (const { job, number, queueMs } of simulation.started) {
            expect(queueMs).toBeLessThan(4_000);
            const flow = `${job.tenant} ${job.user} ${job.session}`;
            expect(number).toBeGreaterThan(lastOf.get(flow) ?? -1);
            lastOf.set(flow, number);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('leave a chat half of its user’s share beside an agent that fans out', async () => {
    const simulation = new Simulation({ capacity: 4 });
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 60 }, () => ({ ...call, session: 'agent' }));
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 6 }, () => ({ ...call, session: 'chat' }));
    await simulation.run(60_000);
    const chats = startsOf(simulation, ({ session }) => session === 'chat').length;
    expect(chats / simulation.started.length).toBeCloseTo(0.5, 1);
  });

  // Planted: a new session begins at the level's time, like any other flow.
  it('gain nothing over the rest of their user by minting ids', async () => {
    const simulation = new Simulation({ capacity: 4 });
    simulation.flood({ fromMs: 0, untilMs: 120_000, depth: 90 }, (index) => ({ ...call, session: `minted ${index}` }));
    simulation.flood({ fromMs: 0, untilMs: 120_000, depth: 8 }, () => ({ ...call, session: 'steady' }));
    simulation.flood({ fromMs: 0, untilMs: 120_000, depth: 8 }, () => call);
    await simulation.run(120_000);
    // Until then the steady one stands in the file itself, behind those that were minted before it.
    const late = simulation.started.filter(({ atMs }) => atMs > 60_000);
    const share = (isMeant: (job: Job) => boolean) => late.filter(({ job }) => isMeant(job)).length / late.length;
    expect(share(({ session }) => session === 'steady')).toBeGreaterThan(0.31);
    expect(share(({ session }) => session === undefined)).toBeGreaterThan(0.31);
    expect(share(({ session }) => session?.startsWith('minted') === true)).toBeLessThan(0.36);
  });

  // Planted: sessions in the place of users.
  it('gain nothing over other users and tenants by minting ids', async () => {
    const simulation = new Simulation({ capacity: 4 });
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 90 }, (index) => ({ ...call, user: 'mint', session: `s${index}` }));
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 8 }, () => ({ ...call, user: 'colleague' }));
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 8 }, () => ({ ...call, tenant: 'other' }));
    await simulation.run(60_000);
    const share = (isMeant: (job: Job) => boolean) => startsOf(simulation, isMeant).length / simulation.started.length;
    expect(Math.abs(share(({ tenant }) => tenant === 'other') - 0.5)).toBeLessThan(0.02);
    expect(Math.abs(share(({ user }) => user === 'colleague') - 0.25)).toBeLessThan(0.02);
  });

  // Planted: sessions that never leave the file when they are aborted.
  it('pay nothing for other new sessions that left without starting', async () => {
    const simulation = new Simulation({ capacity: 1 });
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 6 }, () => ({ ...call, session: 'steady' }));
    for (let index = 0; index < 200; index++)
      simulation.arrive(1_000 + 100 * index, { ...call, session: `left ${index}`, leavesAfterMs: 50 });
    simulation.arrive(22_000, { ...call, session: 'new' });
    await simulation.run(60_000);
    const [started] = startsOf(simulation, ({ session }) => session === 'new');
    expect(started?.queueMs).toBeLessThanOrEqual(2 * msPerCost(call) * costOf(call));
  });
});

describe('a session that comes back', () => {
  async function shareAfterIdle(idleMs: number, prepare: (simulation: Simulation, backAtMs: number) => void = () => {}): Promise<number> {
    const simulation = new Simulation({ capacity: 4, chunkTokens: 50 });
    const backAtMs = 20_000 + idleMs;
    simulation.flood({ fromMs: 0, untilMs: backAtMs + 30_000, depth: 12 }, () => ({ ...call, session: 'steady' }));
    simulation.flood({ fromMs: 0, untilMs: 10_000, depth: 12 }, () => ({ ...call, session: 'returning' }));
    prepare(simulation, backAtMs);
    simulation.flood({ fromMs: backAtMs, untilMs: backAtMs + 30_000, depth: 12 }, () => ({ ...call, session: 'returning' }));
    await simulation.run(backAtMs + 30_000);
    const starts = simulation.started.filter(({ atMs }) => atMs > backAtMs).slice(0, 60);
    expect(starts).toHaveLength(60);
    return starts.filter(({ job }) => job.session === 'returning').length;
  }

  // Planted: no lift of sessions.
  it('has the same share however long it was away (invariant 14)', async () => {
    for (const idleMs of [1_000, 10_000, 300_000]) expect(Math.abs((await shareAfterIdle(idleMs)) - 30)).toBeLessThanOrEqual(4);
  });

  it('has no credit from calls that were aborted or failed (invariant 15)', async () => {
    for (const end of [{ leavesAfterMs: 100 }, { failsAfterMs: 10 }]) {
      const share = await shareAfterIdle(60_000, (simulation, backAtMs) => {
        for (let atMs = 30_000; atMs < backAtMs - 2_000; atMs += 500) simulation.arrive(atMs, { ...call, session: 'returning', ...end });
      });
      expect(Math.abs(share - 30)).toBeLessThanOrEqual(4);
    }
  });

  // Planted: no decay.
  it('has half of its lead forgiven in a minute without a call', async () => {
    const waitAfter = async (idleMs: number) => {
      const simulation = new Simulation({ capacity: 8, chunkTokens: 50 });
      // Seven calls at once of 2,100 each: it is ahead of the other by what they were charged after they had started.
      for (let count = 0; count < 7; count++) simulation.arrive(0, { ...call, session: 'ahead', output: 500, predicted: 500 });
      simulation.at(5_100, () => simulation.queue.setCapacity('pool', 1));
      const long = { ...call, session: 'slow', input: 1, output: 1_000, predicted: 1 };
      simulation.flood({ fromMs: 1, untilMs: 400_000, depth: 3 }, () => ({ ...long, failsAfterMs: 5_000 }));
      simulation.at(5_200 + idleMs, () => {
        simulation.flood({ fromMs: simulation.clock.monotonicMs(), untilMs: 400_000, depth: 3 }, () => ({ ...call, session: 'slow' }));
      });
      simulation.arrive(5_300 + idleMs, { ...call, session: 'ahead' });
      await simulation.run(400_000);
      return startsOf(simulation, ({ session }) => session === 'ahead').at(-1)?.queueMs ?? Number.NaN;
    };
    const [soon, later] = [await waitAfter(20_000), await waitAfter(80_000)];
    expect(later / soon).toBeGreaterThan(0.4);
    expect(later / soon).toBeLessThan(0.6);
  });
});

describe('a session in the middle of an interaction', () => {
  /** How long the second call of a session waits when it comes so long after the first has ended, among new sessions that wait already. */
  async function waitOfNextCall(pauseMs: number): Promise<number> {
    const simulation = new Simulation({ capacity: 1 });
    simulation.arrive(0, { ...call, session: 'agent' });
    const endsAtMs = 550;
    // The user stays busy, so that something of it is remembered.
    simulation.flood({ fromMs: 1, untilMs: endsAtMs + pauseMs - 100, depth: 1 }, () => call);
    for (let index = 0; index < 8; index++) simulation.arrive(endsAtMs + pauseMs - 50, { ...call, session: `new ${index}` });
    simulation.arrive(endsAtMs + pauseMs, { ...call, session: 'agent' });
    await simulation.run(120_000);
    return startsOf(simulation, ({ session }) => session === 'agent')[1]?.queueMs ?? Number.NaN;
  }

  // Planted: no boost; a boost for ever; a boost for requests without a session.
  it('is the next of its user until ten seconds after its last call, and one of many from then on', async () => {
    expect(await waitOfNextCall(2_000)).toBeLessThanOrEqual(550);
    expect(await waitOfNextCall(9_999)).toBeLessThanOrEqual(550);
    expect(await waitOfNextCall(10_000)).toBeGreaterThan(4 * 550);
  });

  it('gets no more service for it: two agents in a loop and a flood share alike', async () => {
    const simulation = new Simulation({ capacity: 3 });
    for (const session of ['agent', 'sibling']) simulation.flood({ fromMs: 0, untilMs: 200_000, depth: 1 }, () => ({ ...call, session }));
    for (let index = 0; index < 3; index++)
      simulation.flood({ fromMs: 0, untilMs: 200_000, depth: 6 }, () => ({ ...call, session: 'flood' }));
    await simulation.run(200_000);
    const agent = startsOf(simulation, ({ session }) => session === 'agent').length;
    const flood = startsOf(simulation, ({ session }) => session === 'flood').length;
    expect(agent).toBeLessThanOrEqual(flood + 3);
  });

  // Planted: a place ahead that is kept as service when the request leaves, or when it starts.
  it('that comes and leaves again and again is not a unit further ahead', async () => {
    const simulation = new Simulation({ capacity: 1 });
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 4 }, () => ({ ...call, session: 'steady' }));
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 4 }, () => ({ ...call, session: 'hasty' }));
    for (let atMs = 10_000; atMs < 30_000; atMs += 25) simulation.arrive(atMs, { ...call, session: 'hasty', leavesAfterMs: 10 });
    await simulation.run(60_000);
    const hasty = startsOf(simulation, ({ session }) => session === 'hasty').length;
    expect(Math.abs(hasty / simulation.started.length - 0.5)).toBeLessThan(0.03);
  });
});

/** Settles into what happened. */
function watch(work: Promise<Permit>) {
  const seen: { permit?: Permit; error?: unknown } = {};
  work.then(
    (permit) => {
      seen.permit = permit;
    },
    (error: unknown) => {
      seen.error = error;
    },
  );
  return seen;
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('a queue that is full', () => {
  async function fullQueue() {
    const clock = new ManualClock();
    const queue = new MemoryFairQueue({ clock, requestsPerTenantMax: 4, bytesMax: 1e9, waitMaxMs: 30_000 });
    queue.setCapacity('pool', 1);
    const acquire = (job: Partial<Job>) => watch(queue.acquire(ticketOf({ tenant: 'aa', input: 10, output: 10, ...job }), noSignal));
    // A call of the agent has ended, so it is in the middle of its run.
    (await queue.acquire(ticketOf({ tenant: 'aa', input: 10, output: 10, session: 'agent' }), noSignal)).finish({
      inputTokens: 1,
      outputTokens: 1,
    });
    acquire({});
    return { queue, acquire, clock };
  }

  // Planted: the newest of all makes room; the request itself is refused.
  it('refuses what begins a session before what goes on with one', async () => {
    const { queue, acquire } = await fullQueue();
    const [agent, first, second, next] = ['agent', 'new 1', 'new 2', 'agent'].map((session) => acquire({ session }));
    const arriving = acquire({ session: 'agent' });
    await settled();
    expect(second?.error).toMatchObject({ code: 'queue_full' });
    expect([agent, first, next, arriving].map((seen) => seen?.error)).toEqual([undefined, undefined, undefined, undefined]);
    // What begins makes room for nothing of its own user, and takes none.
    const beginning = acquire({ session: 'new 3' });
    await settled();
    expect(beginning.error).toMatchObject({ code: 'queue_full' });
    queue.close();
    await settled();
  });

  it('takes from a colleague’s queue what begins there, and what goes on only when nothing else is there', async () => {
    const { queue, acquire } = await fullQueue();
    const script = ['agent', 'new 1', 'agent', 'agent'].map((session) => acquire({ session }));
    const colleague = acquire({ user: 'colleague' });
    await settled();
    expect(script.map(({ error }) => error !== undefined)).toEqual([false, true, false, false]);
    const another = acquire({ user: 'third' });
    await settled();
    expect(script.map(({ error }) => error !== undefined)).toEqual([false, true, false, true]);
    expect([colleague.error, another.error]).toEqual([undefined, undefined]);
    queue.close();
    await settled();
  });

  // Planted: a call that failed counts as one that has finished.
  it('takes a session of which nothing was delivered yet for a new one', async () => {
    const { queue, acquire } = await fullQueue();
    const failing = acquire({ tenant: 'bb', session: 'failed' });
    queue.setCapacity('pool', 2);
    await settled();
    failing.permit?.cancel();
    queue.setCapacity('pool', 1);
    for (const session of ['new 1', 'new 2', 'new 3', 'new 4']) acquire({ tenant: 'bb', session });
    const arriving = acquire({ tenant: 'bb', session: 'failed' });
    await settled();
    expect(failing.permit).toBeDefined();
    expect(arriving.error).toMatchObject({ code: 'queue_full' });
    queue.close();
    await settled();
  });

  it('takes a session that has paused for ten seconds for a new one', async () => {
    const { queue, acquire, clock } = await fullQueue();
    clock.advance(10_000);
    const waiting = ['new 1', 'new 2', 'new 3', 'new 4'].map((session) => acquire({ session }));
    const arriving = acquire({ session: 'agent' });
    await settled();
    expect(arriving.error).toMatchObject({ code: 'queue_full' });
    expect(waiting.map(({ error }) => error)).toEqual([undefined, undefined, undefined, undefined]);
    queue.close();
    await settled();
  });
});

describe('names', () => {
  function openQueue() {
    const queue = new MemoryFairQueue({ clock: new ManualClock(), requestsPerTenantMax: 100_000, bytesMax: 1e12, waitMaxMs: 1e9 });
    queue.setCapacity('pool', 1);
    const order: string[] = [];
    const acquire = (job: Partial<Job>, name: string, signal = noSignal) =>
      queue.acquire(ticketOf({ tenant: 'aa', input: 10, output: 10, ...job }), signal).then(
        (permit) => {
          order.push(name);
          permit.finish({ inputTokens: 10, outputTokens: 10 });
        },
        () => {},
      );
    return { queue, order, acquire };
  }

  // Planted: no bound; a shared place that is left while requests of the name wait in it.
  for (const [what, max, jobOf] of [
    ['users', usersPerTenantMax, (name: string) => ({ user: name })],
    ['sessions', sessionsPerUserMax, (name: string) => ({ session: name })],
  ] as const) {
    it(`of ${what} beyond ${max} share places, and each still starts in its order`, async () => {
      const { queue, order, acquire } = openQueue();
      const running = await queue.acquire(ticketOf({ tenant: 'zz', input: 10, output: 10 }), noSignal);
      const ended: Promise<void>[] = [];
      for (let index = 0; index < max + 500; index++) {
        for (let count = 0; count < 2; count++) ended.push(acquire(jobOf(`n${index}`), `n${index} ${count}`));
      }
      expect(queue.snapshot()[0]).toMatchObject({ queued: 2 * (max + 500) });
      running.finish({ inputTokens: 10, outputTokens: 10 });
      await Promise.all(ended);
      expect(order).toHaveLength(2 * (max + 500));
      const place = new Map(order.map((name, index) => [name, index]));
      for (let index = 0; index < max + 500; index++)
        expect(place.get(`n${index} 1`)).toBeGreaterThan(place.get(`n${index} 0`) ?? Number.NaN);
      expect(queue.snapshot()[0]).toMatchObject({ inFlight: 0, queued: 0, tenants: [] });
    });

    it(`of ${what} that wait in a shared place stay there when others make room`, async () => {
      const { queue, order, acquire } = openQueue();
      const running = await queue.acquire(ticketOf({ tenant: 'zz', input: 10, output: 10 }), noSignal);
      const leaving = new AbortController();
      const ended: Promise<void>[] = [];
      for (let index = 0; index < max; index++)
        ended.push(acquire(jobOf(`n${index}`), `n${index}`, index < 100 ? leaving.signal : noSignal));
      // As many in each shared place that the oldest of them is not the next to start.
      for (let index = 0; index < 200; index++) ended.push(acquire(jobOf(`late${index}`), `late${index} 0`));
      leaving.abort();
      for (let index = 0; index < 200; index++) ended.push(acquire(jobOf(`late${index}`), `late${index} 1`));
      running.finish({ inputTokens: 10, outputTokens: 10 });
      await Promise.all(ended);
      const place = new Map(order.map((name, index) => [name, index]));
      for (let index = 0; index < 200; index++)
        expect(place.get(`late${index} 1`)).toBeGreaterThan(place.get(`late${index} 0`) ?? Number.NaN);
    });
  }
});
