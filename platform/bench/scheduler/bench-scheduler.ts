/**
 * What the fair queue and the limits cost by themselves. `npm run bench -- scheduler [--seconds 1.5] [--rounds 3] [--json FILE] [--write-docs]`
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { machineFacts } from '../support/machine.ts';
import { machineLine, writeDocsSection, writeResults } from '../support/report.ts';
import { median, table, whole } from '../support/table.ts';
import { measureAlgorithm, measureBytesPerRequest, measureDoor, measureFreePermit } from './fair-queue-cycles.ts';
import { measureReserveSettle } from './limit-cycles.ts';
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
const targets = { algorithm: 200_000, limits: 200_000 };
const rows: Row[] = [];
for (const tenants of tenantCounts) {
  const target = tenants === 1_000 ? targets.algorithm : undefined;
  rows.push(await rowOf('queue, pick, charge, finish', { tenants, target }, () => measureAlgorithm(tenants, durationMs)));
}
for (const tenants of tenantCounts) {
  rows.push(await rowOf('the same through promises and signals', { tenants, target: undefined }, () => measureDoor(tenants, durationMs)));
}
rows.push(await rowOf('a permit is free', { tenants: 1, target: undefined }, () => measureFreePermit(durationMs)));
for (const tenants of tenantCounts) {
  rows.push(await rowOf('reserve and settle', { tenants, target: targets.limits }, () => measureReserveSettle(tenants, durationMs)));
}
const bytesPerQueuedRequest = await measureBytesPerRequest(100_000);
report();

async function rowOf(
  name: string,
  facts: { readonly tenants: number; readonly target: number | undefined },
  measure: () => Pace | Promise<Pace>,
): Promise<Row> {
  const paces: Pace[] = [];
  for (let round = 0; round < rounds; round++) paces.push(await measure());
  const middle = (pick: (pace: Pace) => number) => median(paces.map(pick));
  return {
    name,
    tenants: facts.tenants,
    targetPerSecond: facts.target,
    perSecond: middle((pace) => pace.perSecond),
    p50Us: middle((pace) => pace.p50Us),
    p99Us: middle((pace) => pace.p99Us),
  };
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
    '64 permits, 4 users a tenant, every user with work waiting; median of the rounds. Limits: two scopes of two rates and a concurrency.';
  writeDocsSection('scheduler', `## Fair queue and limits\n\n${machineLine(facts)}\n\n${intro}\n\n${text}\n\n${memory}`);
}
