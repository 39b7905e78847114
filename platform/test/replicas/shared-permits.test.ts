/** Replicas that share a pool, in simulated time (invariants 19, 22, 23 of docs/rfd/0019-shared-permits.md). Faults that were planted and seen are named at each test. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/primitives/random.ts';
import { type Job, Simulation } from '../fairness/simulation.ts';
import { commandTimeoutMs, poolOf, type Replica, ReplicaWorld } from './replica-world.ts';

/** The largest difference of weighted service between any two of the tenants over any part of the time. */
function worstDifference(simulation: Simulation, weights: Readonly<Record<string, number>>, fromMs = 0): number {
  const tenants = Object.keys(weights);
  let worst = 0;
  for (const [index, one] of tenants.entries()) {
    for (const other of tenants.slice(index + 1)) {
      let [difference, least, most] = [0, 0, 0];
      for (const { job, cost, atMs } of simulation.served) {
        if (atMs < fromMs) continue;
        if (job.tenant === one) difference += cost / (weights[one] as number);
        else if (job.tenant === other) difference -= cost / (weights[other] as number);
        least = Math.min(least, difference);
        most = Math.max(most, difference);
      }
      worst = Math.max(worst, most - least);
    }
  }
  return worst;
}

const shapes: Readonly<Record<string, { readonly input: number; readonly output: number }>> = {
  tenant0: { input: 64, output: 64 },
  tenant1: { input: 256, output: 128 },
  tenant2: { input: 64, output: 256 },
  tenant3: { input: 512, output: 64 },
};

/** Lognormal, of mean 1. */
function sizes(seed: number): () => number {
  const random = seededRandom(seed);
  return () => Math.exp(0.5 * Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next()) - 0.125);
}

const byName = (job: Job) => Number(job.tenant.at(-1));
const settledMs = 4_000;

describe('replicas that share a pool', () => {
  // Planted: counters that stay each replica's own; charges without weights; heads that are never told.
  it('with different tenants share by weight (invariant 22)', async () => {
    const world = new ReplicaWorld({ replicas: 2, capacity: 8, entrance: byName, roundTripMs: 1 });
    const { simulation } = world;
    const untilMs = 60_000;
    const job = { input: 100, output: 50 };
    simulation.flood({ fromMs: settledMs, untilMs, depth: 30 }, () => ({ ...job, tenant: 'aa0', weight: 1 }));
    simulation.flood({ fromMs: settledMs, untilMs, depth: 30 }, () => ({ ...job, tenant: 'bb1', weight: 3 }));
    await simulation.run(untilMs);
    const service = simulation.serviceBetween(settledMs + 5_000, untilMs);
    expect((service.get('bb1') ?? 0) / (service.get('aa0') ?? 1)).toBeCloseTo(3, 1);
    // Three intervals of 100 ms after a second flood has begun the ratio holds already.
    const early = simulation.serviceBetween(settledMs + 1_000, settledMs + 4_000);
    expect((early.get('bb1') ?? 0) / (early.get('aa0') ?? 1)).toBeGreaterThan(2.4);
  });

  // Planted: telling the others what only this one cannot use; heads of a replica that cannot start anything.
  it('leave the pool to the others where one of them cannot reach the provider', async () => {
    const world = new ReplicaWorld({ replicas: 2, capacity: 8, entrance: byName, roundTripMs: 1 });
    const { simulation, replicas } = world;
    const untilMs = settledMs + 30_000;
    const job = { input: 100, output: 50 };
    for (const tenant of ['aa0', 'bb1']) simulation.flood({ fromMs: settledMs, untilMs, depth: 30 }, () => ({ ...job, tenant }));
    const [broken, healthy] = replicas as [Replica, Replica];
    let most = 0;
    simulation.at(settledMs + 10_000, () => broken.queue.setCapacity('pool', 0, { resumesInMs: 60_000, ofAll: 8 }));
    for (let atMs = settledMs + 12_000; atMs < settledMs + 20_000; atMs += 100) {
      simulation.at(atMs, () => {
        most = Math.max(most, poolOf(broken).inFlight);
        expect(poolOf(healthy).inFlight).toBeGreaterThanOrEqual(7);
      });
    }
    simulation.at(settledMs + 20_000, () => broken.queue.setCapacity('pool', 8, { ofAll: 8 }));
    await simulation.run(untilMs);
    expect(most).toBe(0);
    const service = simulation.serviceBetween(settledMs + 25_000, untilMs);
    expect((service.get('aa0') ?? 0) / (service.get('bb1') ?? 1)).toBeGreaterThan(0.8);
  });

  // Planted: a capacity that is told only when it is the replica's own.
  it('all stand still when the provider told one of them to wait', async () => {
    const world = new ReplicaWorld({ replicas: 2, capacity: 8, entrance: byName, roundTripMs: 1 });
    const { simulation, replicas } = world;
    const untilMs = settledMs + 20_000;
    for (const tenant of ['aa0', 'bb1'])
      simulation.flood({ fromMs: settledMs, untilMs, depth: 30 }, () => ({ input: 10, output: 10, tenant }));
    const [told] = replicas as [Replica];
    simulation.at(settledMs + 5_000, () => told.queue.setCapacity('pool', 0, { resumesInMs: 5_000 }));
    let running = 0;
    for (let atMs = settledMs + 7_000; atMs < settledMs + 10_000; atMs += 100) simulation.at(atMs, () => (running += world.running));
    simulation.at(settledMs + 10_000, () => told.queue.setCapacity('pool', 8));
    simulation.at(settledMs + 12_000, () => expect(world.running).toBe(8));
    await simulation.run(untilMs);
    expect(running).toBe(0);
  });

  // Planted: a permit that comes free stays where it was; whoever begins on one replica is lifted though it waits on another; nothing promised; times each replica's own.
  it('serve tenants as one queue would, also one that comes by one replica alone', async () => {
    const untilMs = settledMs + 60_000;
    // Before that each is paid back for who came first.
    const warmMs = settledMs + 15_000;
    const flood = (simulation: Simulation) => {
      const draw = sizes(7);
      for (const [tenant, { input, output }] of Object.entries(shapes)) {
        simulation.flood({ fromMs: settledMs, untilMs, depth: 80 }, () => ({
          tenant,
          input,
          predicted: output,
          output: Math.ceil(output * draw()),
        }));
      }
    };
    const exact = new Simulation({ capacity: 64 });
    flood(exact);
    await exact.run(untilMs);
    let next = 0;
    const entrance = ({ tenant }: Job) => (tenant === 'tenant0' ? 0 : next++ % 4);
    const world = new ReplicaWorld({ replicas: 4, capacity: 64, entrance, roundTripMs: 1 });
    flood(world.simulation);
    await world.simulation.run(untilMs);
    const weights = Object.fromEntries(Object.keys(shapes).map((tenant) => [tenant, 1]));
    expect(worstDifference(world.simulation, weights, warmMs)).toBeLessThan(1.5 * worstDifference(exact, weights, warmMs));
    const total = (simulation: Simulation) =>
      simulation
        .serviceBetween(settledMs, untilMs)
        .values()
        .reduce((sum, each) => sum + each, 0);
    expect(total(world.simulation)).toBeGreaterThan(0.98 * total(exact));
  });

  // Planted: times of an answer that are not taken over.
  it('hear by answers alone what others were served, when every message is lost', async () => {
    let next = 0;
    const entrance = ({ tenant }: Job) => (tenant === 'tenant0' ? 0 : next++ % 4);
    const world = new ReplicaWorld({ replicas: 4, capacity: 64, entrance, roundTripMs: 1, isLost: () => true });
    const { simulation } = world;
    const untilMs = settledMs + 60_000;
    const draw = sizes(7);
    for (const [tenant, { input, output }] of Object.entries(shapes)) {
      simulation.flood({ fromMs: settledMs, untilMs, depth: 80 }, () => ({
        tenant,
        input,
        predicted: output,
        output: Math.ceil(output * draw()),
      }));
    }
    await simulation.run(untilMs);
    const weights = Object.fromEntries(Object.keys(shapes).map((tenant) => [tenant, 1]));
    // One queue: 3,100. By each replica's own times 46,000.
    expect(worstDifference(simulation, weights, settledMs + 15_000)).toBeLessThan(8_000);
  });

  // Planted: keeping nothing for the next request; keeping everything.
  it('ask nobody while there is room: calls are the ten a second, whatever the requests', async () => {
    const world = new ReplicaWorld({ replicas: 4, capacity: 64, entrance: byName, roundTripMs: 6 });
    const { simulation } = world;
    await simulation.run(settledMs);
    const before = world.calls;
    for (let index = 0; index < 4_000; index++) {
      simulation.arrive(settledMs + 1_000 + index * 2.5, { tenant: `tenant${index % 4}`, input: 10, output: 1 + (index % 7) });
    }
    const seconds = 11;
    await simulation.run(settledMs + seconds * 1_000);
    expect(simulation.started).toHaveLength(4_000);
    expect(Math.max(...simulation.started.map(({ queueMs }) => queueMs))).toBe(0);
    expect(world.calls - before).toBeLessThan(4 * (10 * seconds + 30));
  });

  // Planted: telling every change; forgetting what was told.
  it('ask about once a request when they are saturated', async () => {
    const world = new ReplicaWorld({ replicas: 4, capacity: 16, entrance: byName, roundTripMs: 1 });
    const { simulation } = world;
    for (let index = 0; index < 4; index++) {
      simulation.flood({ fromMs: settledMs, untilMs: 30_000, depth: 20 }, () => ({ tenant: `tenant${index}`, input: 10, output: 20 }));
    }
    await simulation.run(10_000);
    const [before, started] = [world.calls, simulation.started.length];
    await simulation.run(30_000);
    const gossip = 4 * 10 * 20;
    expect((world.calls - before - gossip) / (simulation.started.length - started)).toBeLessThan(1.1);
  });

  // Planted: no message when a request waits.
  it('find a permit that is kept elsewhere within a few round trips', async () => {
    const world = new ReplicaWorld({ replicas: 4, capacity: 16, entrance: byName, roundTripMs: 2 });
    const { simulation } = world;
    for (let index = 0; index < 16; index++) simulation.arrive(settledMs, { tenant: 'tenant0', input: 10, output: 100 });
    await simulation.run(settledMs + 900);
    expect(simulation.started).toHaveLength(16);
    expect(Math.max(...simulation.started.map(({ queueMs }) => queueMs))).toBeLessThanOrEqual(10);
  });

  // Planted: batch work elsewhere not counted.
  it('leave room for people over all replicas, not on each', async () => {
    const world = new ReplicaWorld({ replicas: 2, capacity: 10, entrance: byName, roundTripMs: 1 });
    const { simulation } = world;
    let most = 0;
    for (const index of [0, 1]) {
      simulation.flood({ fromMs: settledMs + 500 * index, untilMs: 20_000, depth: 20 }, () => ({
        tenant: `tenant${index}`,
        workClass: 'batch',
        input: 100,
        output: 20,
      }));
    }
    for (let ms = settledMs + 2_000; ms < 20_000; ms += 50) simulation.at(ms, () => (most = Math.max(most, world.running)));
    await simulation.run(20_000);
    expect(most).toBe(8);
  });

  // Planted: the capacity of each replica's own setting.
  it('follow the capacity that was set last, on whichever of them, and start nothing while it is 0', async () => {
    const world = new ReplicaWorld({ replicas: 2, capacity: 8, entrance: byName, roundTripMs: 1 });
    const { simulation, replicas } = world;
    const at: Record<number, number> = {};
    for (const index of [0, 1])
      simulation.flood({ fromMs: settledMs, untilMs: 30_000, depth: 20 }, () => ({ tenant: `tenant${index}`, input: 10, output: 50 }));
    simulation.at(8_000, () => replicas[0]?.queue.setCapacity('pool', 3));
    simulation.at(12_000, () => replicas[1]?.queue.setCapacity('pool', 0));
    simulation.at(16_000, () => replicas[1]?.queue.setCapacity('pool', 12));
    simulation.at(16_000, () => replicas[0]?.queue.setCapacity('pool', 12));
    for (const ms of [7_990, 9_990, 11_990, 13_990, 15_990, 19_990]) simulation.at(ms, () => (at[ms] = world.running));
    await simulation.run(20_000);
    expect(at).toEqual({ 7990: 8, 9990: 3, 11990: 3, 13990: 0, 15990: 0, 19990: 12 });
  });
});

describe('a replica that is killed', () => {
  // Planted: leases that a waiting replica renews for all.
  it('loses its permits to the others within a lease, and its place in the line at once (invariant 19)', async () => {
    const world = new ReplicaWorld({ replicas: 3, capacity: 12, entrance: byName, roundTripMs: 1 });
    const { simulation } = world;
    for (const index of [0, 1, 2])
      simulation.flood({ fromMs: settledMs, untilMs: 40_000, depth: 20 }, () => ({ tenant: `tenant${index}`, input: 10, output: 50 }));
    let alive = 0;
    simulation.at(10_000, () => {
      expect(world.running).toBe(12);
      world.kill(0);
    });
    let soon = 0;
    // What it ran comes back with its lease; what it was granted after its end sooner.
    simulation.at(11_700, () => (soon = world.running));
    simulation.at(15_200, () => (alive = world.running));
    await simulation.run(30_000);
    expect(soon).toBeGreaterThanOrEqual(8);
    expect(alive).toBe(12);
    expect(world.store.used('pool')).toBeLessThanOrEqual(12);
    const service = simulation.serviceBetween(16_000, 30_000);
    expect((service.get('tenant1') ?? 0) / (service.get('tenant2') ?? 1)).toBeCloseTo(1, 1);
  });
});

describe('without the store', () => {
  async function outage(mode: 'down' | 'hanging' | 'late') {
    const most = { before: 0, during: 0, settled: 0, after: 0 };
    const world = new ReplicaWorld({ replicas: 4, capacity: 16, entrance: byName, roundTripMs: 1 });
    const { simulation } = world;
    // Three quarters of the permits are the first tenant's by weight.
    for (const index of [0, 1, 2, 3]) {
      const weight = index === 0 ? 9 : 1;
      simulation.flood({ fromMs: settledMs, untilMs: 40_000, depth: 40 }, () => ({
        tenant: `tenant${index}`,
        weight,
        input: 10,
        output: 50,
      }));
    }
    const note = (name: keyof typeof most) => () => (most[name] = Math.max(most[name], world.running));
    for (let ms = settledMs + 2_000; ms < 10_000; ms += 10) simulation.at(ms, note('before'));
    for (let ms = 10_000; ms < 20_000; ms += 10) simulation.at(ms, note('during'));
    for (let ms = 13_000; ms < 20_000; ms += 10) simulation.at(ms, note('settled'));
    for (let ms = 22_000; ms < 40_000; ms += 10) simulation.at(ms, note('after'));
    simulation.at(10_000, () => (world.storeMode = mode));
    const shares: number[] = [];
    simulation.at(19_000, () => shares.push(...world.replicas.map((replica) => poolOf(replica).inFlight)));
    simulation.at(20_000, () => {
      world.store.forget();
      world.storeMode = 'up';
    });
    await simulation.run(40_000);
    return { world, simulation, most, shares };
  }

  // Planted: the whole capacity on each replica; no learning after it came back empty.
  it.each(['down', 'hanging', 'late'] as const)(
    'that is %s each replica has its part, and then they share again without double use',
    async (mode) => {
      const { most, shares, simulation } = await outage(mode);
      expect(most.before).toBe(16);
      expect(shares).toEqual([4, 4, 4, 4]);
      expect(most.settled).toBe(16);
      // While permits move to where the parts are: what ran on in one place, and the parts of the others.
      expect(most.during).toBeLessThan(2 * 16);
      expect(most.after).toBe(16);
      const service = simulation.serviceBetween(26_000, 40_000);
      expect((service.get('tenant0') ?? 0) / (service.get('tenant1') ?? 1)).toBeGreaterThan(7.5);
    },
  );

  // Planted: parts taken at the second failure.
  it('for less than a second nothing moves and nothing is used twice', async () => {
    const world = new ReplicaWorld({ replicas: 4, capacity: 16, entrance: byName, roundTripMs: 1 });
    const { simulation } = world;
    let most = 0;
    for (const index of [0, 1, 2, 3]) {
      const weight = index === 0 ? 9 : 1;
      const job = { tenant: `tenant${index}`, weight, input: 10, output: 50 };
      simulation.flood({ fromMs: settledMs, untilMs: 30_000, depth: 40 }, () => job);
    }
    for (let ms = settledMs + 2_000; ms < 20_000; ms += 10) simulation.at(ms, () => (most = Math.max(most, world.running)));
    for (let ms = 8_000; ms < 18_000; ms += 2_000) {
      simulation.at(ms, () => (world.storeMode = ms % 4_000 === 0 ? 'hanging' : 'late'));
      simulation.at(ms + 700, () => (world.storeMode = 'up'));
    }
    await simulation.run(20_000);
    expect(most).toBe(16);
  });

  // Planted: whoever leaves without a permit is not unsaid, and the next permit is kept for nobody.
  it('a request that left waits for nobody any more', async () => {
    const world = new ReplicaWorld({
      replicas: 2,
      capacity: 1,
      entrance: byName,
      roundTripMs: 1,
      afterEach: ({ running, queued, simulation }) => {
        const nowMs = simulation.clock.monotonicMs();
        idleSinceMs = queued > 0 && running === 0 ? (idleSinceMs ?? nowMs) : undefined;
        if (nowMs > settledMs + 500) longestMs = Math.max(longestMs, nowMs - (idleSinceMs ?? nowMs));
      },
    });
    let idleSinceMs: number | undefined;
    let longestMs = 0;
    const { simulation } = world;
    for (let index = 0; index < 4; index++) simulation.arrive(settledMs, { tenant: 'tenant0', input: 5, output: 50 });
    simulation.arrive(settledMs + 10, { tenant: 'tenant1', input: 5, output: 50, leavesAfterMs: 250 });
    await simulation.run(settledMs + 10_000);
    expect(simulation.started).toHaveLength(4);
    expect(longestMs).toBe(0);
  });

  // Planted: a request that waits for the answer of the store.
  it('a request falls back within the time of a command', async () => {
    const world = new ReplicaWorld({ replicas: 4, capacity: 16, entrance: byName, roundTripMs: 1 });
    const { simulation } = world;
    for (let ms = settledMs; ms < settledMs + 5_000; ms += 97) simulation.arrive(ms, { tenant: `tenant${ms % 4}`, input: 10, output: 5 });
    simulation.at(settledMs + 1_000, () => (world.storeMode = 'hanging'));
    await simulation.run(settledMs + 6_000);
    expect(simulation.started).toHaveLength(52);
    expect(Math.max(...simulation.started.map(({ queueMs }) => queueMs))).toBeLessThanOrEqual(commandTimeoutMs);
  });

  it('one replica alone that is cut off uses no more than its part beside the others', async () => {
    const world = new ReplicaWorld({ replicas: 4, capacity: 16, entrance: byName, roundTripMs: 1 });
    const { simulation, replicas } = world;
    let most = 0;
    for (const index of [0, 1, 2, 3])
      simulation.flood({ fromMs: settledMs, untilMs: 30_000, depth: 40 }, () => ({ tenant: `tenant${index}`, input: 10, output: 50 }));
    simulation.at(10_000, () => Object.assign(replicas[0] as object, { isCutOff: true }));
    simulation.at(20_000, () => Object.assign(replicas[0] as object, { isCutOff: false }));
    for (let ms = 10_000; ms < 20_000; ms += 10) simulation.at(ms, () => (most = Math.max(most, world.running)));
    let after = 0;
    for (let ms = 22_000; ms < 30_000; ms += 10) simulation.at(ms, () => (after = Math.max(after, world.running)));
    await simulation.run(30_000);
    expect(most).toBeLessThanOrEqual(20);
    expect(after).toBe(16);
  });
});

const event = fc.record({
  atMs: fc.integer({ min: 0, max: 8_000 }),
  replica: fc.integer({ min: 0, max: 2 }),
  output: fc.integer({ min: 1, max: 120 }),
  count: fc.integer({ min: 1, max: 9 }),
  end: fc.constantFrom('finishes', 'finishes', 'leaves', 'fails'),
});

interface Event {
  readonly atMs: number;
  readonly replica: number;
  readonly output: number;
  readonly count: number;
  readonly end: string;
}
type History = [Event[], number, number, number | null, number];

const happens = (atMs: number, replica: number, output: number, count: number, end = 'finishes'): Event => ({
  atMs,
  replica,
  output,
  count,
  end,
});

/** Histories that have failed once. */
const keptForOneWhoLeft: History = [
  [
    happens(877, 0, 111, 4),
    happens(0, 0, 1, 1),
    happens(877, 0, 118, 2),
    happens(0, 0, 1, 1),
    happens(6_643, 1, 86, 1, 'leaves'),
    happens(876, 1, 60, 1),
  ],
  1,
  1,
  null,
  0,
];
const givenBackUnsaid: History = [
  [
    happens(201, 0, 103, 7, 'fails'),
    happens(21, 1, 1, 6),
    happens(20, 1, 27, 3),
    happens(882, 0, 1, 1),
    happens(882, 0, 1, 1),
    happens(19, 1, 111, 4, 'leaves'),
    happens(882, 0, 1, 1),
    happens(882, 0, 1, 1),
  ],
  4,
  1,
  null,
  0,
];

/** One permit takes a minute for the most that is drawn, and its holder may be killed. */
const doneMs = 120_000;

describe('whatever happens', () => {
  // Planted: a permit that is not given back when a request leaves; a grant counted by message and by answer; a capacity not held to.
  it('no permit is used twice, none is lost, and none lies idle while a request waits (invariant 23)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(event, { minLength: 5, maxLength: 60 }),
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom(0, 1, 20),
        fc.option(fc.integer({ min: 1_000, max: 8_000 })),
        fc.integer({ min: 0, max: 9 }),
        async (events, capacity, roundTripMs, killAtMs, lossDigit) => {
          let messages = 0;
          let waitingSinceMs: number | undefined;
          const world = new ReplicaWorld({
            replicas: 3,
            capacity,
            roundTripMs,
            entrance: byName,
            isLost: () => lossDigit > 0 && messages++ % 10 < lossDigit / 3,
            afterEach: ({ running, queued, simulation }) => {
              expect(running).toBeLessThanOrEqual(capacity);
              const nowMs = simulation.clock.monotonicMs();
              const isIdle = queued > 0 && running < capacity && nowMs >= settledMs && killAtMs === null;
              waitingSinceMs = isIdle ? (waitingSinceMs ?? nowMs) : undefined;
              if (isIdle) expect(nowMs - (waitingSinceMs ?? nowMs)).toBeLessThan(lossDigit > 0 ? 2_500 : 150 + 20 * roundTripMs);
            },
          });
          const { simulation } = world;
          for (const { atMs, replica, output, count, end } of events) {
            const job = {
              tenant: `tenant${replica}`,
              input: 5,
              output,
              ...(end === 'leaves' && { leavesAfterMs: output * 3 }),
              ...(end === 'fails' && { failsAfterMs: output }),
            };
            for (let index = 0; index < count; index++) simulation.arrive(settledMs + atMs, job);
          }
          if (killAtMs !== null) simulation.at(settledMs + killAtMs, () => world.kill(2));
          await simulation.run(doneMs);
          const rest = world.alive.map(poolOf);
          expect(rest.reduce((sum, { inFlight, queued }) => sum + inFlight + queued, 0)).toBe(0);
          // Everything there is can be had by one replica at once.
          for (let index = 0; index < capacity; index++) simulation.arrive(doneMs, { tenant: 'tenant0', input: 1, output: 300 });
          await simulation.run(doneMs + 2_500);
          expect(poolOf(world.replicas[0] as (typeof world.replicas)[0]).inFlight).toBe(capacity);
        },
      ),
      { numRuns: 60, examples: [keptForOneWhoLeft, givenBackUnsaid] },
    );
  });
});
