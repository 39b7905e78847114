// The checks that read the code without running it. Each returns the exit code and what was printed.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot, run, toolEnvironment } from './set-up.mjs';

const sources = ['platform/src', 'platform/test', 'platform/bench'];

export const staticChecks = [
  { name: 'format, imports and syntax rules (biome)', command: ['biome', 'check', '--error-on-warnings', '.'] },
  { name: 'promise and type rules (oxlint)', command: ['oxlint', '--type-aware', '--deny-warnings', ...sources] },
  { name: 'types (tsc)', command: ['tsc', '-p', '.'] },
  {
    name: 'boundaries (dependency-cruiser)',
    command: ['depcruise', 'platform/src', '--config', '.dependency-cruiser.cjs'],
    verify: enoughModules,
  },
  { name: 'dead code (knip)', command: ['knip', '--no-progress'] },
];

/** Runs one check; a check that saw nothing has failed. */
export async function runStaticCheck(check) {
  const startedAt = Date.now();
  const [tool, ...args] = check.command;
  const present = args.filter((argument) => !sources.includes(argument) || existsSync(join(projectRoot, argument)));
  const result = await run(tool, present, { cwd: projectRoot, env: toolEnvironment() });
  const complaint = result.code === 0 ? check.verify?.(result.output) : undefined;
  const passed = result.code === 0 && complaint === undefined;
  return { passed, output: complaint ? `${complaint}\n${result.output}` : result.output, seconds: (Date.now() - startedAt) / 1_000 };
}

/** Without a parser for TypeScript, dependency-cruiser reads 0 modules and exits 0. */
function enoughModules(output) {
  const count = Number(/\((\d+) modules/.exec(output)?.[1] ?? 0);
  return count >= 25 ? undefined : `only ${count} modules were read: the boundary check is blind`;
}
