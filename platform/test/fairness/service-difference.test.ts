/**
 * Who gets how much (invariants 11, 12, 13 and 16 of the scheduler). Faults that were planted and seen are named at each property.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/primitives/random.ts';
import { costOf, type Job, msPerCost, Simulation } from './simulation.ts';

const theta = fc.constantFrom(0, 0.25, 0.5, 1);
const shape = fc.record({
  weight: fc.constantFrom(1, 2, 4, 0.5),
  inputMax: fc.integer({ min: 1, max: 2_000 }),
  outputMax: fc.integer({ min: 1, max: 300 }),
  /** The prediction is wrong by up to this factor, either way. */
  predictionError: fc.constantFrom(1, 2, 8),
  sizes: fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })),
});
type Shape = typeof shape extends fc.Arbitrary<infer Value> ? Value : never;

function jobsOf(tenant: string, { weight, inputMax, outputMax, predictionError, sizes }: Shape): () => Job {
  const draw = () => sizes.next().value;
  return () => {
    const output = 1 + Math.floor(draw() * (outputMax - 1));
    const factor = predictionError ** (2 * draw() - 1);
    return { tenant, weight, input: 1 + Math.floor(draw() * (inputMax - 1)), output, predicted: Math.ceil(output * factor) };
  };
}

interface Served {
  readonly tenant?: string;
  readonly user?: string;
  readonly weight: number;
}

/** The largest difference of weighted service over any part of the time in which both were backlogged. */
function worstDifference(simulation: Simulation, one: Served, other: Served): number {
  let difference = 0;
  let least = 0;
  let most = 0;
  const isOf = (job: Job, side: Served) => (side.tenant ?? job.tenant) === job.tenant && (side.user ?? job.user) === job.user;
  for (const { job, cost } of simulation.served) {
    if (isOf(job, one)) difference += cost / one.weight;
    else if (isOf(job, other)) difference -= cost / other.weight;
    least = Math.min(least, difference);
    most = Math.max(most, difference);
  }
  return most - least;
}

const costMaxOf = ({ inputMax, outputMax, predictionError }: Shape) => costOf({ input: inputMax, output: outputMax * predictionError });

describe('two tenants with work waiting', () => {
  // Planted: charging at the end only what was predicted; charging without the weight; picking the tenant with the most virtual time; first come first served.
  it('differ in weighted service by no more than (N + 1) requests of each, whatever their shapes, weights and predictions (invariant 11)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 8 }), theta, shape, shape, async (capacity, part, f, g) => {
        const simulation = new Simulation({ capacity, theta: part });
        const untilMs = 30_000;
        simulation.flood({ fromMs: 0, untilMs, depth: 2 * capacity + 2 }, jobsOf('ff', f));
        simulation.flood({ fromMs: 0, untilMs, depth: 2 * capacity + 2 }, jobsOf('gg', g));
        await simulation.run(untilMs);
        const bound = (capacity + 1) * (costMaxOf(f) / f.weight + costMaxOf(g) / g.weight);
        const worst = worstDifference(simulation, { tenant: 'ff', weight: f.weight }, { tenant: 'gg', weight: g.weight });
        expect(worst).toBeLessThanOrEqual(bound);
      }),
      { numRuns: 40 },
    );
  });

  // Planted: the weight of the first request for ever; dividing by the square root of the weight.
  it('and any number of others share by weight within a hundredth (invariant 16)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(1, 2, 3, 4, 8), { minLength: 2, maxLength: 4 }), theta, async (weights, part) => {
        const simulation = new Simulation({ capacity: 4, theta: part, chunkTokens: 40 });
        const untilMs = 2_000_000;
        for (const [index, weight] of weights.entries()) {
          simulation.flood({ fromMs: 0, untilMs, depth: 10 }, () => ({ tenant: `t${index}`, weight, input: 100, output: 100 }));
        }
        await simulation.run(untilMs);
        const service = simulation.serviceBetween(0, untilMs);
        const total = [...service.values()].reduce((sum, cost) => sum + cost, 0);
        const weightTotal = weights.reduce((sum, weight) => sum + weight, 0);
        for (const [index, weight] of weights.entries()) {
          expect(Math.abs((service.get(`t${index}`) ?? 0) / total - weight / weightTotal)).toBeLessThan(0.01);
        }
      }),
      { numRuns: 5 },
    );
  });

  // Planted: a weight's square root; the prediction never replaced by what was used.
  it('stay within a hundredth of their weights from a thousand requests on, whatever the sizes and predictions (invariant 16)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(1, 2, 4, 0.5), { minLength: 2, maxLength: 3 }),
        theta,
        fc.nat(),
        async (weightsOf, part, seed) => {
          const random = seededRandom(seed);
          const upTo = (max: number) => 1 + Math.floor(random.next() * max);
          const simulation = new Simulation({ capacity: 2, theta: part, chunkTokens: 200 });
          const untilMs = 2_000_000;
          for (const [index, weight] of weightsOf.entries()) {
            const next = () => ({ tenant: `t${index}`, weight, input: upTo(1_000), output: upTo(100), predicted: upTo(300) });
            simulation.flood({ fromMs: 0, untilMs, depth: 6 }, next);
          }
          await simulation.run(untilMs);
          const weights = weightsOf.reduce((sum, weight) => sum + weight, 0);
          const costMax = costOf({ input: 1_000, output: 100 });
          const service = weightsOf.map(() => 0);
          let total = 0;
          let worst = 0;
          for (const { job, cost } of simulation.served) {
            const tenant = Number(job.tenant.slice(1));
            service[tenant] = (service[tenant] ?? 0) + cost;
            total += cost;
            if (total < 1_000 * costMax) continue;
            for (const [index, weight] of weightsOf.entries())
              worst = Math.max(worst, Math.abs((service[index] ?? 0) / total - weight / weights));
          }
          expect(total).toBeGreaterThan(1_000 * costMax);
          expect(worst).toBeLessThan(0.01);
        },
      ),
      { numRuns: 4 },
    );
  });

  // Planted: one level only (users not told apart).
  it('share inside a tenant as well: a user’s script leaves a colleague half', async () => {
    const simulation = new Simulation({ capacity: 4 });
    const job = { tenant: 'acme', input: 100, output: 50 };
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 90 }, () => ({ ...job, user: 'script' }));
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 8 }, () => ({ ...job, user: 'colleague' }));
    await simulation.run(60_000);
    const colleague = simulation.started.filter((start) => start.job.user === 'colleague').length;
    expect(colleague / simulation.started.length).toBeCloseTo(0.5, 1);
  });

  // Planted: users not charged at dispatch; users not charged when a request ends.
  it('share by service between users too: their difference has the bound of invariant 11', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 8 }), theta, shape, shape, async (capacity, part, f, g) => {
        const simulation = new Simulation({ capacity, theta: part });
        const untilMs = 30_000;
        const ofUser = (user: string, next: () => Job) => () => ({ ...next(), user, weight: f.weight });
        simulation.flood({ fromMs: 0, untilMs, depth: 2 * capacity + 2 }, ofUser('ff', jobsOf('acme', f)));
        simulation.flood({ fromMs: 0, untilMs, depth: 2 * capacity + 2 }, ofUser('gg', jobsOf('acme', g)));
        await simulation.run(untilMs);
        const worst = worstDifference(simulation, { user: 'ff', weight: 1 }, { user: 'gg', weight: 1 });
        expect(worst).toBeLessThanOrEqual((capacity + 1) * (costMaxOf(f) + costMaxOf(g)));
      }),
      { numRuns: 40 },
    );
  });

  it('gain nothing by inventing users', async () => {
    const simulation = new Simulation({ capacity: 4 });
    const job = { input: 100, output: 50 };
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 90 }, (index) => ({ ...job, tenant: 'many', user: `u${index}` }));
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 8 }, () => ({ ...job, tenant: 'one' }));
    await simulation.run(60_000);
    const one = simulation.started.filter((start) => start.job.tenant === 'one').length;
    expect(one / simulation.started.length).toBeCloseTo(0.5, 1);
  });
});

/** A request with one token of output runs this long in the simulation. */
const serviceMs = 60;

describe('a tenant among floods', () => {
  // Planted: a newcomer begins at the highest virtual time of all instead of the level's.
  it('starts next when a permit comes free, though 1,000 others have work waiting (invariant 12)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 50 }), async (capacity, step) => {
        const simulation = new Simulation({ capacity });
        for (let index = 0; index < 1_000; index++) {
          // All sizes differ, so that after the first round nobody is anybody's equal.
          const input = 1 + ((index * 617) % 1_000) * step;
          for (let count = 0; count < 4; count++) simulation.arrive(0, { tenant: `flood${index}`, input, output: 1 });
        }
        // All 1,000 begin equal; the round in which each starts once takes this long. Then they differ by what they were charged.
        const roundMs = (1_000 / capacity) * serviceMs;
        simulation.arrive(1.5 * roundMs, { tenant: 'victim', input: 50, output: 1 });
        simulation.arrive(2.5 * roundMs, { tenant: 'victim', input: 50, output: 1 });
        await simulation.run(3 * roundMs);
        const waits = simulation.started.filter((start) => start.job.tenant === 'victim').map((start) => start.queueMs);
        expect(waits).toHaveLength(2);
        expect(Math.max(...waits)).toBeLessThanOrEqual(serviceMs);
      }),
      { numRuns: 5 },
    );
  });

  // Planted: turns not renewed at dispatch.
  it('takes turns with its equals', async () => {
    const simulation = new Simulation({ capacity: 1 });
    const free = { input: 0, output: 0 };
    for (const tenant of ['first', 'aa', 'aa', 'aa', 'bb', 'bb', 'bb']) simulation.arrive(0, { tenant, ...free });
    await simulation.run(1_000);
    expect(simulation.started.map((start) => start.job.tenant)).toEqual(['first', 'aa', 'bb', 'aa', 'bb', 'aa', 'bb']);
  });

  // Planted: picking the tenant with the most virtual time; weights that grow with the queue.
  it('does not wait longer because another tenant queues ten times as much (invariant 13)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 8 }),
        shape,
        fc.array(fc.integer({ min: 0, max: 20_000 }), { minLength: 5, maxLength: 30 }),
        async (capacity, heavy, arrivals) => {
          const light = { tenant: 'bb', weight: 1, input: 100, output: 20 };
          const untilMs = 60_000;
          const startsOf = async (depth: number) => {
            const simulation = new Simulation({ capacity });
            simulation.flood({ fromMs: 0, untilMs, depth }, fixedJobs(heavy));
            for (const atMs of arrivals) simulation.arrive(atMs, light);
            await simulation.run(untilMs);
            return simulation.started.filter((start) => start.job.tenant === 'bb').map((start) => start.atMs);
          };
          const few = await startsOf(2 * capacity + 2);
          const many = await startsOf(20 * capacity + 20);
          // The bound of invariant 11, once for each run, as the time in which both are served so much.
          const difference = 2 * (capacity + 1) * (costOf(fixedJobs(heavy)()) / heavy.weight + costOf(light));
          const boundMs = (difference * (heavy.weight * msPerCost(fixedJobs(heavy)()) + msPerCost(light))) / capacity;
          for (const [index, atMs] of few.entries()) {
            if (atMs + boundMs < untilMs) expect((many[index] ?? untilMs) - atMs).toBeLessThanOrEqual(boundMs);
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  it('waits about as long as one running request while another queues a thousand times more', async () => {
    const simulation = new Simulation({ capacity: 32, requestsPerTenantMax: 5_000 });
    const job = { input: 200, output: 100 };
    simulation.flood({ fromMs: 0, untilMs: 60_000, depth: 3_000 }, () => ({ ...job, tenant: 'noisy' }));
    for (let atMs = 500; atMs < 60_000; atMs += 2_000) simulation.arrive(atMs, { ...job, tenant: 'quiet' });
    await simulation.run(70_000);
    const waits = simulation.started.filter((start) => start.job.tenant === 'quiet').map((start) => start.queueMs);
    expect(waits).toHaveLength(30);
    // A request runs 1,050 ms, so with 32 permits in steady rotation one comes free well before that.
    expect(Math.max(...waits)).toBeLessThanOrEqual(1_050);
  });
});

/** The same size for every job of a shape, so that two runs with different numbers of jobs can be compared. */
function fixedJobs({ weight, inputMax, outputMax }: Shape): () => Job {
  return () => ({ tenant: 'aa', weight, input: inputMax, output: outputMax });
}
