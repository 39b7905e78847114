/**
 * The service difference of the VTC paper, as its artifact computes it (`fair_bench/plot/visualize.py` and `plot_revision.py`, Ying1123/VTC-artifact):
 * a served request's cost is spread evenly from its first token to its end, in windows of 60 s around 19 ticks. At each tick a client is behind by no more
 * than the most served one is ahead of it, and no more than what it asked for differs from what it got. Refused requests are left out.
 */
import { costOf, type Outcome, overlapMs } from './outcome.ts';

const windowMs = 60_000;
const warmupMs = 30_000;
const durationMs = 600_000;
const steps = 20;

export interface PaperDifference {
  /** Cost units a second. */
  readonly max: number;
  readonly average: number;
  readonly variance: number;
  /** Largest difference of what two clients have got since the warm-up, at any tick, in cost units. */
  readonly accumulatedMax: number;
  /** By client: what it has got from the warm-up to the last tick, in cost units. */
  readonly accumulated: ReadonlyMap<string, number>;
}

export function paperDifference(outcomes: readonly Outcome[], outputTokenCost: number): PaperDifference {
  const served = Map.groupBy(outcomes.filter(isServed), ({ tenant }) => tenant);
  const byTenant = [...served.values()];
  const differences: number[] = [];
  let accumulatedMax = 0;
  let accumulated: readonly number[] = [];
  for (let step = 1; step < steps; step++) {
    const tickMs = warmupMs + (step * (durationMs - warmupMs)) / steps;
    const span = { fromMs: tickMs - windowMs / 2, untilMs: tickMs + windowMs / 2 };
    const seconds = windowMs / 1_000;
    const service = byTenant.map((own) => spreadService(own, span, outputTokenCost) / seconds);
    const asked = byTenant.map((own) => askedIn(own, span, outputTokenCost) / seconds);
    const most = Math.max(0, ...service);
    differences.push(service.reduce((sum, each, index) => sum + Math.min(most - each, Math.abs((asked[index] ?? 0) - each)), 0));
    accumulated = byTenant.map((own) => spreadService(own, { fromMs: warmupMs, untilMs: tickMs }, outputTokenCost));
    accumulatedMax = Math.max(accumulatedMax, Math.max(...accumulated) - Math.min(...accumulated));
  }
  const average = differences.reduce((sum, each) => sum + each, 0) / differences.length;
  const variance = differences.reduce((sum, each) => sum + (each - average) ** 2, 0) / differences.length;
  const byName = new Map([...served.keys()].map((tenant, index) => [tenant, accumulated[index] ?? 0]));
  return { max: Math.max(...differences), average, variance, accumulatedMax, accumulated: byName };
}

/** Input and output tokens a second of everything served, over the whole run to its end. */
export function overallThroughput(outcomes: readonly Outcome[]): number {
  const served = outcomes.filter(isServed);
  const tokens = served.reduce((sum, { inputTokens, outputTokens }) => sum + inputTokens + outputTokens, 0);
  const endMs = Math.max(...served.map(({ served: { endedAtMs } }) => endedAtMs));
  return (tokens / endMs) * 1_000;
}

type Served = Outcome & { readonly served: NonNullable<Outcome['served']> };

function isServed(outcome: Outcome): outcome is Served {
  return outcome.served !== undefined;
}

function spreadService(outcomes: readonly Served[], span: { fromMs: number; untilMs: number }, outputTokenCost: number): number {
  return outcomes.reduce((sum, outcome) => {
    const { firstTokenAtMs, endedAtMs } = outcome.served;
    if (endedAtMs <= firstTokenAtMs) return sum;
    return sum + (costOf(outcome, outputTokenCost) * overlapMs(span, firstTokenAtMs, endedAtMs)) / (endedAtMs - firstTokenAtMs);
  }, 0);
}

function askedIn(outcomes: readonly Served[], span: { fromMs: number; untilMs: number }, outputTokenCost: number): number {
  return outcomes
    .filter(({ atMs }) => atMs >= span.fromMs && atMs <= span.untilMs)
    .reduce((sum, outcome) => sum + costOf(outcome, outputTokenCost), 0);
}
