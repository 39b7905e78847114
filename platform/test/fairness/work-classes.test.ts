/** Work that nobody waits for: it never holds up what somebody waits for, and it is never starved. */
import { describe, expect, it } from 'vitest';
import { costOf, type Job, Simulation } from './simulation.ts';

const embedding = (tenant: string): Job => ({ tenant, workClass: 'batch', input: 16_000, output: 0 });
/** As long on a permit as an embedding call, a thirty-second of its cost. */
const chat = (tenant: string): Job => ({ tenant, input: 100, output: 100 });

describe('batch work', () => {
  // Planted: no limit to the permits of batch work.
  it('leaves permits free, so that an interactive request among it starts at once', async () => {
    const simulation = new Simulation({ capacity: 8 });
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 50 }, () => embedding('bulk'));
    for (let atMs = 1_013; atMs < 60_000; atMs += 1_500) simulation.arrive(atMs, chat('acme'));
    await simulation.run(60_000);
    const waits = simulation.started.filter(({ job }) => job.tenant === 'acme').map(({ queueMs }) => queueMs);
    expect(waits).toHaveLength(40);
    expect(Math.max(...waits)).toBe(0);
  });

  it('has the only permit of a small pool for no longer than a call', async () => {
    const simulation = new Simulation({ capacity: 1 });
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 50 }, () => embedding('bulk'));
    for (let atMs = 1_013; atMs < 60_000; atMs += 2_000) simulation.arrive(atMs, chat('acme'));
    await simulation.run(60_000);
    const waits = simulation.started.filter(({ job }) => job.tenant === 'acme').map(({ queueMs }) => queueMs);
    expect(waits).toHaveLength(30);
    // A call without output takes 50 ms of the model.
    expect(Math.max(...waits)).toBeLessThanOrEqual(50);
  });

  // Planted: a batch weight of 0.0001.
  it('gets a tenth of a pool that interactive work keeps full', async () => {
    const simulation = new Simulation({ capacity: 8 });
    simulation.flood({ fromMs: 0, untilMs: 600_000, depth: 40 }, () => chat('acme'));
    simulation.flood({ fromMs: 0, untilMs: 600_000, depth: 10 }, () => embedding('bulk'));
    await simulation.run(600_000);
    const served = (tenant: string) =>
      simulation.served.filter(({ job }) => job.tenant === tenant).reduce((sum, { cost }) => sum + cost, 0);
    const share = served('bulk') / (served('bulk') + served('acme'));
    expect(share).toBeGreaterThan(0.08);
    expect(share).toBeLessThan(0.12);
    // The largest gap between two of its calls is what nine times their cost takes.
    expect(costOf(embedding('bulk'))).toBe(16_000);
  });

  it('is shared by weight between tenants, whatever they do interactively', async () => {
    const simulation = new Simulation({ capacity: 4 });
    simulation.flood({ fromMs: 0, untilMs: 120_000, depth: 10 }, () => ({ ...embedding('light'), weight: 1 }));
    simulation.flood({ fromMs: 0, untilMs: 120_000, depth: 10 }, () => ({ ...embedding('heavy'), weight: 3 }));
    simulation.flood({ fromMs: 0, untilMs: 120_000, depth: 1 }, () => ({ ...chat('light'), weight: 1 }));
    await simulation.run(120_000);
    const calls = (tenant: string) => simulation.started.filter(({ job }) => job.tenant === tenant && job.workClass === 'batch').length;
    expect(calls('heavy') / calls('light')).toBeGreaterThan(2.8);
    expect(calls('heavy') / calls('light')).toBeLessThan(3.2);
  });

  it('takes every permit but one of each seven when nothing else is there, and never more', async () => {
    for (const [capacity, held] of [
      [1, 1],
      [2, 1],
      [3, 2],
      [20, 17],
    ] as const) {
      const simulation = new Simulation({ capacity });
      simulation.flood({ fromMs: 0, untilMs: 10_000, depth: 40 }, () => embedding('bulk'));
      await simulation.run(9_990);
      expect(simulation.pool).toMatchObject({ inFlight: held, queued: 40 - held });
    }
  });
});
