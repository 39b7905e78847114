/** Every policy in every scenario, in simulated time: means over seeds. */
import { table, whole } from '../support/table.ts';
import { type Policy, policies } from './contestant.ts';
import { atLeast, atMost, type Finding, type Gate, mean, percent, seconds, thousands } from './gate.ts';
import type { Outcome, Span } from './outcome.ts';
import { type Scenario, scenarios } from './scenarios.ts';
import {
  busyPartOf,
  differenceBound,
  largestDifferenceAmong,
  outputPerSecond,
  percentile,
  satisfactionOf,
  serviceOf,
  shedOf,
  utilisationOf,
  waitsOf,
} from './service.ts';
import { simulateSlots } from './slot-simulation.ts';
import { poissonArrivals } from './workload.ts';

/** The VTC paper's; the product's default is 4. */
const outputTokenCost = 2;
const waitMaxMs = 30_000;
export const gates = { quietP99Ms: 1_000, utilisation: 0.99, throughput: 0.99, weightOff: 0.02 } as const;
/** How much worse or better than VTC ours may be: bursts of equal requests, of varied ones, on and off. */
const againstVtc: Readonly<Record<string, number>> = { E: 1.3, G: 0.3, 'G, varied': 1.1 };

export interface ScenarioOptions {
  readonly seeds: readonly number[];
  readonly durationMs: number;
  readonly warmupMs: number;
}

interface Figures {
  readonly maxDifference: number;
  readonly differenceBound: number;
  readonly quietP50Ms: number;
  readonly quietP99Ms: number;
  readonly quietShed: number;
  readonly shed: Readonly<Record<string, number>>;
  readonly utilisation: number;
  readonly busy: number;
  readonly satisfaction: number;
  readonly outputPerSecond: number;
  readonly weightOff: number;
}

export function measureScenario(scenario: Scenario, options: ScenarioOptions): Finding {
  const figuresBy = (policy: Policy) => meanFigures(options.seeds.map((seed) => run(scenario, policy, { ...options, seed })));
  const byPolicy = new Map(policies.map((policy) => [policy, figuresBy(policy)]));
  return {
    title: `Scenario ${scenario.id}, simulated: ${scenario.title}`,
    about: `${scenario === scenarios[0] ? aboutAll(options) : ''}Means over ${options.seeds.length} seed${options.seeds.length === 1 ? '' : 's'}.`,
    tables: tableOf(scenario, byPolicy),
    gates: gatesOf(scenario, byPolicy),
    raw: { scenario: scenario.id, ...options, policies: Object.fromEntries(byPolicy) },
  };
}

function aboutAll({ durationMs, warmupMs }: ScenarioOptions): string {
  return (
    `For all simulated scenarios: ${durationMs / 1_000} s, the first ${warmupMs / 1_000} s left out; 10 ms a token, ` +
    '50 ms + 0.2 ms a token of prefill, sizes lognormal (sigma 0.8) around 512 in and 512 out unless said otherwise, a deadline of 30 s in the queue and no other bound for anybody, cost = ' +
    'input + 2 x output. RPM lets 60 requests a minute of each tenant through (30 in I), then first come first served. maxD is the largest difference of service per weight between ' +
    'two tenants over any time in which both had requests waiting; its gate is the slots times the mean cost of a request. '
  );
}

function run(scenario: Scenario, policy: Policy, options: ScenarioOptions & { readonly seed: number }): Figures {
  const whole = { fromMs: 0, untilMs: scenario.durationMs ?? options.durationMs };
  const span = { fromMs: options.warmupMs, untilMs: whole.untilMs };
  const pauses = scenario.pauses?.(whole) ?? [];
  const { permits, requestsPerMinute, flows } = scenario;
  const arrivals = poissonArrivals(flows, whole, options.seed);
  const outcomes = simulateSlots({
    policy,
    arrivals,
    permits,
    pauses,
    untilMs: whole.untilMs,
    waitMaxMs,
    requestsPerMinute,
    outputTokenCost,
  });
  return figuresOf(scenario, outcomes, { span, pauses });
}

function figuresOf(scenario: Scenario, outcomes: readonly Outcome[], { span, pauses }: { span: Span; pauses: readonly Span[] }): Figures {
  const { permits, compared } = scenario;
  const quiet = new Set(scenario.quiet);
  const waits = waitsOf(outcomes, quiet, span);
  const slots = { permits, span, pauses };
  return {
    maxDifference: largestDifferenceAmong(outcomes, compared, { span, outputTokenCost }),
    differenceBound: differenceBound(outcomes, compared, { permits, outputTokenCost }),
    quietP50Ms: percentile(waits, 0.5),
    quietP99Ms: percentile(waits, 0.99),
    quietShed: sumOf(shedOf(outcomes, quiet, span)),
    shed: shedOf(outcomes, undefined, span),
    utilisation: utilisationOf(outcomes, slots),
    busy: busyPartOf(outcomes, slots),
    satisfaction: satisfactionOf(outcomes, span, outputTokenCost),
    outputPerSecond: outputPerSecond(outcomes, span),
    weightOff: weightOff(scenario, serviceOf(outcomes, span, outputTokenCost)),
  };
}

/** Largest deviation of a compared tenant's share of their service from its weight's. */
function weightOff({ compared, flows }: Scenario, service: ReadonlyMap<string, number>): number {
  const those = flows.filter(({ tenant }) => compared.includes(tenant));
  const weights = those.reduce((sum, { weight = 1 }) => sum + weight, 0);
  const total = those.reduce((sum, { tenant }) => sum + (service.get(tenant) ?? 0), 0);
  return Math.max(...those.map(({ tenant, weight = 1 }) => Math.abs(((service.get(tenant) ?? 0) / total) * (weights / weight) - 1)));
}

function meanFigures(runs: readonly Figures[]): Figures {
  const of = (pick: (figures: Figures) => number) => mean(runs.map(pick));
  const causes = new Set(runs.flatMap(({ shed }) => Object.keys(shed)));
  return {
    maxDifference: of((each) => each.maxDifference),
    differenceBound: of((each) => each.differenceBound),
    quietP50Ms: of((each) => each.quietP50Ms),
    quietP99Ms: of((each) => each.quietP99Ms),
    quietShed: of((each) => each.quietShed),
    shed: Object.fromEntries([...causes].map((cause) => [cause, of(({ shed }) => shed[cause] ?? 0)])),
    utilisation: of((each) => each.utilisation),
    busy: of((each) => each.busy),
    satisfaction: of((each) => each.satisfaction),
    outputPerSecond: of((each) => each.outputPerSecond),
    weightOff: of((each) => each.weightOff),
  };
}

function tableOf({ quiet, id }: Scenario, byPolicy: ReadonlyMap<Policy, Figures>): string {
  const quietHeads = quiet.length === 0 ? [] : ['quiet p50', 'quiet p99', 'quiet shed'];
  const weightHeads = id === 'D' ? ['furthest from its weight'] : [];
  return table(
    [
      'policy',
      'maxD',
      ...quietHeads,
      ...weightHeads,
      'shed, by cause',
      'busy of the slots while some wait',
      'at all',
      'satisfied demand (Jain)',
      'output tokens/s',
    ],
    [...byPolicy].map(([policy, figures]) => [
      policy,
      thousands(figures.maxDifference),
      ...(quiet.length === 0 ? [] : [seconds(figures.quietP50Ms), seconds(figures.quietP99Ms), percent(figures.quietShed)]),
      ...(id === 'D' ? [percent(figures.weightOff)] : []),
      causesText(figures.shed),
      figures.utilisation.toFixed(3),
      figures.busy.toFixed(3),
      figures.satisfaction.toFixed(3),
      whole(figures.outputPerSecond),
    ]),
  );
}

export function causesText(shed: Readonly<Record<string, number>>): string {
  const named = Object.entries(shed).toSorted(([, left], [, right]) => right - left);
  return named.length === 0
    ? 'none'
    : named.map(([cause, part]) => `${cause.replaceAll('_', ' ')} ${(100 * part).toFixed(1)} %`).join(', ');
}

function gatesOf({ id, quiet }: Scenario, byPolicy: ReadonlyMap<Policy, Figures>): readonly Gate[] {
  const [ours, vtc, first] = [byPolicy.get('ours'), byPolicy.get('VTC'), byPolicy.get('FCFS')];
  if (ours === undefined || vtc === undefined || first === undefined) throw new Error('a policy was not run');
  const times = againstVtc[id];
  const isPaused = id.startsWith('G');
  return [
    ...(quiet.length === 0
      ? []
      : [
          atMost(`${id}: quiet p99 wait`, ours.quietP99Ms, gates.quietP99Ms, seconds),
          atMost(`${id}: quiet requests shed`, ours.quietShed, 0, percent),
        ]),
    atLeast(
      `${id}: slots busy while some wait`,
      ours.utilisation,
      isPaused ? first.utilisation * gates.utilisation : gates.utilisation,
      (value) => value.toFixed(3),
    ),
    ...(id === 'B' || isPaused
      ? []
      : [atLeast(`${id}: output tokens, of FCFS’s`, ours.outputPerSecond / first.outputPerSecond, gates.throughput, percent)]),
    ...(isPaused ? [] : [atMost(`${id}: maxD`, ours.maxDifference, ours.differenceBound, thousands)]),
    ...(id === 'D' ? [atMost('D: shares from their weights', ours.weightOff, gates.weightOff, percent)] : []),
    ...(times === undefined
      ? []
      : [atMost(`${id}: maxD, of VTC’s`, ours.maxDifference / vtc.maxDifference, times, (value) => `${value.toFixed(2)} x`)]),
  ];
}

function sumOf(parts: Readonly<Record<string, number>>): number {
  return Object.values(parts).reduce((sum, part) => sum + part, 0);
}
