/**
 * Who gets how much when there is not enough: policies side by side in simulated time, then the product over HTTP.
 * `npm run bench:fairness -- [--full] [--parts paper,simulated,http] [--scenarios A,B] [--seed 1] [--write-docs]`
 */
import { parseArgs } from 'node:util';
import { machineFacts } from '../support/machine.ts';
import { machineLine, writeDocsSection, writeResults } from '../support/report.ts';
import { type Finding, gatesTable } from './gate.ts';
import { type HttpScenario, httpScenarios } from './http-scenarios.ts';
import { measureOverHttp } from './over-http.ts';
import { reproducePaper } from './paper-reproduction.ts';
import { measureScenarios } from './simulated-scenarios.ts';

const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    parts: { type: 'string', default: 'paper,simulated,http' },
    scenarios: { type: 'string' },
    seed: { type: 'string', default: '1' },
    'write-docs': { type: 'boolean', default: false },
  },
});
const seed = Number(values.seed);
if (!Number.isInteger(seed) || seed < 0) throw new Error('--seed takes a whole number');
const parts = new Set(values.parts.split(','));
const asked = values.scenarios?.split(',');
const interrupt = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupt.abort(new Error(`stopped by ${name}`)));
const findings: Finding[] = [];

if (parts.has('paper')) add(reproducePaper({ seed: 41 + seed, traces: values.full ? 20 : 5 }));
if (parts.has('simulated')) {
  const seeds = Array.from({ length: values.full ? 6 : 1 }, (_, index) => seed + index);
  for (const finding of measureScenarios({ seeds, durationMs: values.full ? 300_000 : 120_000, warmupMs: 30_000 })) add(finding);
}
if (parts.has('http')) {
  const chosen = httpScenarios.filter(({ id, isInQuick }) => asked?.includes(id) ?? (values.full || isInQuick));
  for (const scenario of chosen) {
    process.stderr.write(`  ${scenario.id} over HTTP ...\n`);
    add(
      await measureOverHttp(scenario, { seed, isFull: values.full, signal: interrupt.signal }).catch((error: unknown) =>
        failed(scenario, error),
      ),
    );
  }
}
publish();

function add(finding: Finding): void {
  findings.push(finding);
  process.stdout.write(`\n${sectionOf(finding)}\n`);
}

/** The others are still measured, and this one is missed for all to see. */
function failed({ id, title }: HttpScenario, error: unknown): Finding {
  const message = (error instanceof Error ? error.message : String(error)).split('\n')[0] ?? '';
  process.stderr.write(`bench-fairness: ${error instanceof Error ? error.stack : message}\n`);
  const gate = { name: `${id} over HTTP: ran to its end`, target: 'yes', measured: message, holds: false };
  return { title: `Scenario ${id} over HTTP: ${title}`, about: '', tables: '', gates: [gate], raw: { scenario: id, error: message } };
}

function sectionOf({ title, about, tables, gates }: Finding): string {
  return [`### ${title}`, about, tables, gatesTable(gates)].filter((text) => text !== '').join('\n\n');
}

function publish(): void {
  const facts = machineFacts({ gateway: undefined, load: undefined, upstream: undefined, text: 'nothing pinned' });
  const gates = findings.flatMap((finding) => finding.gates);
  const missed = gates.filter(({ holds }) => !holds);
  const verdict = `${gates.length - missed.length} of ${gates.length} gates hold${missed.length === 0 ? '' : `; missed: ${missed.map(({ name }) => name).join('; ')}`}.`;
  const results = { isFull: values.full, seed, gates, findings: findings.map(({ title, raw }) => ({ title, raw })) };
  process.stdout.write(`\n${verdict}\n${machineLine(facts)}\nraw figures: ${writeResults('fairness', facts, results)}\n`);
  if (!values['write-docs']) return;
  const sections = findings.map(sectionOf).join('\n\n');
  writeDocsSection(
    'fairness',
    `## Fairness\n\n${machineLine(facts)} ${values.full ? 'Full' : 'Quick'} form, seed ${seed}.\n\n${verdict}\n\n${sections}`,
  );
}
