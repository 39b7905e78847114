/** The scenarios end to end: real processes, real clock, the simulated provider limited to 32 slots; the product's queue and first come first served. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runPart } from '../support/part.ts';
import { table, whole } from '../support/table.ts';
import { atLeast, atMost, type Finding, type Gate, mean, percent, seconds, thousands } from './gate.ts';
import { type HttpScenario, outputTokenCost, permits, tokensPerSecond, waitMaxMs, warmupMs } from './http-scenarios.ts';
import type { LoadAnswer, OpenLoad, OpenLoadResult } from './open-load.ts';
import type { Arrival, Outcome, RefusalCause, Span } from './outcome.ts';
import { type BenchedBulkhead, type HttpPolicy, model, startBulkhead } from './running-bulkhead.ts';
import {
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
import { causesText, gates } from './simulated-scenarios.ts';
import { poissonArrivals } from './workload.ts';

export interface HttpOptions {
  readonly seed: number;
  readonly isFull: boolean;
  readonly signal: AbortSignal;
}

interface Figures {
  readonly policy: HttpPolicy;
  readonly seconds: number;
  readonly quietServed: number;
  readonly quietP50Ms: number;
  readonly quietP99Ms: number;
  readonly quietWorstMs: number;
  /** Of the quiet tenant with the longest p99, as `GET /admin/v1/fairness` has it at the end (its latest 256 starts, warm-up included). */
  readonly quietP99ByServerMs: number;
  readonly quietShed: number;
  readonly shed: Readonly<Record<string, number>>;
  readonly maxDifference: number;
  readonly differenceBound: number;
  readonly weightOff: number;
  readonly satisfaction: number;
  readonly outputPerSecond: number;
  /** As `GET /admin/v1/fairness` reports it; and by what the load saw. */
  readonly utilisation: number;
  readonly utilisationSeen: number;
  /** Time of an answer that was neither queue nor upstream. */
  readonly addedP99Ms: number;
  readonly timeouts: number;
  readonly failures: Readonly<Record<string, number>>;
  readonly load: OpenLoadResult;
}

/** As long as the longest answer takes. */
const drainMs = 11_000;
/** For the load to start and to write down what it saw. */
const graceMs = 60_000;
const fairnessEveryMs = 15_000;
const lateP99MaxMs = 250;
/** Shares of a shorter run are as coarse as its requests. */
const weighedSecondsMin = 120;
const refusals: ReadonlySet<string> = new Set(['queue_full', 'queue_timeout']);
const timeoutCodes: ReadonlySet<string> = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'request_timeout',
  'upstream_timeout',
]);
const loadScript = fileURLToPath(new URL('./open-load.ts', import.meta.url));

export async function measureOverHttp(scenario: HttpScenario, options: HttpOptions): Promise<Finding> {
  const form = options.isFull ? scenario.full : scenario.quick;
  const first = await measure(scenario, 'FCFS', { ...options, seconds: form.firstComeSeconds });
  const ours = await measure(scenario, 'ours', { ...options, seconds: form.seconds });
  return {
    title: `Scenario ${scenario.id} over HTTP: ${scenario.title}`,
    about: scenario.about,
    tables: tableOf(scenario, [first, ours]),
    gates: gatesOf(scenario, ours, first),
    raw: { scenario: scenario.id, figures: [first, ours] },
  };
}

async function measure(scenario: HttpScenario, policy: HttpPolicy, options: HttpOptions & { readonly seconds: number }): Promise<Figures> {
  const { seed, signal } = options;
  await using bulkhead = await startBulkhead({ policy, permits, waitMaxMs, tokensPerSecond });
  const keys: Record<string, string> = {};
  for (const { tenant, weight = 1 } of scenario.flows) keys[tenant] = await bulkhead.addTenant(tenant, weight);
  const span = { fromMs: warmupMs, untilMs: options.seconds * 1_000 };
  const arrivals = poissonArrivals(scenario.flows, { fromMs: 0, untilMs: span.untilMs }, seed);
  const answersFile = join(bulkhead.directory, 'answers.json');
  const loadFile = join(bulkhead.directory, 'load.json');
  const load: OpenLoad = { url: bulkhead.url, model, keys, arrivals, drainMs, answersFile };
  writeFileSync(loadFile, JSON.stringify(load), { mode: 0o600 });
  const part = { name: 'load generator', script: loadScript, args: [loadFile], withinMs: span.untilMs + drainMs + graceMs, signal };
  const watching = watchServer(bulkhead, { span, quiet: scenario.quiet });
  // Together, so that the failure of one leaves no failure of the other without somebody to catch it.
  const [result, watched] = await Promise.all([runPart<OpenLoadResult>(part), watching]);
  const answers = JSON.parse(readFileSync(answersFile, 'utf8')) as readonly LoadAnswer[];
  return { policy, seconds: options.seconds, ...figuresOf(scenario, { arrivals, answers, span }), ...watched, load: result };
}

/** What the server says of the minute before, several times while the load is on. */
async function watchServer(bulkhead: BenchedBulkhead, { span, quiet }: { readonly span: Span; readonly quiet: readonly string[] }) {
  const utilisations: number[] = [];
  let quietP99ByServerMs = Number.NaN;
  const startedAt = performance.now();
  for (let atMs = span.fromMs + fairnessEveryMs; atMs <= span.untilMs; atMs += fairnessEveryMs) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, startedAt + atMs - performance.now())));
    const { utilisation, tenants } = await bulkhead.fairness();
    if (utilisation !== null) utilisations.push(utilisation);
    quietP99ByServerMs = Math.max(0, ...tenants.filter(({ tenant }) => quiet.includes(tenant)).map(({ wait_ms }) => wait_ms.p99));
  }
  return { utilisation: mean(utilisations), quietP99ByServerMs };
}

interface Seen {
  readonly arrivals: readonly Arrival[];
  readonly answers: readonly LoadAnswer[];
  readonly span: Span;
}

function figuresOf(
  scenario: HttpScenario,
  { arrivals, answers, span }: Seen,
): Omit<Figures, 'policy' | 'seconds' | 'utilisation' | 'quietP99ByServerMs' | 'load'> {
  const outcomes = outcomesOf(arrivals, answers);
  const quiet = new Set(scenario.quiet);
  const waits = waitsOf(outcomes, quiet, span);
  const measured = { span, outputTokenCost };
  const failed = answers.filter(({ status, code = '' }) => status !== 200 && !refusals.has(code));
  const failures = Map.groupBy(failed, ({ code = 'unknown' }) => code);
  const added = answers.flatMap(({ status, sentAtMs, answeredAtMs, queueMs = 0, upstreamMs = 0 }) =>
    status === 200 && sentAtMs >= span.fromMs ? [answeredAtMs - sentAtMs - queueMs - upstreamMs] : [],
  );
  return {
    quietServed: waits.length,
    quietP50Ms: percentile(waits, 0.5),
    quietP99Ms: percentile(waits, 0.99),
    quietWorstMs: waits.at(-1) ?? Number.NaN,
    quietShed: Object.values(shedOf(outcomes, quiet, span)).reduce((sum, part) => sum + part, 0),
    shed: shedOf(outcomes, undefined, span),
    maxDifference: largestDifferenceAmong(outcomes, scenario.compared, measured),
    differenceBound: differenceBound(outcomes, scenario.compared, { permits, outputTokenCost }),
    weightOff: weightOff(scenario, serviceOf(outcomes, span, outputTokenCost)),
    satisfaction: satisfactionOf(outcomes, span, outputTokenCost),
    outputPerSecond: outputPerSecond(outcomes, span),
    utilisationSeen: utilisationOf(outcomes, { permits, span }),
    addedP99Ms: percentile(
      added.toSorted((left, right) => left - right),
      0.99,
    ),
    timeouts: failed.filter(({ code = '' }) => timeoutCodes.has(code)).length,
    failures: Object.fromEntries([...failures].map(([code, those]) => [code, those.length])),
  };
}

/** The wait is what the server says in `x-bulkhead-queue-ms`; output streams from the permit to the answer. What failed counts as neither served nor refused. */
export function outcomesOf(arrivals: readonly Arrival[], answers: readonly LoadAnswer[]): readonly Outcome[] {
  const byNumber = new Map(answers.map((answer) => [answer.number, answer]));
  return arrivals.flatMap((arrival, number): readonly Outcome[] => {
    const answer = byNumber.get(number);
    if (answer === undefined) return [arrival];
    const { status, sentAtMs, answeredAtMs, queueMs = 0, code = '' } = answer;
    const { inputTokens = arrival.inputTokens, outputTokens = arrival.outputTokens } = answer;
    const sent = { ...arrival, atMs: sentAtMs, inputTokens, outputTokens };
    if (status === 200) {
      const startedAtMs = sentAtMs + queueMs;
      return [{ ...sent, served: { startedAtMs, firstTokenAtMs: startedAtMs, endedAtMs: answeredAtMs } }];
    }
    return refusals.has(code) ? [{ ...sent, refused: { cause: code as RefusalCause, atMs: answeredAtMs } }] : [];
  });
}

function weightOff({ compared, flows }: HttpScenario, service: ReadonlyMap<string, number>): number {
  const those = flows.filter(({ tenant }) => compared.includes(tenant));
  const weights = those.reduce((sum, { weight = 1 }) => sum + weight, 0);
  const total = those.reduce((sum, { tenant }) => sum + (service.get(tenant) ?? 0), 0);
  return Math.max(...those.map(({ tenant, weight = 1 }) => Math.abs(((service.get(tenant) ?? 0) / total) * (weights / weight) - 1)));
}

function tableOf({ quiet, id }: HttpScenario, rows: readonly Figures[]): string {
  const hasQuiet = quiet.length > 0;
  return table(
    [
      'queue',
      'seconds',
      ...(hasQuiet ? ['quiet served', 'quiet wait p50', 'p99', 'worst', 'p99 by the server, worst tenant', 'quiet shed'] : []),
      'maxD',
      ...(id === 'D' ? ['furthest from its weight'] : []),
      'shed, by answer',
      'slots busy while some wait',
      'satisfied demand (Jain)',
      'output tokens/s',
      'added p99',
      'time-outs',
      'other failures',
      'requests sent',
      'late p99',
    ],
    rows.map((row) => [
      row.policy,
      row.seconds,
      ...(hasQuiet
        ? [
            row.quietServed,
            seconds(row.quietP50Ms),
            seconds(row.quietP99Ms),
            seconds(row.quietWorstMs),
            seconds(row.quietP99ByServerMs),
            percent(row.quietShed),
          ]
        : []),
      thousands(row.maxDifference),
      ...(id === 'D' ? [percent(row.weightOff)] : []),
      causesText(row.shed),
      row.utilisation.toFixed(4),
      row.satisfaction.toFixed(3),
      whole(row.outputPerSecond),
      `${row.addedP99Ms.toFixed(1)} ms`,
      row.timeouts,
      failuresText(row),
      row.load.unsent === 0 ? whole(row.load.sent) : `${whole(row.load.sent)}, ${whole(row.load.unsent)} left out`,
      `${row.load.lateP99Ms.toFixed(0)} ms`,
    ]),
  );
}

function failuresOf({ failures }: Figures): number {
  return Object.values(failures).reduce((sum, count) => sum + count, 0);
}

function failuresText({ failures }: Figures): string {
  const others = Object.entries(failures).filter(([code]) => !timeoutCodes.has(code));
  return others.length === 0 ? '0' : others.map(([code, count]) => `${count} ${code}`).join(', ');
}

function gatesOf({ id, quiet, hasMixedSizes }: HttpScenario, ours: Figures, first: Figures): readonly Gate[] {
  const name = (what: string) => `${id} over HTTP: ${what}`;
  const hasQuiet = quiet.length > 0;
  return [
    ...(hasQuiet
      ? [
          atMost(name('quiet p99 wait'), ours.quietP99Ms, gates.quietP99Ms, seconds),
          atMost(name('quiet requests shed'), ours.quietShed, 0, percent),
        ]
      : []),
    atLeast(name('slots busy while some wait'), ours.utilisation, gates.utilisation, (value) => value.toFixed(4)),
    ...(hasMixedSizes
      ? []
      : [atLeast(name('output tokens, of FCFS’s'), ours.outputPerSecond / first.outputPerSecond, gates.throughput, percent)]),
    atMost(name('maxD'), ours.maxDifference, ours.differenceBound, thousands),
    ...(id === 'D' && ours.seconds >= weighedSecondsMin
      ? [atMost(name('shares from their weights'), ours.weightOff, gates.weightOff, percent)]
      : []),
    atMost(name('time-outs and failures'), failuresOf(ours), 0, String),
    // Without it the others say more about the machine than about the queue.
    atMost(
      name('load on time: requests late by, p99'),
      Math.max(ours.load.lateP99Ms, first.load.lateP99Ms),
      lateP99MaxMs,
      (ms) => `${whole(ms)} ms`,
    ),
  ];
}
