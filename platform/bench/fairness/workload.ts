/** Arrivals, drawn from a seed: the same seed gives the same requests to every policy. */
import { type Random, seededRandom } from '../../src/primitives/random.ts';
import type { Arrival, Span } from './outcome.ts';

export interface Flow {
  readonly tenant: string;
  readonly weight?: number;
  readonly perSecond: number;
  /** On for this long, off for as long, beginning on. */
  readonly onOffMs?: number;
  readonly size: (random: Random) => { readonly inputTokens: number; readonly outputTokens: number };
}

/** Poisson arrivals of every flow, in order of time. */
export function poissonArrivals(flows: readonly Flow[], span: Span, seed: number): readonly Arrival[] {
  return flows
    .flatMap((flow, index) => {
      const random = seededRandom(seed * 1_000 + index);
      const arrivals: Arrival[] = [];
      for (let atMs = span.fromMs + exponential(random, flow.perSecond); atMs < span.untilMs; atMs += exponential(random, flow.perSecond)) {
        const size = flow.size(random);
        if (flow.onOffMs === undefined || Math.floor(atMs / flow.onOffMs) % 2 === 0) {
          arrivals.push({ tenant: flow.tenant, weight: flow.weight ?? 1, atMs, ...size });
        }
      }
      return arrivals;
    })
    .toSorted((left, right) => left.atMs - right.atMs);
}

function exponential(random: Random, perSecond: number): number {
  return (-Math.log(1 - random.next()) / perSecond) * 1_000;
}

export function fixedSize(inputTokens: number, outputTokens: number): Flow['size'] {
  return () => ({ inputTokens, outputTokens });
}

/** Lognormal around a mean, each of the two by itself. */
export function lognormalSize(
  mean: { readonly inputTokens: number; readonly outputTokens: number },
  sigma: number,
  tokensMax = 1_000_000,
): Flow['size'] {
  const draw = (random: Random, around: number) =>
    Math.min(tokensMax, Math.max(1, Math.round(around * Math.exp(sigma * normal(random) - sigma ** 2 / 2))));
  return (random) => ({ inputTokens: draw(random, mean.inputTokens), outputTokens: draw(random, mean.outputTokens) });
}

/** Box and Muller. */
export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
}
