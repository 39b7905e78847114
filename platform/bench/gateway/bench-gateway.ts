/**
 * What a request costs on its way through Bulkhead, against the upstream itself, a bare proxy and Portkey.
 * `npm run bench -- gateway [--full] [--scenarios throughput,streams,saturation,memory,tenants] [--rounds 3] [--soak-minutes 1]
 *   [--tenants 1000] [--without bulkhead,portkey] [--with-valkey] [--cpu-prof DIR] [--write-docs]`
 */
import { parseArgs } from 'node:util';
import { startValkey } from '../../../scripts/services.mjs';
import { choosePinning, type MachineFacts, machineFacts } from '../support/machine.ts';
import { startPart } from '../support/part.ts';
import { machineLine, writeDocsSection, writeResults } from '../support/report.ts';
import type { Bench, Finding, Target } from './bench.ts';
import { type Bulkhead, startBulkhead } from './bulkhead.ts';
import { measureMemory } from './memory.ts';
import { startPortkey } from './portkey.ts';
import { measureConcurrentStreams, measureSaturation } from './streams.ts';
import { measureTenants } from './tenants.ts';
import { measureThroughput } from './throughput.ts';

const scenarios = ['throughput', 'streams', 'saturation', 'memory', 'tenants'] as const;
type Scenario = (typeof scenarios)[number];

interface Options {
  readonly chosen: readonly Scenario[];
  readonly quick: boolean;
  readonly rounds: number;
  readonly soakMinutes: number;
  readonly tenants: number;
  readonly without: readonly string[];
  readonly withValkey: boolean;
  readonly cpuProfileDir: string | undefined;
  readonly writeDocs: boolean;
}

interface Field {
  readonly bench: Bench;
  readonly direct: Target;
  readonly bare: Target;
  readonly portkey: Target | undefined;
  readonly bulkhead: Bulkhead | undefined;
  readonly withValkey: Bulkhead | undefined;
}

const options = readOptions();
const interrupt = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupt.abort(new Error(`stopped by ${signal}`)));
await main().catch((error: unknown) => {
  process.stderr.write(`bench-gateway: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      full: { type: 'boolean', default: false },
      scenarios: { type: 'string', default: scenarios.join(',') },
      rounds: { type: 'string' },
      'soak-minutes': { type: 'string', default: '1' },
      tenants: { type: 'string' },
      without: { type: 'string', default: '' },
      'with-valkey': { type: 'boolean', default: false },
      'cpu-prof': { type: 'string' },
      'write-docs': { type: 'boolean', default: false },
    },
  });
  const chosen = scenarios.filter((scenario) => values.scenarios.split(',').includes(scenario));
  if (chosen.length === 0) throw new Error(`--scenarios takes some of ${scenarios.join(', ')}`);
  return {
    chosen,
    quick: !values.full,
    rounds: Number(values.rounds ?? (values.full ? 5 : 3)),
    soakMinutes: Number(values['soak-minutes']),
    tenants: Number(values.tenants ?? (values.full ? 10_000 : 1_000)),
    without: values.without.split(','),
    withValkey: values['with-valkey'],
    cpuProfileDir: values['cpu-prof'],
    writeDocs: values['write-docs'],
  };
}

async function main(): Promise<void> {
  const pinning = choosePinning();
  const facts = machineFacts(pinning);
  await using parts = new AsyncDisposableStack();
  const upstream = parts.use(await startPart({ name: 'mock upstream', script: 'mock-upstream.ts', cpus: pinning.upstream }));
  const say = (text: string) => void process.stderr.write(`  ${text}\n`);
  const bench: Bench = { quick: options.quick, rounds: options.rounds, pinning, upstream, signal: interrupt.signal, say };
  const field = await takeTheField(bench, parts);
  const findings: Finding[] = [];
  for (const scenario of options.chosen) {
    say(`${scenario} ...`);
    const finding = await measure(field, scenario);
    if (finding === undefined) continue;
    findings.push(finding);
    process.stdout.write(`\n${finding.title}\n\n${finding.markdown}\n\n`);
  }
  publish(facts, findings);
}

/** Every target runs through all of the benchmark; a part that is not being measured is idle. */
async function takeTheField(bench: Bench, parts: AsyncDisposableStack): Promise<Field> {
  const { upstream, pinning } = bench;
  const bare = parts.use(await startPart({ name: 'bare proxy', script: 'bare-proxy.ts', args: [upstream.url], cpus: pinning.gateway }));
  const portkey = options.without.includes('portkey') ? undefined : await startPortkey(bench);
  if (portkey) parts.use(portkey.part);
  const bulkhead = options.without.includes('bulkhead')
    ? undefined
    : parts.use(await startBulkhead(bench, { cpuProfileDir: options.cpuProfileDir }));
  const withValkey = options.withValkey ? await startWithValkey(bench, parts) : undefined;
  return {
    bench,
    direct: { name: 'upstream itself', url: upstream.url, headers: {}, pid: upstream.pid },
    bare: { name: 'bare proxy', url: bare.url, headers: {}, pid: bare.pid },
    portkey: portkey?.target,
    bulkhead,
    withValkey,
  };
}

async function startWithValkey(bench: Bench, parts: AsyncDisposableStack): Promise<Bulkhead> {
  const valkey = await startValkey();
  parts.defer(() => valkey.stop());
  return parts.use(await startBulkhead(bench, { valkeyUrl: valkey.url }));
}

function measure(field: Field, scenario: Scenario): Promise<Finding | undefined> {
  const { bench, direct, bare, portkey, bulkhead, withValkey } = field;
  const ours = [bulkhead, withValkey].flatMap((each) => (each ? [each.target] : []));
  switch (scenario) {
    case 'throughput':
      return measureThroughput(bench, [direct, bare, ...(portkey ? [portkey] : []), ...ours]);
    case 'streams':
      return measureConcurrentStreams(bench, [bare, ...ours]);
    case 'saturation':
      return measureSaturation(bench, [direct, bare, ...ours]);
    case 'memory':
      return bulkhead ? measureMemory(bench, bulkhead.target, options.soakMinutes) : Promise.resolve(undefined);
    case 'tenants':
      return bulkhead ? measureTenants(bench, bulkhead, options.tenants) : Promise.resolve(undefined);
    default:
      return scenario satisfies never;
  }
}

function publish(facts: MachineFacts, findings: readonly Finding[]): void {
  const file = writeResults('gateway', facts, findings);
  process.stdout.write(`${machineLine(facts)}\nraw figures: ${file}\n`);
  if (!options.writeDocs) return;
  const sections = findings.map((finding) => `### ${finding.title}\n\n${finding.markdown}`);
  writeDocsSection('gateway', `## Gateway\n\n${machineLine(facts)}\n\n${sections.join('\n\n')}`);
}
