/**
 * The workloads of the VTC paper (section 6; parameters of `fair_bench/exp_suite.py`, generators of `fair_bench/trace.py`), drawn from our own seed. The real
 * trace is not ours to ship: `synthetic trace` has its clients' numbers of requests and its lengths' statistics, and arrivals of our own.
 */
import { seededRandom } from '../../src/primitives/random.ts';
import type { Arrival } from './outcome.ts';
import { normal } from './workload.ts';

export interface PaperWorkload {
  readonly name: string;
  readonly arrivals: (seed: number) => readonly Arrival[];
  /** What the artifact's logs come to, by policy; RPM at `requestsPerMinute`. Empty where no figures are published. */
  readonly artifact: Readonly<Record<string, ArtifactFigures>>;
  readonly requestsPerMinute: number;
  /** Of each client with requests in the batch; ranks of 8, and of 16 for the trace's adapters. */
  readonly adapterTokens: number;
}

export interface ArtifactFigures {
  readonly max?: number;
  readonly average?: number;
  readonly variance?: number;
  readonly throughput?: number;
  readonly accumulatedMax?: number;
}

/** RPM(20), one of the artifact's; rank 8. */
const usual = { requestsPerMinute: 20, adapterTokens: 32 };
const minute = 60;

export const paperWorkloads: readonly PaperWorkload[] = [
  {
    name: 'overload',
    arrivals: (seed) => steady(seed, [{ perSecond: 1.5 }, { perSecond: 3 }], 6 * minute),
    artifact: {
      FCFS: { max: 447.4, average: 439.0, throughput: 876, accumulatedMax: 237_738 },
      VTC: { max: 192.9, average: 103.8, throughput: 893, accumulatedMax: 9_050 },
    },
    ...usual,
  },
  {
    name: 'overload-multi',
    arrivals: (seed) =>
      steady(
        seed,
        [0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6].map((perSecond) => ({ perSecond })),
        6 * minute,
      ),
    artifact: {
      FCFS: { max: 247.9, average: 230.8, throughput: 875 },
      VTC: { max: 322, average: 162, throughput: 875 },
    },
    ...usual,
  },
  {
    name: 'overload-weighted',
    arrivals: (seed) =>
      steady(
        seed,
        [0.4, 0.8, 1.2, 1.6].map((perSecond, index) => ({ perSecond, weight: index + 1 })),
        6 * minute,
      ),
    artifact: {},
    ...usual,
  },
  {
    name: 'proportional',
    arrivals: (seed) =>
      steady(
        seed,
        [0.25, 0.5, 1.5].map((perSecond) => ({ perSecond })),
        10 * minute,
      ),
    artifact: {},
    ...usual,
  },
  {
    name: 'on_off_less',
    arrivals: (seed) => steady(seed, [{ perSecond: 0.5, onOffSeconds: 60 }, { perSecond: 2 }], 10 * minute),
    artifact: {},
    ...usual,
  },
  {
    name: 'on_off_overload',
    arrivals: (seed) => steady(seed, [{ perSecond: 2, onOffSeconds: 60 }, { perSecond: 3 }], 10 * minute),
    artifact: { FCFS: { accumulatedMax: 363_000 }, VTC: { accumulatedMax: 7_500 } },
    ...usual,
  },
  {
    name: 'poisson_short_long',
    arrivals: (seed) => poissonPair(seed, [size(64, 64), size(256, 256)]),
    artifact: { FCFS: { accumulatedMax: 205_000 }, VTC: { accumulatedMax: 5_200 } },
    ...usual,
  },
  {
    name: 'poisson_short_long_2',
    arrivals: (seed) => poissonPair(seed, [size(512, 32), size(32, 512)]),
    artifact: { FCFS: { accumulatedMax: 605_000 }, VTC: { accumulatedMax: 1_300 } },
    ...usual,
  },
  { name: 'increase', arrivals: increasing, artifact: {}, ...usual },
  { name: 'dist_shift', arrivals: shifting, artifact: {}, ...usual },
];

/** The artifact's figures of the trace itself; the lengths and times of ours are not the same ones. */
export const syntheticTrace: PaperWorkload = {
  name: 'synthetic trace',
  arrivals: traceLike,
  artifact: {
    FCFS: { max: 759.97, average: 433.53, variance: 32_112, throughput: 777 },
    VTC: { max: 368.4, average: 251.66, variance: 6_549, throughput: 779 },
    RPM: { max: 143.86, average: 83.58, variance: 1_020, throughput: 340 },
  },
  requestsPerMinute: 5,
  adapterTokens: 64,
};

interface Client {
  readonly perSecond: number;
  readonly weight?: number;
  readonly onOffSeconds?: number;
}

function size(inputTokens: number, outputTokens: number) {
  return { inputTokens, outputTokens };
}

function client(index: number): string {
  return `client-${index}`;
}

function inOrder(arrivals: readonly Arrival[]): readonly Arrival[] {
  return arrivals.toSorted((left, right) => left.atMs - right.atMs);
}

/** `generate_requests_uniform`: even gaps from a random phase, 256 in and 256 out. */
function steady(seed: number, clients: readonly Client[], seconds: number, fromSeconds = 0): readonly Arrival[] {
  const random = seededRandom(seed);
  return inOrder(
    clients.flatMap(({ perSecond, weight = 1, onOffSeconds }, index) => {
      const phase = random.next() / perSecond;
      const count = Math.floor(perSecond * seconds);
      const times = Array.from({ length: count }, (_, number) => fromSeconds + phase + (number + 1) / perSecond);
      const isOn = (time: number) => onOffSeconds === undefined || Math.floor(time / onOffSeconds) % 2 === 0;
      return times.filter(isOn).map((time) => ({ tenant: client(index), weight, atMs: 1_000 * time, ...size(256, 256) }));
    }),
  );
}

/** `generate_requests_poisson_short_long`: one Poisson stream of 9.5 a second for 600 s, each request the first client's with 8 in 9.5. */
function poissonPair(seed: number, [first, second]: readonly [ReturnType<typeof size>, ReturnType<typeof size>]): readonly Arrival[] {
  const random = seededRandom(seed);
  const [rate, total] = [8, 9.5];
  let seconds = 0;
  return Array.from({ length: Math.floor(total * 10 * minute) }, () => {
    seconds += -Math.log(1 - random.next()) / total;
    const isFirst = random.next() < rate / total;
    return { tenant: client(isFirst ? 0 : 1), weight: 1, atMs: 1_000 * seconds, ...(isFirst ? first : second) };
  });
}

/** `generate_requests_increase`: one client of 0.5 a second, one that grows from 0.2 to 2 over ten minutes. */
function increasing(seed: number): readonly Arrival[] {
  const [from, to, seconds] = [0.2, 2, 10 * minute];
  const growing: Arrival[] = [];
  let time = 0;
  for (let count = Math.floor(0.5 * (from + to) * seconds); count > 0; count--) {
    time += 1 / (from + ((to - from) * time) / seconds);
    growing.push({ tenant: client(1), weight: 1, atMs: 1_000 * time, ...size(256, 256) });
  }
  return inOrder([...steady(seed, [{ perSecond: 0.5 }], seconds), ...growing]);
}

/** `generate_requests_dist_shift`: on and off beside an overload, then two overloads, then one in proportion; five minutes each. */
function shifting(seed: number): readonly Arrival[] {
  const seconds = 5 * minute;
  return inOrder([
    ...steady(seed, [{ perSecond: 0.5, onOffSeconds: 60 }, { perSecond: 2 }], seconds),
    ...steady(seed + 1, [{ perSecond: 1 }, { perSecond: 1 }], seconds, seconds),
    ...steady(seed + 2, [{ perSecond: 0.5 }, { perSecond: 1.5 }], seconds, 2 * seconds),
  ]);
}

const traceCounts = [296, 262, 199, 120, 67, 66, 56, 46, 44, 43, 40, 36, 31, 26, 25, 23, 22, 22, 19, 19, 12, 11, 7, 3, 2, 2, 1];

/**
 * 27 clients with the trace's numbers of requests, rescaled to 600 s, gaps of each client lognormal with a coefficient of variation of 1.3 (the trace's are
 * 0.9 to 1.8). Lengths go through the trace's least, median, 95 % and most: input 2, 40, 653, 1,021 (its mean is 136), output 2, 211, 513, 977 (256).
 */
function traceLike(seed: number): readonly Arrival[] {
  const random = seededRandom(seed);
  const gapSigma = Math.sqrt(Math.log(1 + 1.3 ** 2));
  return inOrder(
    traceCounts.flatMap((count, index) => {
      const gaps = Array.from({ length: count + 1 }, () => Math.exp(gapSigma * normal(random)));
      const total = gaps.reduce((sum, gap) => sum + gap, 0);
      let elapsed = 0;
      return gaps.slice(0, count).map((gap) => {
        elapsed += gap;
        const inputTokens = Math.round(Math.exp(quantile(random.next(), [2, 40, 653, 1_021].map(Math.log))));
        const outputTokens = Math.round(quantile(random.next(), [2, 211, 513, 977]));
        return { tenant: client(index), weight: 1, atMs: (600_000 * elapsed) / total, inputTokens, outputTokens };
      });
    }),
  );
}

/** Straight lines through the values at 0, 0.5, 0.95 and 1. */
function quantile(part: number, [least = 0, median = 0, high = 0, most = 0]: readonly number[]): number {
  if (part < 0.5) return least + (median - least) * (part / 0.5);
  if (part < 0.95) return median + (high - median) * ((part - 0.5) / 0.45);
  return high + (most - high) * ((part - 0.95) / 0.05);
}
