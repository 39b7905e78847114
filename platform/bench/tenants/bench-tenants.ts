/**
 * What tenants cost: to create, beside thousands of others, and beside one that ingests at full speed.
 * `npm run bench:tenants -- [--full] [--parts creation,many,neighbour] [--engines embedded,server] [--tenants 10000] [--write-docs]`
 */
import { parseArgs } from 'node:util';
import { choosePinning, machineFacts } from '../support/machine.ts';
import { machineLine, writeDocsSection, writeResults } from '../support/report.ts';
import { milliseconds, table, whole } from '../support/table.ts';
import { type CreationCost, measureCreation } from './creation.ts';
import { measureManyTenants } from './many-tenants.ts';
import { type Engine, startMeasured } from './measured-bulkhead.ts';
import { measureNeighbour, type NeighbourCost } from './neighbour.ts';

const pooledP50MaxMs = 5;
const siloedMaxMs = { embedded: 2_000, server: 500 } as const;
const manySlowerMax = 1.1;
const neighbourSlowerMax = 1.5;
/** One fewer than may be open at once. */
const siloes = 7;

const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    parts: { type: 'string', default: 'creation,many,neighbour' },
    engines: { type: 'string', default: 'embedded,server' },
    tenants: { type: 'string' },
    'write-docs': { type: 'boolean', default: false },
  },
});
const engines = (['embedded', 'server'] as const).filter((engine) => values.engines.split(',').includes(engine));
const parts = new Set(values.parts.split(','));
const sections: string[] = [];
const found: Record<string, unknown> = {};

if (parts.has('creation')) await creation();
if (parts.has('neighbour')) await neighbour();
if (parts.has('many')) await many();
publish();
process.exit();

async function creation(): Promise<void> {
  const costs: [Engine, CreationCost][] = [];
  for (const engine of engines) {
    await using bulkhead = await startMeasured(engine);
    costs.push([engine, await measureCreation(bulkhead, values.full ? 500 : 100, siloes)]);
  }
  found['creation'] = Object.fromEntries(costs);
  add(
    'Creating a tenant',
    'Over HTTP, one after the other. The gates: pooled p50 5 ms, siloed 2 s embedded and 500 ms on a server. "First" is the first silo of a process that has just started with an empty data directory.',
    table(
      [
        'engine',
        'pooled p50 ms',
        'p99 ms',
        'siloed p50 ms',
        'slowest ms',
        'first ms',
        'pooled read ms',
        'siloed read ms',
        'first read ms',
        'MiB a silo',
        'verdict',
      ],
      costs.map(([engine, cost]) => [
        engine,
        milliseconds(cost.pooled.p50),
        milliseconds(cost.pooled.p99),
        whole(cost.siloed.p50),
        whole(cost.siloed.p99),
        whole(cost.firstSiloedMs),
        milliseconds(cost.readMs.pooled.p50),
        milliseconds(cost.readMs.siloed.p50),
        milliseconds(cost.firstReadMs),
        whole(cost.siloMiB),
        verdict(cost.pooled.p50 <= pooledP50MaxMs && cost.siloed.p50 <= siloedMaxMs[engine]),
      ]),
    ),
  );
}

async function neighbour(): Promise<void> {
  const costs: [Engine, NeighbourCost][] = [];
  for (const engine of engines) {
    await using bulkhead = await startMeasured(engine);
    costs.push([engine, await measureNeighbour(bulkhead, values.full ? 3_000 : 300)]);
  }
  found['neighbour'] = Object.fromEntries(costs);
  add(
    'Beside a tenant that ingests at full speed',
    'One search at a time over HTTP in a store of 240 paragraphs, while another tenant always has six files waiting. The gate: 1.5 times the p99.',
    table(
      ['engine', 'quiet p50 ms', 'quiet p99 ms', 'busy p50 ms', 'busy p99 ms', 'times p99', 'files indexed meanwhile', 'verdict'],
      costs.map(([engine, { quiet, busy, indexedMeanwhile }]) => [
        engine,
        ...[quiet.p50, quiet.p99, busy.p50, busy.p99].map(milliseconds),
        (busy.p99 / quiet.p99).toFixed(2),
        indexedMeanwhile,
        verdict(indexedMeanwhile > 0 && busy.p99 <= neighbourSlowerMax * quiet.p99),
      ]),
    ),
  );
}

async function many(): Promise<void> {
  const measured = await measureManyTenants(Number(values.tenants ?? (values.full ? 10_000 : 1_000)));
  found['many'] = measured;
  add(
    'Number of tenants',
    'Hybrid search in a store of 200 vectors through the capability, embedded; every other tenant has a store of four. The gate: 10 % at the median.',
    table(
      ['tenants', 'p50 ms', 'p99 ms', 'times p50', 'creation p50 ms', 'verdict'],
      [
        [10, milliseconds(measured.few.p50), milliseconds(measured.few.p99), '-', '-', '-'],
        [
          measured.tenants,
          milliseconds(measured.many.p50),
          milliseconds(measured.many.p99),
          (measured.many.p50 / measured.few.p50).toFixed(2),
          milliseconds(measured.creation.p50),
          verdict(measured.many.p50 <= manySlowerMax * measured.few.p50 && measured.creation.p50 <= pooledP50MaxMs),
        ],
      ],
    ),
  );
}

function add(title: string, about: string, text: string): void {
  sections.push(`### ${title}\n\n${about}\n\n${text}`);
  process.stdout.write(`\n${title}\n\n${about}\n\n${text}\n`);
}

function publish(): void {
  const facts = machineFacts({ ...choosePinning(), text: 'nothing pinned; the server runs without fsync' });
  process.stdout.write(`\n${machineLine(facts)}\nraw figures: ${writeResults('tenants', facts, found)}\n`);
  if (values['write-docs']) writeDocsSection('tenants', `## Tenants\n\n${machineLine(facts)}\n\n${sections.join('\n\n')}`);
}

function verdict(holds: boolean): string {
  return holds ? 'holds' : 'missed';
}
