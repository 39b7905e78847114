/** The fairness benchmark itself: known answers, so that it cannot lie unseen. Faults that were planted and seen are named at each test. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Policy, policies } from '../../bench/fairness/contestant.ts';
import { outputTokenCost, peakTokens, poolTokens, simulateEngine } from '../../bench/fairness/engine-simulation.ts';
import { atLeast, atMost } from '../../bench/fairness/gate.ts';
import type { Arrival, Outcome } from '../../bench/fairness/outcome.ts';
import { overallThroughput, paperDifference } from '../../bench/fairness/paper-metric.ts';
import { paperWorkloads, syntheticTrace } from '../../bench/fairness/paper-workloads.ts';
import {
  busyPartOf,
  differenceBound,
  largestDifference,
  maxMinShares,
  percentile,
  satisfactionOf,
  serviceOf,
  shedOf,
  utilisationOf,
} from '../../bench/fairness/service.ts';
import { pausesIn, serviceMsOf, simulateSlots } from '../../bench/fairness/slot-simulation.ts';
import { type Flow, fixedSize, lognormalSize, poissonArrivals } from '../../bench/fairness/workload.ts';

const untilMs = 120_000;
const span = { fromMs: 20_000, untilMs };
const everybody = { outputTokenCost: 2, waitMaxMs: 30_000, requestsPerMinute: 60, untilMs };

function run(policy: Policy, flows: readonly Flow[], { permits = 8, seed = 1 } = {}): readonly Outcome[] {
  return simulateSlots({ ...everybody, policy, permits, arrivals: poissonArrivals(flows, { fromMs: 0, untilMs }, seed) });
}

function startsOf(outcomes: readonly Outcome[], tenant: string): number {
  return outcomes.filter((outcome) => outcome.tenant === tenant && outcome.served !== undefined).length;
}

/** Twice and four times what eight slots can serve. */
const oneToTwo: readonly Flow[] = [
  { tenant: 'one', perSecond: 20, size: fixedSize(50, 50) },
  { tenant: 'two', perSecond: 40, size: fixedSize(50, 50) },
];
const shortAndLong: readonly Flow[] = [
  { tenant: 'short', perSecond: 20, size: fixedSize(20, 20) },
  { tenant: 'long', perSecond: 20, size: fixedSize(200, 200) },
];

describe('the policies on slots', () => {
  // Planted: the newest first.
  it('first come, first served splits an overload by arrivals, in order of arrival', () => {
    const outcomes = run('FCFS', oneToTwo);
    const service = serviceOf(outcomes, span, 2);
    expect((service.get('two') ?? 0) / (service.get('one') ?? 1)).toBeCloseTo(2, 0);
    const starts = outcomes.flatMap(({ served }) => (served === undefined ? [] : [served.startedAtMs]));
    expect(starts).toEqual(starts.toSorted((left, right) => left - right));
  });

  it.each(['WRR', 'DRR', 'VTC', 'ours'] as const)('%s splits it evenly', (policy) => {
    const service = serviceOf(run(policy, oneToTwo), span, 2);
    expect((service.get('two') ?? 0) / (service.get('one') ?? 1)).toBeCloseTo(1, 1);
  });

  // Planted: deficit round robin that counts requests; debts forgiven at the next turn.
  it('round robin by requests starts as many of each, the others serve as much', () => {
    const perRequest = run('WRR', shortAndLong);
    expect(startsOf(perRequest, 'short') / startsOf(perRequest, 'long')).toBeCloseTo(1, 1);
    for (const policy of ['DRR', 'VTC', 'ours'] as const) {
      const service = serviceOf(run(policy, shortAndLong), span, 2);
      expect((service.get('short') ?? 0) / (service.get('long') ?? 1), policy).toBeCloseTo(1, 1);
    }
  });

  // Planted: the weight left out of the quantum.
  it.each(['WRR', 'DRR', 'VTC', 'ours'] as const)('%s shares by weight', (policy) => {
    const flows = [1, 4].map((weight) => ({ tenant: `w${weight}`, weight, perSecond: 40, size: fixedSize(50, 50) }));
    const service = serviceOf(run(policy, flows), span, 2);
    expect((service.get('w4') ?? 0) / (service.get('w1') ?? 1)).toBeCloseTo(4, 0);
  });

  // Planted: counting by calendar minutes.
  it('requests a minute lets 60 of a tenant through in any minute, and refuses the others at once', () => {
    const outcomes = run('RPM', oneToTwo);
    const accepted = outcomes.flatMap(({ tenant, atMs, refused }) => (tenant === 'two' && refused === undefined ? [atMs] : []));
    for (const fromMs of accepted)
      expect(accepted.filter((atMs) => atMs >= fromMs && atMs <= fromMs + 60_000).length).toBeLessThanOrEqual(60);
    expect(accepted.length).toBeGreaterThan(115);
    for (const { refused, atMs } of outcomes) if (refused?.cause === 'requests_per_minute') expect(refused.atMs).toBe(atMs);
  });

  // Planted: starting more than there are permits; starting after the deadline.
  it.each(policies)('%s never runs more than there are slots, wastes none, and starts nothing after its deadline', (policy) => {
    const outcomes = run(policy, [
      ...oneToTwo,
      { tenant: 'varied', perSecond: 5, size: lognormalSize({ inputTokens: 100, outputTokens: 100 }, 0.8) },
    ]);
    const changes = outcomes
      .flatMap(({ served }) =>
        served === undefined
          ? []
          : [
              { atMs: served.startedAtMs, by: 1 },
              { atMs: served.endedAtMs, by: -1 },
            ],
      )
      .toSorted((left, right) => left.atMs - right.atMs || left.by - right.by);
    let running = 0;
    for (const { by } of changes) {
      running += by;
      expect(running).toBeLessThanOrEqual(8);
    }
    expect(utilisationOf(outcomes, { permits: 8, span })).toBeGreaterThan(0.9999);
    for (const { served, atMs } of outcomes) if (served !== undefined) expect(served.startedAtMs - atMs).toBeLessThanOrEqual(30_000);
  });

  // Planted: a source of randomness that no seed reaches.
  it.each(policies)('%s gives the same outcomes for the same seed, and others for another', (policy) => {
    const flows = [...oneToTwo, { tenant: 'varied', perSecond: 5, size: lognormalSize({ inputTokens: 100, outputTokens: 100 }, 0.8) }];
    expect(run(policy, flows)).toEqual(run(policy, flows));
    expect(run(policy, flows)).not.toEqual(run(policy, flows, { seed: 2 }));
  });

  // SFQ(D), Jin et al. 2004. Planted: picking the tenant with the most virtual time in the product's queue.
  it('VTC and ours keep the bound of two backlogged tenants, which first come, first served breaks', () => {
    const size = fc.tuple(fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 300 }));
    fc.assert(
      fc.property(
        size,
        size,
        fc.integer({ min: 1, max: 16 }),
        fc.constantFrom('VTC' as const, 'ours' as const),
        (one, other, permits, policy) => {
          const flows = [one, other].map(([input, output], index) => {
            const perSecond = Math.min(200, (2_000 * permits) / serviceMsOf({ inputTokens: input, outputTokens: output }));
            return { tenant: `t${index}`, perSecond, size: fixedSize(input, output) };
          });
          const worst = largestDifference(run(policy, flows, { permits }), ['t0', 't1'], { span, outputTokenCost: 2 });
          // A prediction is 256 until the first answer; the bound counts the larger of the two.
          const cost = ([input, output]: readonly [number, number]) => input + 2 * Math.max(256, output);
          expect(worst).toBeLessThanOrEqual((permits + 1) * (cost(one) + cost(other)));
        },
      ),
      { numRuns: 12 },
    );
    const facts = { permits: 8, outputTokenCost: 2 };
    const first = run('FCFS', shortAndLong);
    expect(largestDifference(first, ['short', 'long'], { span, outputTokenCost: 2 })).toBeGreaterThan(
      4 * differenceBound(first, ['short', 'long'], facts),
    );
  });

  it('a pause starts nothing', () => {
    const pauses = pausesIn({ fromMs: 0, untilMs }, 60_000, 10_000);
    expect(pauses).toEqual([
      { fromMs: 50_000, untilMs: 60_000 },
      { fromMs: 110_000, untilMs: 120_000 },
    ]);
    const arrivals = poissonArrivals(oneToTwo, { fromMs: 0, untilMs }, 1);
    const outcomes = simulateSlots({ ...everybody, policy: 'ours', permits: 8, pauses, arrivals });
    const inPause = outcomes.filter(({ served }) => served !== undefined && served.startedAtMs > 50_000 && served.startedAtMs < 60_000);
    expect(inPause).toEqual([]);
    expect(outcomes.some(({ served }) => served?.startedAtMs === 60_000)).toBe(true);
  });
});

const request = { weight: 1, inputTokens: 0, outputTokens: 100 };

/** Output evenly from the start to the end. */
function served(tenant: string, atMs: number, [startedAtMs, endedAtMs]: readonly [number, number], more: Partial<Arrival> = {}): Outcome {
  return { ...request, tenant, atMs, ...more, served: { startedAtMs, firstTokenAtMs: startedAtMs, endedAtMs } };
}

describe('the measures', () => {
  const whole = { fromMs: 0, untilMs: 10_000 };
  const measured = { span: whole, outputTokenCost: 2 };
  const waitingB = { ...request, tenant: 'b', atMs: 0 };

  // Planted: the weight left out; time counted in which only one waited; the difference at the end instead of the largest.
  it('maxD is the service of one while both waited, per weight', () => {
    const running = served('a', 0, [0, 1_000]);
    const waiting = { ...request, tenant: 'a', atMs: 0 };
    expect(largestDifference([running, waiting, waitingB], ['a', 'b'], measured)).toBeCloseTo(200);
    expect(largestDifference([{ ...running, weight: 4 }, waiting, waitingB], ['a', 'b'], measured)).toBeCloseTo(50);
    const leftAfterHalf: Outcome = { ...waitingB, refused: { cause: 'waited_too_long', atMs: 500 } };
    expect(largestDifference([running, waiting, leftAfterHalf], ['a', 'b'], measured)).toBeCloseTo(100);
    expect(largestDifference([running, waitingB], ['a', 'b'], measured)).toBe(0);
    const balanced = served('b', 0, [1_000, 2_000]);
    expect(largestDifference([running, waiting, balanced, waitingB], ['a', 'b'], measured)).toBeCloseTo(200);
  });

  it('input counts when a request starts', () => {
    const outcomes = [served('a', 0, [100, 1_100], { inputTokens: 30, outputTokens: 0 }), { ...request, tenant: 'a', atMs: 0 }, waitingB];
    expect(largestDifference(outcomes, ['a', 'b'], measured)).toBe(30);
    expect(serviceOf(outcomes, { fromMs: 101, untilMs: 10_000 }, 2).get('a')).toBe(0);
  });

  // Planted: utilisation over all time.
  it('slots count as wasted while somebody waits', () => {
    const outcomes = [served('a', 0, [0, 1_000]), { ...waitingB, refused: { cause: 'waited_too_long' as const, atMs: 500 } }];
    expect(utilisationOf(outcomes, { permits: 2, span: whole })).toBeCloseTo(0.5);
    expect(busyPartOf(outcomes, { permits: 2, span: whole })).toBeCloseTo(0.05);
    expect(utilisationOf([served('a', 0, [0, 1_000])], { permits: 2, span: whole })).toBeNaN();
    expect(utilisationOf([served('a', 0, [1_000, 2_000])], { permits: 1, span: whole, pauses: [{ fromMs: 0, untilMs: 1_000 }] })).toBeNaN();
  });

  it('what was refused is told by cause, what waits to the end by none', () => {
    const refusal = (cause: 'waited_too_long' | 'memory_full'): Outcome => ({ ...waitingB, refused: { cause, atMs: 5 } });
    const outcomes = [refusal('waited_too_long'), refusal('memory_full'), served('b', 0, [0, 1]), served('b', 0, [0, 1]), waitingB];
    expect(shedOf(outcomes, new Set(['b']), whole)).toEqual({ waited_too_long: 0.25, memory_full: 0.25 });
  });

  // Planted: plain Jain over service.
  it('satisfied demand is 1 when a light tenant gets all it asks and the others share the rest by weight', () => {
    const wants = new Map([
      ['light', { demand: 10, weight: 1 }],
      ['heavy', { demand: 100, weight: 1 }],
      ['double', { demand: 1_000, weight: 2 }],
    ]);
    expect(Object.fromEntries(maxMinShares(wants, 160))).toEqual({ light: 10, heavy: 50, double: 100 });
    const light = served('a', 0, [0, 10], { outputTokens: 10 });
    const heavy = Array.from({ length: 9 }, (_, index) => (index < 4 ? served('b', 0, [0, 10]) : waitingB));
    expect(satisfactionOf([light, ...heavy], whole, 2)).toBeCloseTo(1);
    expect(satisfactionOf([served('a', 0, [0, 10]), ...heavy.map(() => waitingB)], whole, 2)).toBeCloseTo(0.5);
  });

  it('percentiles are by nearest rank, and a figure that is missing holds no gate', () => {
    expect([percentile([1, 2, 3, 4], 0.5), percentile([1, 2, 3, 4], 0.99), percentile([1], 0.5)]).toEqual([2, 4, 1]);
    expect(percentile([], 0.5)).toBeNaN();
    expect(atMost('', Number.NaN, 1, String).holds || atLeast('', Number.NaN, 1, String).holds).toBe(false);
    expect([atMost('', 1, 1, String).holds, atMost('', 1.001, 1, String).holds, atLeast('', 0.999, 1, String).holds]).toEqual([
      true,
      false,
      false,
    ]);
  });
});

describe('the difference of the VTC paper', () => {
  // Planted: the window half as long; the largest over clients instead of the sum; refused requests counted as asked for.
  it('is what a client lags behind the most served one, in cost a second', () => {
    const ahead = served('a', 0, [0, 700_000], { inputTokens: 4_000, outputTokens: 5_000 });
    const behind = ['b', 'c'].map((tenant) => served(tenant, 0, [0, 700_000], { inputTokens: 3_000, outputTokens: 2_000 }));
    const refused: Outcome = {
      ...request,
      tenant: 'b',
      atMs: 100_000,
      outputTokens: 1_000_000,
      refused: { cause: 'requests_per_minute', atMs: 100_000 },
    };
    const found = paperDifference([ahead, ...behind, refused], 2);
    expect(found.max).toBeCloseTo(20);
    expect(found.average).toBeCloseTo(20);
    expect(found.variance).toBeCloseTo(0);
    expect(found.accumulatedMax).toBeCloseTo(10 * (571.5 - 30));
  });

  // Planted: the cap by what was asked left out.
  it('is 0 for a client that got what it asked for', () => {
    const ahead = served('a', 0, [0, 700_000], { inputTokens: 4_000, outputTokens: 5_000 });
    const content = Array.from({ length: 110 }, (_, index) => {
      const atMs = 1_000 + 6_000 * index;
      return served('b', atMs, [atMs, atMs + 6_000], { inputTokens: 12, outputTokens: 30 });
    });
    expect(paperDifference([ahead, ...content], 2).max).toBeCloseTo(0);
  });

  it('throughput counts input and output over the time to the last end', () => {
    expect(overallThroughput([served('a', 0, [0, 2_000], { inputTokens: 50 }), { ...request, tenant: 'a', atMs: 0 }])).toBe(75);
  });
});

describe('the engine of the VTC paper', () => {
  const alone = { policy: 'VTC' as const, requestsPerMinute: 20, adapterTokens: 32 };

  // Planted: the prefill's token not counted; the tokens held left out of a step.
  it('serves a lone request in a prefill and a step for each further token', () => {
    const [outcome] = simulateEngine({
      ...alone,
      arrivals: [{ tenant: 'client-0', weight: 1, atMs: 0, inputTokens: 100, outputTokens: 3 }],
    });
    const prefill = 1.078 * (53 + 20.9);
    expect(outcome?.served?.firstTokenAtMs).toBeCloseTo(prefill);
    expect(outcome?.served?.endedAtMs).toBeCloseTo(prefill + 1.078 * (2 * 20.6426 + 0.00156 * (101 + 102)));
  });

  // By hand: of two that end one step apart the first end is the peak; a short one beside a long one hardly counts.
  it('looks at the future peak of its pool', () => {
    const arrival = (inputTokens: number, outputTokens: number) => ({ tenant: 'a', weight: 1, atMs: 0, inputTokens, outputTokens });
    expect(peakTokens([], arrival(10, 5))).toBe(15);
    expect(peakTokens([{ arrival: arrival(10, 5), produced: 1 }], arrival(10, 5))).toBe(11 + 11 + 2 * 3);
    expect(peakTokens([{ arrival: arrival(10, 100), produced: 1 }], arrival(10, 2))).toBe(11 + 98);
  });

  // Planted: a request is admitted whether it fits or not; the queue's capacity left one too high.
  it('never holds more than its pool, serves everybody, and overtakes nobody', () => {
    for (const policy of ['FCFS', 'VTC', 'ours'] as const) {
      const arrivals = syntheticTrace.arrivals(7);
      const outcomes = simulateEngine({ ...alone, policy, arrivals });
      expect(outcomes.every(({ served: was }) => was !== undefined)).toBe(true);
      // Output is counted as if it came evenly, and it stops during a prefill.
      expect(Math.max(...heldTokens(outcomes))).toBeLessThanOrEqual(1.03 * poolTokens);
      for (const own of Map.groupBy(outcomes, ({ tenant }) => tenant).values()) {
        const starts = own.map((outcome) => outcome.served?.startedAtMs ?? 0);
        expect(starts).toEqual(starts.toSorted((left, right) => left - right));
      }
    }
  });

  it('gives the artifact’s figures: throughput within 3 %, FCFS twice as far apart as VTC', () => {
    const overload = paperWorkloads.find(({ name }) => name === 'overload');
    if (overload === undefined) throw new Error('there is no overload');
    const [first, vtc] = (['FCFS', 'VTC'] as const).map((policy) => simulateEngine({ ...alone, policy, arrivals: overload.arrivals(42) }));
    if (first === undefined || vtc === undefined) throw new Error('not run');
    expect(Math.abs(overallThroughput(vtc) / 893 - 1)).toBeLessThan(0.03);
    expect(Math.abs(overallThroughput(first) / 876 - 1)).toBeLessThan(0.03);
    expect(paperDifference(vtc, outputTokenCost).average).toBeLessThan(0.6 * paperDifference(first, outputTokenCost).average);
    expect(Math.abs(paperDifference(first, outputTokenCost).average / 439 - 1)).toBeLessThan(0.1);
  });

  it('has the trace’s numbers of requests and about its lengths', () => {
    const arrivals = syntheticTrace.arrivals(1);
    const counts = [...Map.groupBy(arrivals, ({ tenant }) => tenant).values()].map(({ length }) => length);
    expect([arrivals.length, counts.length, Math.max(...counts), Math.min(...counts)]).toEqual([1_500, 27, 296, 1]);
    const mean = (pick: (arrival: Arrival) => number) => arrivals.reduce((sum, arrival) => sum + pick(arrival), 0) / arrivals.length;
    expect(Math.abs(mean(({ outputTokens }) => outputTokens) / 256 - 1)).toBeLessThan(0.1);
    expect(Math.abs(mean(({ inputTokens }) => inputTokens) / 136 - 1)).toBeLessThan(0.25);
    expect(syntheticTrace.arrivals(1)).toEqual(arrivals);
    expect(Math.max(...arrivals.map(({ atMs }) => atMs))).toBeLessThanOrEqual(600_000);
  });
});

/** Tokens in the pool at each start, by what had been produced until then. */
function heldTokens(outcomes: readonly Outcome[]): readonly number[] {
  const all = outcomes.flatMap(({ served: was, inputTokens, outputTokens }) =>
    was === undefined ? [] : [{ ...was, inputTokens, outputTokens }],
  );
  return all.map(({ firstTokenAtMs: nowMs }) =>
    all
      .filter(({ firstTokenAtMs, endedAtMs }) => firstTokenAtMs <= nowMs && endedAtMs > nowMs)
      .reduce((sum, each) => {
        const part = (nowMs - each.firstTokenAtMs) / Math.max(1, each.endedAtMs - each.firstTokenAtMs);
        return sum + each.inputTokens + Math.floor(part * each.outputTokens);
      }, 0),
  );
}
