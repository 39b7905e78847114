/** Writes what a benchmark found: raw figures as JSON, and a section of docs/operations/benchmarks.md. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { MachineFacts } from './machine.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const docsFile = join(root, 'docs/operations/benchmarks.md');
const preface = `# Benchmarks

Each section is written by the benchmark it names (\`npm run bench -- <name> --write-docs\`) from one run on one machine. Ratios matter,
absolutes drift: compare rows of one table, and run it on your own machine.
`;

/** Returns the path of the file, relative to the project. */
export function writeResults(name: string, facts: MachineFacts, results: unknown): string {
  const relative = `platform/bench/results/${name}-${facts.date}.json`;
  mkdirSync(dirname(join(root, relative)), { recursive: true });
  writeFileSync(join(root, relative), `${JSON.stringify({ benchmark: name, machine: facts, results }, null, 2)}\n`);
  return relative;
}

/** Puts the section in place of the one the benchmark wrote last, or at the end. */
export function writeDocsSection(name: string, markdown: string): void {
  const begin = `<!-- ${name}: begin -->`;
  const end = `<!-- ${name}: end -->`;
  const section = `${begin}\n${markdown.trim()}\n${end}\n`;
  const before = existsSync(docsFile) ? readFileSync(docsFile, 'utf8') : preface;
  const from = before.indexOf(begin);
  const to = before.indexOf(end);
  const after = from < 0 || to < from ? `${before}\n${section}` : before.slice(0, from) + section + before.slice(to + end.length + 1);
  mkdirSync(dirname(docsFile), { recursive: true });
  writeFileSync(docsFile, after);
}

export function machineLine(facts: MachineFacts): string {
  return (
    `${facts.date}, commit ${facts.commit}, ${facts.cores} cores (${facts.cpuModel}), ${facts.memoryGiB} GiB, ` +
    `Node ${facts.node}; ${facts.pinning}.`
  );
}
