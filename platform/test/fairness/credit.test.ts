/**
 * Nobody saves up share, and nobody pays for what was not delivered (invariants 14, 15 and 17 of the scheduler).
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../src/primitives/clock.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import { costOf, type Job, Simulation, tenantNamed, ticketOf } from './simulation.ts';

const noSignal = new AbortController().signal;
const theta = fc.double({ min: 0, max: 1, noNaN: true });
const tokens = fc.integer({ min: 1, max: 5_000 });

function openQueue(options: { readonly capacity: number; readonly theta?: number }) {
  const queue = new MemoryFairQueue({
    clock: new ManualClock(),
    requestsPerTenantMax: 100,
    bytesMax: 1e9,
    waitMaxMs: 30_000,
    ...(options.theta !== undefined && { theta: options.theta }),
  });
  queue.setCapacity('pool', options.capacity);
  const timeOf = (tenant: string) => {
    const flow = queue.snapshot()[0]?.tenants.find((entry) => entry.tenantId === tenantNamed(tenant));
    if (flow === undefined) throw new Error(`${tenant} is not known`);
    return flow.virtualTime;
  };
  return { queue, timeOf };
}

/** How many of the first requests started after `fromMs` are the tenant's. */
function shareOf(simulation: Simulation, tenant: string, fromMs: number, count: number): number {
  const starts = simulation.started.filter((start) => start.atMs > fromMs).slice(0, count);
  expect(starts).toHaveLength(count);
  return starts.filter((start) => start.job.tenant === tenant).length;
}

describe('a tenant that comes back', () => {
  const job = { input: 100, output: 50 };

  async function shareAfterIdle(idleMs: number, prepare: (simulation: Simulation, backAtMs: number) => void): Promise<number> {
    const simulation = new Simulation({ capacity: 4, chunkTokens: 50 });
    const backAtMs = 20_000 + idleMs;
    simulation.flood({ fromMs: 0, untilMs: backAtMs + 30_000, depth: 12 }, () => ({ ...job, tenant: 'steady' }));
    simulation.flood({ fromMs: 0, untilMs: 10_000, depth: 12 }, () => ({ ...job, tenant: 'returning' }));
    prepare(simulation, backAtMs);
    simulation.flood({ fromMs: backAtMs, untilMs: backAtMs + 30_000, depth: 12 }, () => ({ ...job, tenant: 'returning' }));
    await simulation.run(backAtMs + 30_000);
    return shareOf(simulation, 'returning', backAtMs, 60);
  }

  // Planted: no lift; lift only when nothing is running either (a slow stream then saves up share).
  it('has the same share however long it was away (invariant 14)', async () => {
    const afterSecond = await shareAfterIdle(1_000, () => {});
    for (const idleMs of [10_000, 300_000]) expect(Math.abs((await shareAfterIdle(idleMs, () => {})) - afterSecond)).toBeLessThanOrEqual(1);
    expect(Math.abs(afterSecond - 30)).toBeLessThanOrEqual(4);
  });

  it('saves nothing up behind one slow request that was open all the time', async () => {
    const share = await shareAfterIdle(300_000, (simulation, backAtMs) => {
      // Runs from before the pause until after it, and produces nothing.
      simulation.arrive(15_000, { ...job, tenant: 'returning', failsAfterMs: backAtMs + 20_000 });
    });
    expect(Math.abs(share - 30)).toBeLessThanOrEqual(4);
  });

  // Planted: no floor under a refund.
  it('gets at most two requests’ charge back as a head start, however many were undone at once', async () => {
    const simulation = new Simulation({ capacity: 40, chunkTokens: 50 });
    const untilMs = 200_000;
    const failAtMs = 120_000;
    for (let count = 0; count < 30; count++) {
      simulation.arrive(0, { tenant: 'hung', input: 100, output: 1, predicted: 4_000, failsAfterMs: failAtMs });
    }
    for (const tenant of ['hung', 'steady']) simulation.flood({ fromMs: 1, untilMs, depth: 60 }, () => ({ ...job, tenant }));
    await simulation.run(untilMs);
    // 30 undone charges are worth 410 requests of this size, two are worth 27.
    const headStart = (2 * (100 + 0.25 * 4 * 4_000)) / costOf(job);
    expect(shareOf(simulation, 'hung', failAtMs, 200)).toBeLessThanOrEqual((200 + headStart) / 2 + 15);
  });

  // Planted: charging on arrival and refunding on refusal without the clamp; forgetting to charge a request again after an abort.
  it('has no credit from requests that were refused, aborted or failed upstream (invariant 15)', async () => {
    const plain = await shareAfterIdle(60_000, () => {});
    const afterAborts = await shareAfterIdle(60_000, (simulation, backAtMs) => {
      for (let atMs = 30_000; atMs < backAtMs; atMs += 500) {
        simulation.arrive(atMs, { ...job, tenant: 'returning', leavesAfterMs: 100 });
      }
    });
    const afterFailures = await shareAfterIdle(60_000, (simulation, backAtMs) => {
      for (let atMs = 30_000; atMs < backAtMs - 2_000; atMs += 500) {
        simulation.arrive(atMs, { ...job, tenant: 'returning', failsAfterMs: 10 });
      }
    });
    expect(Math.abs(afterAborts - plain)).toBeLessThanOrEqual(4);
    expect(Math.abs(afterFailures - plain)).toBeLessThanOrEqual(4);
  });

  // Planted: charging less, or more, for each refusal.
  it('has neither credit nor debt from requests that were shed (invariant 15)', async () => {
    const simulation = new Simulation({ capacity: 4, requestsPerTenantMax: 8, chunkTokens: 50 });
    const untilMs = 120_000;
    simulation.flood({ fromMs: 0, untilMs, depth: 12 }, () => ({ ...job, tenant: 'steady' }));
    simulation.flood({ fromMs: 0, untilMs, depth: 12 }, () => ({ ...job, tenant: 'returning' }));
    for (let atMs = 100; atMs < 60_000; atMs += 50) simulation.arrive(atMs, { ...job, tenant: 'returning' });
    await simulation.run(untilMs);
    expect(simulation.refused.length).toBeGreaterThan(500);
    expect(Math.abs(shareOf(simulation, 'returning', 61_000, 60) - 30)).toBeLessThanOrEqual(2);
    expect(Math.abs(shareOf(simulation, 'returning', 0, 400) - 200)).toBeLessThanOrEqual(6);
  });
});

describe('a charge', () => {
  // Planted: undoing without what was streamed; undoing in floating point; undoing half; ending twice; charging a report after the end.
  it('that is undone restores the virtual time exactly (invariant 15)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ input: tokens, output: tokens, predicted: tokens, weight: fc.constantFrom(0.3, 1, 3, 7, 11) }), {
          minLength: 2,
          maxLength: 30,
        }),
        theta,
        async (sizes, part) => {
          const { queue, timeOf } = openQueue({ capacity: 1_000, theta: part });
          await queue.acquire(ticketOf({ tenant: 'aa', input: 1, output: 1 }), noSignal);
          for (const [index, size] of sizes.entries()) {
            const job: Job = { tenant: 'aa', ...size };
            const before = timeOf('aa');
            const permit = await queue.acquire(ticketOf(job), noSignal);
            permit.reportOutput(size.output);
            expect(timeOf('aa')).toBeGreaterThan(before);
            if (index % 2 === 0) {
              permit.cancel();
              permit.cancel();
              permit.finish({ inputTokens: 1e6, outputTokens: 1e6 });
              permit.reportOutput(1e6);
              expect(timeOf('aa')).toBe(before);
            } else permit.finish({ inputTokens: size.input, outputTokens: size.output });
          }
          expect(queue.snapshot()[0]?.inFlight).toBe(1);
        },
      ),
    );
  });

  // Planted: charging the part inside the prediction twice; charging a chunk twice; a final cost without theta's part; keeping the expected input;
  // charging cached input in full.
  it('adds up to what was used, for any theta, prediction and chunks (invariant 17)', async () => {
    await fc.assert(
      fc.asyncProperty(
        theta,
        fc.record({ input: tokens, output: tokens, predicted: tokens, weight: fc.constantFrom(0.3, 1, 3, 7, 11) }),
        fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 20 }),
        fc.record({ input: tokens, cachedPart: fc.double({ min: 0, max: 1, noNaN: true }) }),
        async (part, size, chunks, real) => {
          const { queue, timeOf } = openQueue({ capacity: 10, theta: part });
          await queue.acquire(ticketOf({ tenant: 'aa', weight: size.weight, input: 0, output: 0 }), noSignal);
          const before = timeOf('aa');
          const permit = await queue.acquire(ticketOf({ tenant: 'aa', ...size }), noSignal);
          const units = await unitsPerCost();
          const chargedCost = () => ((timeOf('aa') - before) / units) * size.weight;
          let produced = 0;
          for (const chunk of chunks) {
            permit.reportOutput(chunk);
            produced += chunk;
            // Less than the tokens of one step are not charged yet; nothing beyond the prediction is charged before it is produced.
            expect(chargedCost()).toBeGreaterThan(costOf({ input: size.input, output: produced - 32 }) - 0.01);
            expect(chargedCost()).toBeLessThan(costOf({ input: size.input, output: Math.max(produced, size.predicted) }) + 0.01);
          }
          const cachedInputTokens = Math.floor(real.input * real.cachedPart);
          permit.finish({ inputTokens: real.input, cachedInputTokens, outputTokens: size.output });
          const cost = costOf({ input: real.input, output: size.output }) - 0.9 * cachedInputTokens;
          const expected = (cost / size.weight) * units;
          expect(Math.abs(timeOf('aa') - before - expected)).toBeLessThanOrEqual(0.5);
        },
      ),
    );
  });

  it('of absurd or unreadable counts neither stops the pool’s clock nor leaks the permit', async () => {
    for (const count of [Number.NaN, Number.POSITIVE_INFINITY, -5, 1e300]) {
      const { queue, timeOf } = openQueue({ capacity: 2 });
      await queue.acquire(ticketOf({ tenant: 'aa', input: 1, output: 1 }), noSignal);
      const permit = await queue.acquire(ticketOf({ tenant: 'aa', input: 1, output: 1 }), noSignal);
      permit.reportOutput(count);
      permit.finish({ inputTokens: count, outputTokens: count });
      expect(Number.isSafeInteger(timeOf('aa'))).toBe(true);
      expect(queue.snapshot()[0]?.inFlight).toBe(1);
    }
  });
});

/** Units of virtual time per cost, read off a request of weight 1. */
async function unitsPerCost(): Promise<number> {
  const { queue, timeOf } = openQueue({ capacity: 2 });
  await queue.acquire(ticketOf({ tenant: 'aa', input: 0, output: 0 }), noSignal);
  const before = timeOf('aa');
  await queue.acquire(ticketOf({ tenant: 'aa', input: 1_000, output: 0 }), noSignal);
  return (timeOf('aa') - before) / 1_000;
}
