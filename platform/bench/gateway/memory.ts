/** Resident memory over minutes of steady load: it must level off. */
import { residentMiB } from '../support/machine.ts';
import { table, whole } from '../support/table.ts';
import { type Bench, closedChat, type Finding, type Target } from './bench.ts';

interface Sample {
  readonly second: number;
  readonly residentMiB: number;
}

const sampleEveryMs = 1_000;
const connections = 16;
const rowsShown = 11;

export async function measureMemory(bench: Bench, target: Target, minutes: number): Promise<Finding> {
  const samples: Sample[] = [];
  const startedAt = performance.now();
  const sample = () =>
    void samples.push({ second: Math.round((performance.now() - startedAt) / 1_000), residentMiB: residentMiB(target.pid) });
  sample();
  const timer = setInterval(sample, sampleEveryMs);
  bench.say(`${target.name}: ${minutes} minutes of load`);
  let requests = 0;
  try {
    const result = await closedChat(bench, target, { connections, warmupMs: 0, measureMs: minutes * 60_000 });
    requests = result.requests;
  } finally {
    clearInterval(timer);
  }
  sample();
  const slope = slopePerMinute(samples.filter((_, index) => index >= samples.length / 2));
  const text =
    `${minutes} min of non-streaming load on ${connections} connections, ${whole(requests)} requests, resident memory once a second. ` +
    `Slope over the second half: ${slope.toFixed(2)} MiB a minute (least squares).`;
  const shown = samples.filter((_, index) => index % Math.ceil(samples.length / rowsShown) === 0 || index === samples.length - 1);
  const cells = shown.map(({ second, residentMiB }) => [second, residentMiB.toFixed(1)]);
  return {
    title: 'Memory under load',
    markdown: `${text}\n\n${table(['second', 'resident MiB'], cells)}`,
    raw: { minutes, requests, slopeMiBPerMinute: slope, samples },
  };
}

/** Least squares, MiB a minute. */
function slopePerMinute(samples: readonly Sample[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const second = mean(samples.map((sample) => sample.second));
  const resident = mean(samples.map((sample) => sample.residentMiB));
  const covariance = mean(samples.map((sample) => (sample.second - second) * (sample.residentMiB - resident)));
  const variance = mean(samples.map((sample) => (sample.second - second) ** 2));
  return variance === 0 ? 0 : (covariance / variance) * 60;
}
