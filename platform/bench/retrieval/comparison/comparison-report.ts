/** The tables of the comparison, and the lines that say which demands hold. */
import { milliseconds, table, whole } from '../../support/table.ts';
import type { SystemResult } from './system.ts';

const recallMin = { exact: 1, whales: 0.98 } as const;
const vectorP50MaxMs = 2;
const vectorP99MaxMs = 15;
const hybridP50MaxMs = 5;
const coldMaxMs = 300;
const fasterThanOthers = 5;
/** What resident vectors may hold beside themselves, and a budget for the process and its engine. */
const residentFactor = 1.15;
const residentBudgetMiB = 1_024;

export function overviewTable(results: readonly SystemResult[]): string {
  return table(
    [
      'dimensions',
      'system',
      'load s',
      'cold ms',
      'searches/s alone',
      'searches/s together',
      'process MiB',
      'held MiB',
      'server MiB',
      'disk MiB',
      'raw MiB',
    ],
    results.map(({ dimensions, system, loadSeconds, coldMs, perSecondAlone, perSecondTogether, memory }) => [
      dimensions,
      system,
      whole(loadSeconds),
      coldMs === undefined ? '-' : milliseconds(coldMs),
      whole(perSecondAlone),
      whole(perSecondTogether),
      whole(memory.warmMiB),
      optional(memory.heldMiB),
      optional(memory.serverMiB),
      optional(memory.diskMiB),
      whole(memory.rawMiB),
    ]),
  );
}

export function latencyTable(results: readonly SystemResult[]): string {
  return table(
    ['dimensions', 'system', 'p50 ms', 'p99 ms', 'hybrid p50 ms', 'hybrid p99 ms'],
    results.map(({ dimensions, system, upTo10k: { vector, hybrid } }) => [
      dimensions,
      system,
      milliseconds(vector.p50),
      milliseconds(vector.p99),
      hybrid === undefined ? '-' : milliseconds(hybrid.p50),
      hybrid === undefined ? '-' : milliseconds(hybrid.p99),
    ]),
  );
}

export function sizeTable(results: readonly SystemResult[]): string {
  return table(
    ['dimensions', 'system', 'tenants of size', 'asked', 'recall@10', 'short', 'p50 ms', 'p99 ms', 'hybrid p50 ms', 'hybrid p99 ms'],
    results.flatMap(({ dimensions, system, classes }) =>
      classes.map(({ sizeClass, tenants, recall, short, p50, p99, hybrid }) => [
        dimensions,
        system,
        sizeClass,
        tenants,
        recall?.toFixed(3) ?? '-',
        short,
        milliseconds(p50),
        milliseconds(p99),
        hybrid === undefined ? '-' : milliseconds(hybrid.p50),
        hybrid === undefined ? '-' : milliseconds(hybrid.p99),
      ]),
    ),
  );
}

/** One line a demand of the embedded default; `missed` is as much a result as `holds`. */
export function gateTable(results: readonly SystemResult[]): string {
  const ours = results.filter(({ system }) => system === 'bulkhead-embedded');
  const rows = ours.flatMap((result) =>
    gatesOf(result, results).map(([demand, found, holds]) => [result.dimensions, demand, found, verdict(holds)]),
  );
  return table(['dimensions', 'demand', 'measured', 'verdict'], rows);
}

type Gate = readonly [demand: string, found: string, holds: boolean];

function gatesOf(ours: SystemResult, all: readonly SystemResult[]): readonly Gate[] {
  const upTo10k = ours.classes.filter(({ sizeClass }) => sizeClass !== 'whales');
  const whales = ours.classes.filter(({ sizeClass }) => sizeClass === 'whales');
  const short = ours.classes.reduce((sum, each) => sum + each.short, 0);
  const recall = Math.min(...upTo10k.map((each) => each.recall ?? 0));
  const { p50, p99 } = ours.upTo10k.vector;
  const hybrid = ours.upTo10k.hybrid?.p50 ?? Number.NaN;
  const memoryMax = residentFactor * ours.memory.rawMiB + residentBudgetMiB;
  return [
    ['recall@10 of tenants to 10,000 is 1.000', recall.toFixed(4), recall >= recallMin.exact],
    ...whales.map(
      (each): Gate => ['recall@10 of whales is 0.98 or more', (each.recall ?? 0).toFixed(4), (each.recall ?? 0) >= recallMin.whales],
    ),
    ['results never short', String(short), short === 0],
    [`vector search p50 at most ${vectorP50MaxMs} ms to 10,000`, milliseconds(p50), p50 <= vectorP50MaxMs],
    [`vector search p99 at most ${vectorP99MaxMs} ms to 10,000`, milliseconds(p99), p99 <= vectorP99MaxMs],
    [`hybrid p50 at most ${hybridP50MaxMs} ms to 10,000`, milliseconds(hybrid), hybrid <= hybridP50MaxMs],
    [`first search at most ${coldMaxMs} ms to 10,000`, milliseconds(ours.coldMs ?? 0), (ours.coldMs ?? 0) <= coldMaxMs],
    [`${fasterThanOthers} times the searches a second of the best alternative with recall 0.98`, ...againstOthers(ours, all)],
    [
      `process at most ${residentFactor} times raw + ${residentBudgetMiB} MiB`,
      whole(ours.memory.warmMiB),
      ours.memory.warmMiB <= memoryMax,
    ],
  ];
}

function againstOthers(ours: SystemResult, all: readonly SystemResult[]): readonly [string, boolean] {
  const complete = all.filter(
    ({ system, dimensions, classes }) =>
      !system.startsWith('bulkhead') && dimensions === ours.dimensions && classes.every(({ recall = 0 }) => recall >= recallMin.whales),
  );
  const best = complete.toSorted((left, right) => mostOf(right) - mostOf(left))[0];
  if (best === undefined) return ['no alternative reaches it', true];
  const times = mostOf(ours) / mostOf(best);
  return [`${times.toFixed(1)} times ${best.system}`, times >= fasterThanOthers];
}

function mostOf({ perSecondAlone, perSecondTogether }: SystemResult): number {
  return Math.max(perSecondAlone, perSecondTogether);
}

function verdict(holds: boolean): string {
  return holds ? 'holds' : 'missed';
}

function optional(value: number | undefined): string {
  return value === undefined || Number.isNaN(value) ? '-' : whole(value);
}
