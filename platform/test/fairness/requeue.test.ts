/** What could not be sent goes back to where it was: its charge undone, its place and its time limit kept (invariants 15, 18 and 24 of the scheduler). */
import { getEventListeners } from 'node:events';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { Permit, Ticket } from '../../src/scheduler/fair-queue.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import { type Job, ticketOf } from './simulation.ts';

const { signal } = new AbortController();
const ticket = (changes: Partial<Job> = {}): Ticket => ticketOf({ tenant: 'aa', input: 10, output: 10, ...changes });

function openQueue(permits: number) {
  const clock = new ManualClock();
  const queue = new MemoryFairQueue({ clock, requestsPerTenantMax: 100, bytesMax: 1e9, waitMaxMs: 30_000 });
  queue.setCapacity('pool', permits);
  const order: string[] = [];
  const ask = (name: string, changes: Partial<Job> = {}) =>
    queue.acquire(ticket(changes), signal).then((permit) => {
      order.push(name);
      return permit;
    });
  return { clock, queue, order, ask, pool: () => queue.snapshot()[0] };
}

describe('a permit that goes back into the queue', () => {
  it('comes before later requests of its user and before tenants that were behind it', async () => {
    const { clock, queue, order, ask } = openQueue(1);
    const first = await ask('first');
    clock.advance(10);
    const others = [ask('second'), ask('other tenant', { tenant: 'bb' })];
    queue.setCapacity('pool', 0, { resumesInMs: 1_000 });
    const again = queue.requeue(first, signal).then(() => order.push('first again'));
    clock.advance(1_000);
    queue.setCapacity('pool', 1);
    await again;
    expect(order).toEqual(['first', 'first again']);
    first.finish({ inputTokens: 10, outputTokens: 10 });
    (await others[1])?.finish({ inputTokens: 10, outputTokens: 10 });
    expect(order).toEqual(['first', 'first again', 'other tenant']);
    (await others[0])?.cancel();
  });

  it('keeps its order among others that go back', async () => {
    const { clock, queue, order, ask } = openQueue(3);
    const permits: Permit[] = [];
    for (const name of ['one', 'two', 'three']) {
      permits.push(await ask(name));
      clock.advance(1);
    }
    queue.setCapacity('pool', 0);
    order.length = 0;
    const names = new Map(permits.map((permit, index) => [permit, ['one', 'two', 'three'][index] ?? '']));
    const again = [1, 2, 0].map((index) => {
      const permit = permits[index] as Permit;
      return queue.requeue(permit, signal).then(() => order.push(names.get(permit) ?? ''));
    });
    queue.setCapacity('pool', 3);
    await Promise.all(again);
    expect(order).toEqual(['one', 'two', 'three']);
  });

  it('gives its slot away at once when somebody else may run', async () => {
    const { queue, order, ask } = openQueue(1);
    const first = await ask('first', { input: 1_000 });
    const light = ask('light', { tenant: 'bb' });
    const again = queue.requeue(first, signal);
    await again;
    expect(order).toEqual(['first']);
    first.cancel();
    (await light).cancel();
    expect(order).toEqual(['first', 'light']);
  });

  it('is refused when its time from its arrival is over', async () => {
    const { clock, queue, ask, pool } = openQueue(1);
    const permit = await ask('late');
    clock.advance(10_000);
    const later = ask('later', { tenant: 'bb' });
    clock.advance(19_000);
    queue.setCapacity('pool', 0, { resumesInMs: 500 });
    const again = queue.requeue(permit, signal);
    clock.advance(1_000);
    queue.sweep();
    await expect(again).rejects.toMatchObject({ code: 'capacity_unavailable' });
    permit.finish({ inputTokens: 1, outputTokens: 1 });
    expect(pool()).toMatchObject({ inFlight: 0, queued: 1 });
    queue.setCapacity('pool', 1);
    (await later).cancel();
    expect(pool()).toMatchObject({ inFlight: 0, queued: 0, tenants: [] });
  });

  it('leaves nothing behind when its caller goes, before or after', async () => {
    const { queue, ask, pool } = openQueue(1);
    const leaving = new AbortController();
    const permit = await ask('leaves');
    queue.setCapacity('pool', 0);
    const again = queue.requeue(permit, leaving.signal);
    leaving.abort(new Error('gone'));
    await expect(again).rejects.toThrow('gone');
    expect(getEventListeners(leaving.signal, 'abort')).toHaveLength(0);
    queue.setCapacity('pool', 1);
    const second = await ask('second');
    await expect(queue.requeue(second, leaving.signal)).rejects.toThrow('gone');
    expect(pool()).toMatchObject({ inFlight: 0, queued: 0, tenants: [] });
  });

  it('is refused by a queue that has closed', async () => {
    const { queue, ask, pool } = openQueue(1);
    const permit = await ask('running');
    queue.setCapacity('pool', 0);
    queue.close();
    await expect(queue.requeue(permit, signal)).rejects.toMatchObject({ code: 'shutting_down' });
    expect(pool()).toMatchObject({ inFlight: 0, queued: 0 });
  });

  it('keeps its tag although others have moved on', async () => {
    const { queue, ask, pool } = openQueue(10);
    const permit = await ask('early', { input: 100 });
    for (const name of ['one', 'two']) await ask(name, { tenant: 'bb', input: 100 });
    const before = pool()?.tenants;
    await queue.requeue(permit, signal);
    expect(pool()?.tenants).toEqual(before);
  });

  // Planted: lifting what comes back; leaving its charge; counting it as running.
  it('leaves every tenant charged as if it had never run (invariant 15)', async () => {
    const moves = fc.array(
      fc.record({ tenant: fc.constantFrom('aa', 'bb', 'cc'), input: fc.integer({ min: 1, max: 500 }), goesBack: fc.nat(3) }),
      {
        minLength: 1,
        maxLength: 30,
      },
    );
    await fc.assert(
      fc.asyncProperty(moves, async (jobs) => {
        const charges: unknown[] = [];
        for (const goesBack of [false, true]) {
          const { queue, ask, pool } = openQueue(100);
          const held: Permit[] = [];
          for (const job of jobs) {
            const permit = await ask('any', job);
            held.push(permit);
            if (goesBack) for (let time = 0; time < job.goesBack; time++) await queue.requeue(permit, signal);
          }
          charges.push(pool()?.tenants.map(({ tenantId, virtualTime, inFlight }) => [tenantId, virtualTime, inFlight]));
          for (const permit of held) permit.cancel();
          expect(pool()).toMatchObject({ inFlight: 0, queued: 0, tenants: [] });
        }
        expect(charges[1]).toEqual(charges[0]);
      }),
      { numRuns: 100 },
    );
  });
});

describe('a pool without permits', () => {
  it('refuses at once what cannot wait for it, and says when it goes on', async () => {
    const { queue, ask } = openQueue(0);
    queue.setCapacity('pool', 0, { resumesInMs: 45_000 });
    await expect(ask('any')).rejects.toMatchObject({ code: 'capacity_unavailable', rule: { status: 503 } });
    const refused = await ask('any').catch((error: { readonly retryAfterMs: number }) => error.retryAfterMs);
    expect(refused).toBeGreaterThan(35_000);
    queue.setCapacity('pool', 0, { resumesInMs: Number.POSITIVE_INFINITY });
    await expect(ask('any')).rejects.toMatchObject({ code: 'capacity_unavailable' });
  });

  it('lets requests wait when it goes on in time', async () => {
    const { clock, queue, order, ask } = openQueue(0);
    queue.setCapacity('pool', 0, { resumesInMs: 20_000 });
    const waiting = ask('patient');
    clock.advance(20_000);
    queue.setCapacity('pool', 1);
    await waiting;
    expect(order).toEqual(['patient']);
  });

  it('tells those whose time is over that it was not their share', async () => {
    const { clock, queue, ask } = openQueue(0);
    queue.setCapacity('pool', 0, { resumesInMs: 29_000 });
    const waiting = ask('patient');
    clock.advance(30_000);
    queue.sweep();
    await expect(waiting).rejects.toMatchObject({ code: 'capacity_unavailable' });
  });
});
