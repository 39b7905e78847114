/** Every policy on every workload of the VTC paper, beside what the authors' artifact found on a real engine. */
import { table, whole } from '../support/table.ts';
import { type Policy, policies } from './contestant.ts';
import { outputTokenCost, simulateEngine } from './engine-simulation.ts';
import { atMost, deviation, type Finding, type Gate, mean, percent } from './gate.ts';
import { overallThroughput, type PaperDifference, paperDifference } from './paper-metric.ts';
import { type ArtifactFigures, type PaperWorkload, paperWorkloads, syntheticTrace } from './paper-workloads.ts';

interface Row extends PaperDifference {
  readonly workload: string;
  readonly policy: Policy;
  readonly throughput: number;
  readonly served: number;
  readonly asked: number;
  readonly artifact: ArtifactFigures;
}

const throughputOffMax = 0.03;
const averageOffMax = 0.25;
/** Below it the artifact's own figure is noise. */
const averageComparedFrom = 50;
const vtcToFcfsMax = 0.6;
const weightOffMax = 0.02;

/** @param traces - synthetic traces with other seeds on which ours and VTC are compared. */
export function reproducePaper({ seed, traces }: { readonly seed: number; readonly traces: number }): Finding {
  const rows = [...paperWorkloads, syntheticTrace].flatMap((workload) => policies.map((policy) => rowOf(workload, policy, seed)));
  const averages = tracedAverages(seed, traces);
  return {
    title: 'The VTC paper’s workloads in simulated time',
    about:
      'Continuous batching over a pool of 10,000 tokens with the step and prefill times of the artifact’s profile; one scale was fitted to VTC’s throughput under `overload`, the rest ' +
      'follows. VTC (theta 0) and ours (theta 0.25) are the product’s `WeightedFairQueue`, which charges output in steps of 32 tokens; the artifact’s VTC charges each. Figures in brackets ' +
      'are the artifact’s (Ying1123/VTC-artifact, A10G). Differences are cost units a second by the paper’s definition. The trace is synthetic: published numbers of requests, length ' +
      'statistics and spread of gaps, so its absolute figures are not the artifact’s to compare. `overload-weighted` is judged by shares, not by the unweighted difference.',
    tables: `${tableOf(rows)}\n\n${weightsTable(rows)}`,
    gates: [...gatesOf(rows), traceGate(averages)],
    raw: { seed, rows: rows.map((row) => ({ ...row, accumulated: Object.fromEntries(row.accumulated) })), tracedAverages: averages },
  };
}

function rowOf(workload: PaperWorkload, policy: Policy, seed: number): Row {
  const { name, requestsPerMinute, adapterTokens, artifact } = workload;
  const outcomes = simulateEngine({ policy, arrivals: workload.arrivals(seed), requestsPerMinute, adapterTokens });
  return {
    workload: name,
    policy,
    ...paperDifference(outcomes, outputTokenCost),
    throughput: overallThroughput(outcomes),
    served: outcomes.filter(({ served }) => served !== undefined).length,
    asked: outcomes.length,
    artifact: artifact[policy] ?? {},
  };
}

function tracedAverages(seed: number, traces: number): Readonly<Record<'FCFS' | 'VTC' | 'ours', readonly number[]>> {
  const averagesOf = (policy: Policy) =>
    Array.from({ length: traces }, (_, index) => rowOf(syntheticTrace, policy, seed + 1 + index).average);
  return { FCFS: averagesOf('FCFS'), VTC: averagesOf('VTC'), ours: averagesOf('ours') };
}

function tableOf(rows: readonly Row[]): string {
  const beside = (value: number, artifact: number | undefined, show = whole) =>
    artifact === undefined ? show(value) : `${show(value)} (${show(artifact)})`;
  return table(
    ['workload', 'policy', 'max diff', 'average diff', 'variance', 'accumulated diff', 'tokens/s', 'served'],
    rows.map((row) => [
      row.workload,
      nameOf(row),
      beside(row.max, row.artifact.max),
      beside(row.average, row.artifact.average),
      beside(row.variance, row.artifact.variance),
      beside(row.accumulatedMax, row.artifact.accumulatedMax),
      beside(row.throughput, row.artifact.throughput),
      `${row.served} of ${row.asked}`,
    ]),
  );
}

function nameOf({ policy, workload }: Row): string {
  if (policy !== 'RPM') return policy;
  return `RPM(${[...paperWorkloads, syntheticTrace].find(({ name }) => name === workload)?.requestsPerMinute})`;
}

/** Largest deviation of a client's share from that of its weight. */
function weightOff({ accumulated }: Row): number {
  const total = accumulated.values().reduce((sum, cost) => sum + cost, 0);
  const weights = [...accumulated.keys()].map((name) => Number(name.split('-')[1]) + 1);
  const weightTotal = weights.reduce((sum, weight) => sum + weight, 0);
  return Math.max(...[...accumulated.values()].map((cost, index) => Math.abs(cost / total / ((weights[index] ?? 0) / weightTotal) - 1)));
}

function weightsTable(rows: readonly Row[]): string {
  const weighted = rows.filter(({ workload }) => workload === 'overload-weighted');
  return table(
    ['overload-weighted', 'weight 1', 'weight 2', 'weight 3', 'weight 4', 'furthest from its weight'],
    [
      ...weighted.map((row) => [
        nameOf(row),
        ...[0, 1, 2, 3].map((client) => whole(row.accumulated.get(`client-${client}`) ?? 0)),
        percent(weightOff(row)),
      ]),
      ['artifact, WVTC', '73,331', '146,639', '219,981', '293,186', '0.05 %'],
    ],
  );
}

function gatesOf(rows: readonly Row[]): readonly Gate[] {
  const comparable = rows.filter(({ workload }) => workload !== syntheticTrace.name);
  const rowFor = (workload: string, policy: Policy) => rows.find((row) => row.workload === workload && row.policy === policy);
  const ratioOf = (workload: string) =>
    (rowFor(workload, 'VTC')?.average ?? Number.NaN) / (rowFor(workload, 'FCFS')?.average ?? Number.NaN);
  const throughputOff = comparable.flatMap(({ throughput, artifact }) =>
    artifact.throughput === undefined ? [] : [Math.abs(throughput / artifact.throughput - 1)],
  );
  const averageOff = comparable.flatMap(({ average, artifact }) =>
    artifact.average === undefined || artifact.average < averageComparedFrom ? [] : [Math.abs(average / artifact.average - 1)],
  );
  const weightedOff = (['VTC', 'ours'] as const).map((policy) => {
    const row = rowFor('overload-weighted', policy);
    return row === undefined ? Number.NaN : weightOff(row);
  });
  return [
    orderGate(rows),
    atMost('throughput against the artifact, furthest', Math.max(...throughputOff), throughputOffMax, percent),
    atMost('average difference against the artifact, furthest', Math.max(...averageOff), averageOffMax, percent),
    ...['overload', syntheticTrace.name].map((name) =>
      atMost(`VTC’s average difference, of FCFS’s (${name})`, ratioOf(name), vtcToFcfsMax, percent),
    ),
    atMost('overload-weighted: VTC and ours from their weights', Math.max(...weightedOff), weightOffMax, percent),
  ];
}

/** Wherever the artifact has a figure for two policies, the same one is ahead: by average difference, without one by the accumulated. */
function orderGate(rows: readonly Row[]): Gate {
  const key = (row: Row) => (row.artifact.average === undefined ? 'accumulatedMax' : 'average');
  const known = rows.filter((row) => row.artifact[key(row)] !== undefined);
  const pairs = known.flatMap((one, index) =>
    known.slice(index + 1).flatMap((other) => (one.workload === other.workload ? [[one, other] as const] : [])),
  );
  const wrong = pairs.filter(([one, other]) => {
    const published = (one.artifact[key(one)] ?? 0) - (other.artifact[key(one)] ?? 0);
    return published * (one[key(one)] - other[key(one)]) <= 0;
  });
  const named = wrong.map(([one, other]) => `${one.workload} ${one.policy}/${other.policy}`).join(', ');
  const measured = `${pairs.length - wrong.length} of ${pairs.length}${named === '' ? '' : `; not ${named}`}`;
  return { name: 'order of policies as in the artifact', target: 'every pair', measured, holds: pairs.length > 0 && wrong.length === 0 };
}

function traceGate({ FCFS, VTC, ours }: Readonly<Record<'FCFS' | 'VTC' | 'ours', readonly number[]>>): Gate {
  const show = (values: readonly number[]) => `${whole(mean(values))} ± ${whole(deviation(values))}`;
  return {
    name: `average difference on ${VTC.length} other synthetic traces`,
    target: 'ours at most one deviation above VTC',
    measured: `FCFS ${show(FCFS)}, VTC ${show(VTC)}, ours ${show(ours)}`,
    holds: mean(ours) <= mean(VTC) + deviation(VTC),
  };
}
