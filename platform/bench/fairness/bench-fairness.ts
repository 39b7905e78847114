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
import { type Scenario, scenarios } from './scenarios.ts';
import { measureScenario } from './simulated-scenarios.ts';

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

publish('fairness', 'Fairness, simulated', simulate());
publish('fairness-http', 'Fairness over HTTP', await measureHttp());

function simulate(): readonly Finding[] {
  const options = { durationMs: values.full ? 300_000 : 120_000, warmupMs: 30_000 };
  const seedsOf = ({ isHeavy }: Scenario) =>
    Array.from({ length: values.full ? (isHeavy === true ? 3 : 12) : 1 }, (_, index) => seed + index);
  const chosen = scenarios.filter(({ id }) => asked?.includes(id) ?? true);
  return [
    ...(parts.has('paper') ? [shown(reproducePaper({ seed: 41 + seed, traces: values.full ? 20 : 5 }))] : []),
    ...(parts.has('simulated') ? chosen.map((scenario) => shown(measureScenario(scenario, { ...options, seeds: seedsOf(scenario) }))) : []),
  ];
}

async function measureHttp(): Promise<readonly Finding[]> {
  const interrupt = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => interrupt.abort(new Error(`stopped by ${name}`)));
  const chosen = httpScenarios.filter(({ id, isInQuick }) => parts.has('http') && (asked?.includes(id) ?? (values.full || isInQuick)));
  const findings: Finding[] = [];
  for (const scenario of chosen) {
    if (interrupt.signal.aborted) break;
    process.stderr.write(`  ${scenario.id} over HTTP ...\n`);
    const measuring = measureOverHttp(scenario, { seed, isFull: values.full, signal: interrupt.signal });
    findings.push(shown(await measuring.catch((error: unknown) => failed(scenario, error))));
  }
  return findings;
}

/** The others are still measured, and this one is missed for all to see. */
function failed({ id, title }: HttpScenario, error: unknown): Finding {
  const message = (error instanceof Error ? error.message : String(error)).split('\n')[0] ?? '';
  process.stderr.write(`bench-fairness: ${error instanceof Error ? error.stack : message}\n`);
  const gate = { name: `${id} over HTTP: ran to its end`, target: 'yes', measured: message, holds: false };
  return { title: `Scenario ${id} over HTTP: ${title}`, about: '', tables: '', gates: [gate], raw: { scenario: id, error: message } };
}

function shown(finding: Finding): Finding {
  process.stdout.write(`\n${sectionOf(finding)}\n`);
  return finding;
}

function sectionOf({ title, about, tables, gates }: Finding): string {
  return [`### ${title}`, about, tables, gatesTable(gates)].filter((text) => text !== '').join('\n\n');
}

function publish(name: string, title: string, findings: readonly Finding[]): void {
  if (findings.length === 0) return;
  const facts = machineFacts({ gateway: undefined, load: undefined, upstream: undefined, text: 'nothing pinned' });
  const gates = findings.flatMap((finding) => finding.gates);
  const missed = gates.filter(({ holds }) => !holds);
  const named = missed.length === 0 ? '' : `; missed: ${missed.map((gate) => gate.name).join('; ')}`;
  const verdict = `${gates.length - missed.length} of ${gates.length} gates hold${named}.`;
  const results = { isFull: values.full, seed, gates, findings: findings.map((finding) => ({ title: finding.title, raw: finding.raw })) };
  process.stdout.write(`\n${verdict}\n${machineLine(facts)}\nraw figures: ${writeResults(name, facts, results)}\n`);
  if (!values['write-docs']) return;
  const form = `${values.full ? 'Full' : 'Quick'} form, seed ${seed}.`;
  writeDocsSection(name, [`## ${title}`, `${machineLine(facts)} ${form}`, verdict, ...findings.map(sectionOf)].join('\n\n'));
}
