/** What the queue says about itself: shares entitled and received, waits and for whom, refusals by cause, and nothing of what is long ago. */
import { describe, expect, it } from 'vitest';
import type { PoolFairness, TenantFairness } from '../../src/scheduler/fairness-record.ts';
import { type Job, Simulation, tenantNamed } from './simulation.ts';

const job = (tenant: string, changes: Partial<Job> = {}): Job => ({ tenant, input: 100, output: 100, ...changes });

async function runSampled(simulation: Simulation, untilMs: number): Promise<void> {
  for (let atMs = 0; atMs <= untilMs; atMs += 250) simulation.at(atMs, () => simulation.record.sample());
  await simulation.run(untilMs);
}

function reportOf(simulation: Simulation): PoolFairness {
  const [pool] = simulation.record.report();
  if (pool === undefined) throw new Error('there is no pool');
  return pool;
}

function tenantOf(pool: PoolFairness, tenant: string): TenantFairness {
  const found = pool.tenants.find(({ tenantId }) => tenantId === tenantNamed(tenant));
  if (found === undefined) throw new Error(`${tenant} is not in the report`);
  return found;
}

describe('the record of the queue', () => {
  it('shows shares as the weights entitle, and that they were received', async () => {
    const simulation = new Simulation({ capacity: 16 });
    for (const [tenant, weight] of [
      ['one', 1],
      ['two', 2],
      ['four', 4],
    ] as const) {
      simulation.flood({ fromMs: 0, untilMs: 90_000, depth: 40 }, () => job(tenant, { weight }));
    }
    await runSampled(simulation, 80_000);
    const pool = reportOf(simulation);
    expect(pool).toMatchObject({ capacity: 16, inFlight: 16, utilisation: 1 });
    expect(pool.evenness).toBeGreaterThan(0.999);
    for (const [tenant, share] of [
      ['one', 1 / 7],
      ['two', 2 / 7],
      ['four', 4 / 7],
    ] as const) {
      const { entitledShare, receivedShare } = tenantOf(pool, tenant);
      expect(entitledShare).toBeCloseTo(share, 3);
      expect(Math.abs(receivedShare - share)).toBeLessThan(0.02);
    }
    expect(pool.tenants.map(({ tenantId }) => tenantId)).toEqual(['four', 'two', 'one'].map(tenantNamed));
  });

  it('says for whom a tenant waited', async () => {
    const simulation = new Simulation({ capacity: 4 });
    simulation.flood({ fromMs: 0, untilMs: 40_000, depth: 60 }, () => job('noisy'));
    for (let atMs = 1_000; atMs < 40_000; atMs += 2_000) simulation.arrive(atMs, job('quiet', { output: 10 }));
    await runSampled(simulation, 40_000);
    const pool = reportOf(simulation);
    const quiet = tenantOf(pool, 'quiet');
    expect(quiet.startedRequests).toBe(20);
    expect(quiet.waitP99Ms).toBeLessThan(1_200);
    expect(quiet.waitedFor[0]?.tenantId).toBe(tenantNamed('noisy'));
    // The noisy one waits for itself.
    const noisy = tenantOf(pool, 'noisy');
    expect(noisy.waitedFor[0]).toMatchObject({ tenantId: tenantNamed('noisy') });
    expect(noisy.waitedFor[0]?.ms ?? 0).toBeGreaterThan(100 * (quiet.waitedFor[0]?.ms ?? 0));
  });

  // Planted: attributing a wait to each of them whole.
  it('attributes a wait to those who held the permits, by how many each held', async () => {
    const simulation = new Simulation({ capacity: 8 });
    for (const [tenant, weight] of [
      ['heavy', 3],
      ['light', 1],
    ] as const) {
      simulation.flood({ fromMs: 0, untilMs: 50_000, depth: 40 }, () => job(tenant, { weight }));
    }
    for (let atMs = 1_000; atMs < 50_000; atMs += 500) simulation.arrive(atMs, job('quiet', { output: 10 }));
    await runSampled(simulation, 50_000);
    const [first, second] = tenantOf(reportOf(simulation), 'quiet').waitedFor;
    expect([first?.tenantId, second?.tenantId]).toEqual(['heavy', 'light'].map(tenantNamed));
    const times = (first?.ms ?? 0) / (second?.ms ?? 1);
    expect(times).toBeGreaterThan(2);
    expect(times).toBeLessThan(4);
  });

  it('counts what was refused by its cause, at the one who was refused', async () => {
    const simulation = new Simulation({ capacity: 1, requestsPerTenantMax: 3, waitMaxMs: 5_000 });
    for (let count = 0; count < 6; count++) simulation.arrive(0, job('full', { output: 2_000 }));
    simulation.arrive(1, job('late', { output: 10 }));
    await runSampled(simulation, 10_000);
    simulation.queue.sweep();
    const pool = reportOf(simulation);
    expect(tenantOf(pool, 'full').shed).toEqual({ tenant_queue_full: 2, waited_too_long: 3 });
    expect(tenantOf(pool, 'late').shed).toEqual({ waited_too_long: 1 });
  });

  it('has nothing to say of a pool that was never saturated, and forgets what is a minute ago', async () => {
    const simulation = new Simulation({ capacity: 8 });
    simulation.arrive(0, job('alone', { weight: 4 }));
    await runSampled(simulation, 10_000);
    expect(reportOf(simulation)).toMatchObject({ utilisation: undefined, evenness: undefined });
    expect(tenantOf(reportOf(simulation), 'alone')).toMatchObject({
      weight: 4,
      entitledShare: undefined,
      receivedShare: 1,
      waitP99Ms: 0,
      servedCost: 500,
    });
    await runSampled(simulation, 90_000);
    expect(reportOf(simulation).tenants).toEqual([]);
  });

  it('counts service to the token, whatever was predicted and however it was cut', async () => {
    const simulation = new Simulation({ capacity: 2, chunkTokens: 7 });
    for (let index = 0; index < 30; index++) simulation.arrive(index * 10, job('acme', { input: index, output: 3 * index, predicted: 50 }));
    simulation.arrive(400, job('acme', { failsAfterMs: 5 }));
    await runSampled(simulation, 50_000);
    const total = Array.from({ length: 30 }, (_, index) => index + 4 * 3 * index).reduce((sum, cost) => sum + cost, 0);
    expect(tenantOf(reportOf(simulation), 'acme').servedCost).toBeCloseTo(total, 3);
  });

  // Planted: keeping waits for as long as nothing newer pushes them out.
  it('forgets waits of a minute ago while its tenant goes on', async () => {
    const simulation = new Simulation({ capacity: 1 });
    for (let count = 0; count < 20; count++) simulation.arrive(0, job('acme'));
    for (let atMs = 30_000; atMs < 110_000; atMs += 2_000) simulation.arrive(atMs, job('acme', { output: 10 }));
    await runSampled(simulation, 40_000);
    expect(tenantOf(reportOf(simulation), 'acme').waitP99Ms).toBeGreaterThan(15_000);
    await runSampled(simulation, 110_000);
    expect(tenantOf(reportOf(simulation), 'acme').waitP99Ms).toBe(0);
  });

  // Planted: a flow that goes on writing to a record that was forgotten; two flows of a tenant that write to two.
  it('counts a request that ran for longer than the window, and both classes of its tenant as one', async () => {
    const simulation = new Simulation({ capacity: 8, chunkTokens: 20_000 });
    simulation.arrive(0, job('acme', { output: 10_000, predicted: 1 }));
    simulation.arrive(0, job('acme', { output: 9_990, predicted: 1, workClass: 'batch' }));
    await runSampled(simulation, 95_000);
    expect(reportOf(simulation).tenants).toMatchObject([{ inFlight: 2, servedCost: 0 }]);
    simulation.arrive(96_000, job('acme', { output: 1, workClass: 'batch' }));
    await runSampled(simulation, 101_000);
    expect(reportOf(simulation).tenants).toHaveLength(1);
    // Input and theta's part of the prediction were charged a minute ago.
    expect(tenantOf(reportOf(simulation), 'acme').servedCost).toBeCloseTo(4 * 19_990 - 2 + 104, 3);
  });
});
