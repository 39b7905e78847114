/** Many slow streams at once, then ever faster ones until delivery falls behind. */
import { milliseconds, table, whole } from '../support/table.ts';
import { type Bench, type Finding, openStreams, type StreamRun, type StreamShape, type Target } from './bench.ts';

interface Run {
  readonly target: string;
  readonly offeredPerSecond: number;
  readonly result: StreamRun;
}

/** 2,000 streams of 5 events a second, opened at 1,000 a second. */
export async function measureConcurrentStreams(bench: Bench, targets: readonly Target[]): Promise<Finding> {
  const shape = { streams: 2_000, opensPerSecond: 1_000, eventsPerSecond: 5, eventsPerStream: bench.quick ? 40 : 100 };
  const runs: Run[] = [];
  for (const target of targets) runs.push(await run(bench, target, shape));
  const header = [
    'target',
    'streams',
    'at once',
    'complete',
    'events',
    'lost',
    'extra',
    'events/s',
    'TTFT p50 ms',
    'TTFT p99 ms',
    'late p50 ms',
    'late p99 ms',
    'processor µs an event',
  ];
  const cells = runs.map(({ target, result }) => [
    target,
    whole(result.streams),
    whole(result.openMax),
    whole(result.complete),
    whole(result.events),
    whole(result.lost),
    whole(result.extra),
    whole(result.eventsPerSecond),
    milliseconds(result.ttftP50Ms),
    milliseconds(result.ttftP99Ms),
    milliseconds(result.lagP50Ms),
    milliseconds(result.lagP99Ms),
    whole(result.processorMicros),
  ]);
  const faults = runs
    .filter(({ result }) => result.firstError !== undefined)
    .map(({ target, result }) => `${target}: ${result.firstError}`);
  const text =
    `${whole(shape.streams)} streams opened at ${whole(shape.opensPerSecond)} a second, ${shape.eventsPerSecond} events a second each, ` +
    `${shape.eventsPerStream} events a stream. Every event carries its number. Time to first token counts from the start of the TCP ` +
    'connection; late is an event against the pace its own first event set.';
  return { title: 'Concurrent streams', markdown: [text, table(header, cells), ...faults].join('\n\n'), raw: runs };
}

/** As a fast model writes. One stream alone never owes two events at once, so none are saved by travelling together. */
const saturationPace = 50;
const firstStreams = 100;
const stepFactor = 1.5;
const stepsMax = 9;
const keepsUp = 0.95;

/** Adds half as many streams again until a target delivers less than 95 % of what is offered. */
export async function measureSaturation(bench: Bench, targets: readonly Target[]): Promise<Finding> {
  const runs: Run[] = [];
  for (const target of targets) runs.push(...(await saturate(bench, target)));
  const cells = targets.map(({ name }) => {
    const own = runs.filter((run) => run.target === name);
    const kept = own.filter((run) => run.result.eventsPerSecond >= keepsUp * run.offeredPerSecond && run.result.lost === 0);
    const best = (list: readonly Run[]) => Math.max(0, ...list.map((run) => run.result.eventsPerSecond));
    const last = kept.at(-1)?.result;
    const lost = own.reduce((sum, run) => sum + run.result.lost, 0);
    return [
      name,
      whole(kept.at(-1)?.result.streams ?? 0),
      whole(best(kept)),
      whole(best(own)),
      last ? milliseconds(last.lagP99Ms) : '-',
      last ? whole(last.processorMicros) : '-',
      whole(lost),
    ];
  });
  const header = [
    'target',
    'streams kept up with',
    'events/s kept up with',
    'most events/s delivered',
    'late p99 ms there',
    'processor µs an event',
    'lost in all steps',
  ];
  const text =
    `Streams of ${saturationPace} events a second, from ${firstStreams} streams up by half a step until less than ${keepsUp * 100} % of the offered ` +
    `events arrive in time, ${stepsMax} steps at most. The upstream itself shows what the load generator can take.`;
  return { title: 'Saturation of streaming', markdown: `${text}\n\n${table(header, cells)}`, raw: runs };
}

async function saturate(bench: Bench, target: Target): Promise<readonly Run[]> {
  const runs: Run[] = [];
  const opensPerSecond = 1_000;
  for (let step = 0; step < stepsMax; step++) {
    const streams = Math.round(firstStreams * stepFactor ** step);
    // Long enough that every stream is open for some seconds, however long the opening takes.
    const seconds = streams / opensPerSecond + (bench.quick ? 2 : 5);
    const shape = { streams, opensPerSecond, eventsPerSecond: saturationPace, eventsPerStream: Math.round(saturationPace * seconds) };
    const found = await run(bench, target, shape);
    runs.push(found);
    if (found.result.eventsPerSecond < keepsUp * found.offeredPerSecond || found.result.refused > 0) break;
  }
  return runs;
}

async function run(bench: Bench, target: Target, shape: StreamShape): Promise<Run> {
  const offeredPerSecond = shape.streams * shape.eventsPerSecond;
  const result = await openStreams(bench, target, shape);
  bench.say(
    `${target.name}, ${shape.streams} streams: ${whole(result.eventsPerSecond)} of ${whole(offeredPerSecond)} events/s, ${result.lost} lost`,
  );
  return { target: target.name, offeredPerSecond, result };
}
