/**
 * Who got what, from outcomes alone (fairness metrics of docs/operations/benchmarks.md). Service is input tokens when a request starts, and output tokens
 * times their cost evenly from the first token to the end, in cost units.
 */
import { costOf, type Outcome, overlapMs, type Span, waitedUntilMs } from './outcome.ts';

/** Of each tenant with an arrival, by name. */
export function serviceOf(outcomes: readonly Outcome[], span: Span, outputTokenCost: number): Map<string, number> {
  const service = new Map<string, number>();
  for (const outcome of outcomes) {
    const { tenant } = outcome;
    service.set(tenant, (service.get(tenant) ?? 0) + servedInput(outcome, span) + outputTokenCost * producedTokens(outcome, span));
  }
  return service;
}

/** Output tokens a second that were produced in the span. */
export function outputPerSecond(outcomes: readonly Outcome[], span: Span): number {
  const tokens = outcomes.reduce((sum, outcome) => sum + producedTokens(outcome, span), 0);
  return (tokens / (span.untilMs - span.fromMs)) * 1_000;
}

function servedInput({ served, inputTokens }: Outcome, span: Span): number {
  return served !== undefined && served.startedAtMs >= span.fromMs && served.startedAtMs < span.untilMs ? inputTokens : 0;
}

function producedTokens({ served, outputTokens }: Outcome, span: Span): number {
  if (served === undefined) return 0;
  const { firstTokenAtMs, endedAtMs } = served;
  const isAtOnce = endedAtMs <= firstTokenAtMs;
  if (isAtOnce) return endedAtMs >= span.fromMs && endedAtMs < span.untilMs ? outputTokens : 0;
  return (outputTokens * overlapMs(span, firstTokenAtMs, endedAtMs)) / (endedAtMs - firstTokenAtMs);
}

interface Change {
  readonly atMs: number;
  /** 1: the first of the two tenants; -1: the other. */
  readonly side: 1 | -1;
  readonly waiting: number;
  readonly service: number;
  /** Service for each millisecond from here on. */
  readonly slope: number;
}

/**
 * maxD: the largest |difference of service per weight| of two tenants over any part of the span in which both had requests waiting all the time.
 * Exact: service is piecewise linear, so extremes are where something changes.
 */
export function largestDifference(
  outcomes: readonly Outcome[],
  [one, other]: readonly [string, string],
  { span, outputTokenCost }: { readonly span: Span; readonly outputTokenCost: number },
): number {
  const changes = outcomes
    .filter(({ tenant }) => tenant === one || tenant === other)
    .flatMap((outcome) => changesOf(outcome, outcome.tenant === one ? 1 : -1, outputTokenCost))
    .filter(({ atMs }) => atMs < span.untilMs)
    .toSorted((left, right) => left.atMs - right.atMs);
  const waiting = { 1: 0, [-1]: 0 };
  let [difference, slope, least, most, worst, atMs] = [0, 0, 0, 0, 0, 0];
  let wereBoth = false;
  const note = () => {
    least = Math.min(least, difference);
    most = Math.max(most, difference);
    worst = Math.max(worst, most - least);
  };
  const moveTo = (nextMs: number) => {
    difference += slope * (nextMs - atMs);
    atMs = nextMs;
    if (wereBoth) note();
  };
  for (let index = 0; index < changes.length; ) {
    const now = changes[index]?.atMs ?? 0;
    moveTo(now);
    for (let change = changes[index]; change !== undefined && change.atMs === now; change = changes[++index]) {
      difference += change.service;
      slope += change.slope;
      waiting[change.side] += change.waiting;
    }
    // What was served as they stopped waiting still belongs to the time in which they waited.
    if (wereBoth) note();
    const areBoth = waiting[1] > 0 && waiting[-1] > 0 && now >= span.fromMs;
    if (areBoth && !wereBoth) least = most = difference;
    wereBoth = areBoth;
  }
  moveTo(span.untilMs);
  return worst;
}

function changesOf(outcome: Outcome, side: 1 | -1, outputTokenCost: number): readonly Change[] {
  const { served, weight, inputTokens, outputTokens, atMs } = outcome;
  const factor = side / weight;
  const stopped = { atMs: waitedUntilMs(outcome), side, waiting: -1, service: 0, slope: 0 };
  const changes: Change[] = [{ atMs, side, waiting: 1, service: 0, slope: 0 }];
  if (served === undefined) return [...changes, stopped];
  const { firstTokenAtMs, endedAtMs } = served;
  changes.push({ ...stopped, service: factor * inputTokens });
  const output = factor * outputTokenCost * outputTokens;
  if (endedAtMs <= firstTokenAtMs) return [...changes, { atMs: endedAtMs, side, waiting: 0, service: output, slope: 0 }];
  const slope = output / (endedAtMs - firstTokenAtMs);
  changes.push({ atMs: firstTokenAtMs, side, waiting: 0, service: 0, slope });
  changes.push({ atMs: endedAtMs, side, waiting: 0, service: 0, slope: -slope });
  return changes;
}

/** The largest over all pairs of these tenants. */
export function largestDifferenceAmong(
  outcomes: readonly Outcome[],
  tenants: readonly string[],
  measured: { readonly span: Span; readonly outputTokenCost: number },
): number {
  const pairs = tenants.flatMap((one, index) => tenants.slice(index + 1).map((other) => [one, other] as const));
  return Math.max(0, ...pairs.map((pair) => largestDifference(outcomes, pair, measured)));
}

/** N x E[c] of two tenants, of the worst pair: permits times the mean over both of the mean cost per weight of a request. */
export function differenceBound(
  outcomes: readonly Outcome[],
  tenants: readonly string[],
  facts: { readonly permits: number; readonly outputTokenCost: number },
): number {
  const means = tenants.map((tenant) => {
    const own = outcomes.filter((outcome) => outcome.tenant === tenant);
    return own.reduce((sum, outcome) => sum + costOf(outcome, facts.outputTokenCost) / outcome.weight, 0) / Math.max(1, own.length);
  });
  const [first = 0, second = 0] = means.toSorted((left, right) => right - left);
  return (facts.permits * (first + second)) / 2;
}

/** Milliseconds that the served among these waited, sorted. */
export function waitsOf(outcomes: readonly Outcome[], tenants: ReadonlySet<string>, span: Span): readonly number[] {
  return outcomes
    .filter(({ tenant, atMs }) => tenants.has(tenant) && atMs >= span.fromMs && atMs < span.untilMs)
    .flatMap(({ served, atMs }) => (served === undefined ? [] : [served.startedAtMs - atMs]))
    .toSorted((left, right) => left - right);
}

/** Nearest rank; NaN when there are none. */
export function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(part * sorted.length) - 1))] ?? Number.NaN;
}

/** Of the requests that came in the span and were decided, the part that each cause refused. */
export function shedOf(
  outcomes: readonly Outcome[],
  tenants: ReadonlySet<string> | undefined,
  span: Span,
): Readonly<Record<string, number>> {
  const decided = outcomes.filter(
    (outcome) =>
      (tenants?.has(outcome.tenant) ?? true) &&
      outcome.atMs >= span.fromMs &&
      outcome.atMs < span.untilMs &&
      (outcome.served !== undefined || outcome.refused !== undefined),
  );
  const counts = Map.groupBy(
    decided.flatMap(({ refused }) => (refused === undefined ? [] : [refused.cause])),
    (cause) => cause,
  );
  return Object.fromEntries([...counts].map(([cause, those]) => [cause, those.length / decided.length]));
}

export interface Slots {
  readonly permits: number;
  readonly span: Span;
  /** Times without permits. */
  readonly pauses?: readonly Span[];
}

/** Part of the permits that were busy in the span, whether anybody waited or not. */
export function busyPartOf(outcomes: readonly Outcome[], { permits, span }: Slots): number {
  const busyMs = outcomes.reduce((sum, { served }) => sum + (served ? overlapMs(span, served.startedAtMs, served.endedAtMs) : 0), 0);
  return busyMs / permits / (span.untilMs - span.fromMs);
}

/** Part of the permits that were busy, over the time in which somebody waited; NaN when nobody did. */
export function utilisationOf(outcomes: readonly Outcome[], { permits, span, pauses = [] }: Slots): number {
  const changes = outcomes.flatMap((outcome) => [
    { atMs: outcome.atMs, waiting: 1, running: 0, paused: 0 },
    { atMs: waitedUntilMs(outcome), waiting: -1, running: outcome.served === undefined ? 0 : 1, paused: 0 },
    ...(outcome.served === undefined ? [] : [{ atMs: outcome.served.endedAtMs, waiting: 0, running: -1, paused: 0 }]),
  ]);
  const edges = [
    { atMs: span.untilMs, waiting: 0, running: 0, paused: 0 },
    ...pauses.flatMap(({ fromMs, untilMs }) => [
      { atMs: fromMs, waiting: 0, running: 0, paused: 1 },
      { atMs: untilMs, waiting: 0, running: 0, paused: -1 },
    ]),
  ];
  let [waiting, running, paused, atMs, busyMs, wantedMs] = [0, 0, 0, 0, 0, 0];
  for (const change of [...changes, ...edges].toSorted((left, right) => left.atMs - right.atMs)) {
    const ms = overlapMs(span, atMs, change.atMs);
    if (waiting > 0 && paused === 0 && ms > 0) {
      busyMs += (Math.min(running, permits) / permits) * ms;
      wantedMs += ms;
    }
    waiting += change.waiting;
    running += change.running;
    paused += change.paused;
    atMs = change.atMs;
  }
  return wantedMs === 0 ? Number.NaN : busyMs / wantedMs;
}

/**
 * Jain's index over min(service, demand) / max-min share: 1 when everybody got the share of all service that max-min fairness gives for what it asked
 * (plain Jain over service calls max-min itself unfair when demands differ).
 */
export function satisfactionOf(outcomes: readonly Outcome[], span: Span, outputTokenCost: number): number {
  const service = serviceOf(outcomes, span, outputTokenCost);
  const wants = new Map<string, { demand: number; weight: number }>();
  for (const outcome of outcomes) {
    if (outcome.atMs < span.fromMs || outcome.atMs >= span.untilMs) continue;
    const known = wants.get(outcome.tenant) ?? { demand: 0, weight: outcome.weight };
    wants.set(outcome.tenant, { ...known, demand: known.demand + costOf(outcome, outputTokenCost) });
  }
  const total = service.values().reduce((sum, each) => sum + each, 0);
  const shares = maxMinShares(wants, total);
  const ratios = [...wants].map(([tenant, { demand }]) => Math.min(service.get(tenant) ?? 0, demand) / (shares.get(tenant) || 1));
  const sum = ratios.reduce((all, each) => all + each, 0);
  const squares = ratios.reduce((all, each) => all + each * each, 0);
  return squares === 0 ? Number.NaN : (sum * sum) / (ratios.length * squares);
}

/** Water filling: nobody gets more than its demand, and what it leaves is shared by weight among the others. */
export function maxMinShares(
  wants: ReadonlyMap<string, { readonly demand: number; readonly weight: number }>,
  total: number,
): ReadonlyMap<string, number> {
  const sorted = [...wants].toSorted(([, left], [, right]) => left.demand / left.weight - right.demand / right.weight);
  const shares = new Map<string, number>();
  let left = total;
  let weights = sorted.reduce((sum, [, { weight }]) => sum + weight, 0);
  for (const [tenant, { demand, weight }] of sorted) {
    const share = Math.min(demand, (left * weight) / weights);
    shares.set(tenant, share);
    left -= share;
    weights -= weight;
  }
  return shares;
}
