/**
 * What the fair queue and the limits cost by themselves. `npm run bench -- scheduler [--seconds 1.5] [--rounds 3] [--json FILE] [--write-docs]`
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { machineFacts } from '../support/machine.ts';
import { machineLine, writeDocsSection, writeResults } from '../support/report.ts';
import { median, table, whole } from '../support/table.ts';
import type { Measured, Measurement } from './measurement.ts';
import type { Pace } from './stopwatch.ts';

interface Row extends Pace {
  readonly name: string;
  readonly tenants: number;
  readonly targetPerSecond: number | undefined;
}

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '1.5' },
    rounds: { type: 'string', default: '3' },
    json: { type: 'string' },
    full: { type: 'boolean', default: false },
    'write-docs': { type: 'boolean', default: false },
  },
});
const durationMs = Number(values.seconds) * 1_000;
const rounds = Number(values.rounds);
if (!(durationMs > 0 && rounds >= 1)) throw new Error('--seconds and --rounds take positive numbers');

const tenantCounts = [10, 1_000, 10_000];
const targetPerSecond = 200_000;
const rows: Row[] = [];
for (const tenants of tenantCounts) {
  const target = tenants === 1_000 ? targetPerSecond : undefined;
  rows.push(await rowOf('queue, pick, charge, finish', { kind: 'algorithm', tenants, durationMs }, target));
}
for (const tenants of tenantCounts) rows.push(await rowOf('the same through promises and signals', { kind: 'door', tenants, durationMs }));
rows.push(await rowOf('a permit is free', { kind: 'free-permit', tenants: 1, durationMs }));
for (const tenants of tenantCounts) rows.push(await rowOf('reserve and settle', { kind: 'limits', tenants, durationMs }, targetPerSecond));
for (const tenants of tenantCounts)
  rows.push(await rowOf('reserve and settle, whole tree', { kind: 'limit-tree', tenants, durationMs }, targetPerSecond));
const bytesPerQueuedRequest = { algorithm: await bytesOf('algorithm-bytes'), door: await bytesOf('door-bytes') };
report();

async function rowOf(name: string, measurement: Measurement, target?: number): Promise<Row> {
  const paces: Pace[] = [];
  for (let round = 0; round < rounds; round++) {
    const { pace } = await measured(measurement);
    if (pace !== undefined) paces.push(pace);
  }
  const middle = (pick: (pace: Pace) => number) => median(paces.map(pick));
  return {
    name,
    tenants: measurement.tenants,
    targetPerSecond: target,
    perSecond: middle((pace) => pace.perSecond),
    p50Us: middle((pace) => pace.p50Us),
    p99Us: middle((pace) => pace.p99Us),
  };
}

async function bytesOf(kind: 'algorithm-bytes' | 'door-bytes'): Promise<number> {
  const { bytesPerRequest } = await measured({ kind, tenants: 1_000, durationMs });
  return bytesPerRequest ?? Number.NaN;
}

function measured(measurement: Measurement): Promise<Measured> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./measurement.ts', import.meta.url), { workerData: measurement });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

function report(): void {
  const microseconds = (value: number) => (Number.isNaN(value) ? '-' : value.toFixed(1));
  const text = table(
    ['cycle', 'tenants', 'per second', 'p50 µs', 'p99 µs', 'target'],
    rows.map((row) => [
      row.name,
      row.tenants,
      whole(row.perSecond),
      microseconds(row.p50Us),
      microseconds(row.p99Us),
      row.targetPerSecond === undefined ? '-' : whole(row.targetPerSecond),
    ]),
  );
  const { algorithm, door } = bytesPerQueuedRequest;
  const memory = `A waiting request holds ${whole(algorithm)} bytes, with its promise and abort signal ${whole(door)}.`;
  process.stdout.write(`${text}\n\n${memory}\n`);
  const facts = machineFacts({ gateway: undefined, load: undefined, upstream: undefined, text: 'nothing pinned' });
  const results = { rounds, secondsPerRound: durationMs / 1_000, rows, bytesPerQueuedRequest };
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ benchmark: 'scheduler', machine: facts, results }, null, 2)}\n`);
  if (!values['write-docs']) return;
  writeResults('scheduler', facts, results);
  const intro =
    '64 permits, 4 users a tenant, every user with a session that has work waiting, and the record of shares on; median of the rounds. Limits: two scopes of two rates and a concurrency; the whole tree is five of four rates, a concurrency and a budget.';
  writeDocsSection('scheduler', `## Fair queue and limits\n\n${machineLine(facts)}\n\n${intro}\n\n${text}\n\n${memory}`);
}
