// The checks that read the code without running it. Each returns the exit code and what was printed.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { projectRoot, run, toolEnvironment } from './set-up.mjs';

const sources = ['platform/src', 'platform/test', 'platform/bench'];

export const staticChecks = [
  { name: 'format, imports and syntax rules (biome)', command: ['biome', 'check', '--error-on-warnings', '.'] },
  { name: 'promise and type rules (oxlint)', command: ['oxlint', '--type-aware', '--deny-warnings', ...sources] },
  { name: 'types (tsc)', command: ['tsc', '-p', '.'] },
  {
    name: 'boundaries (dependency-cruiser)',
    command: ['depcruise', 'platform/src', '--config', '.dependency-cruiser.cjs'],
    prepare: readableCopy,
    verify: enoughModules,
  },
  { name: 'dead code (knip)', command: ['knip', '--no-progress'] },
];

/** Runs one check; a check that saw nothing has failed. */
export async function runStaticCheck(check) {
  const startedAt = Date.now();
  const [tool, ...args] = check.command;
  const present = args.filter((argument) => !sources.includes(argument) || existsSync(join(projectRoot, argument)));
  const cwd = check.prepare?.() ?? projectRoot;
  const result = await run(tool, present, { cwd, env: toolEnvironment() });
  const complaint = result.code === 0 ? check.verify?.(result.output) : undefined;
  const passed = result.code === 0 && complaint === undefined;
  return { passed, output: complaint ? `${complaint}\n${result.output}` : result.output, seconds: (Date.now() - startedAt) / 1_000 };
}

/** dependency-cruiser's parser does not know `using` declarations yet, so it reads a copy in which they are `const`; imports are the same. */
function readableCopy() {
  const copy = join(projectRoot, '.cache', 'boundaries');
  rmSync(copy, { recursive: true, force: true });
  for (const path of readdirSync(join(projectRoot, 'platform/src'), { recursive: true })) {
    if (!path.endsWith('.ts') || path.endsWith('.test.ts')) continue;
    const text = readFileSync(join(projectRoot, 'platform/src', path), 'utf8');
    mkdirSync(dirname(join(copy, 'platform/src', path)), { recursive: true });
    writeFileSync(join(copy, 'platform/src', path), text.replaceAll(/^(\s*)(?:await )?using (?=\w+ = )/gm, '$1const '));
  }
  for (const file of ['.dependency-cruiser.cjs', 'tsconfig.json', 'package.json']) cpSync(join(projectRoot, file), join(copy, file));
  return copy;
}

/** Without a parser for TypeScript, dependency-cruiser reads 0 modules and exits 0. */
function enoughModules(output) {
  const count = Number(/\((\d+) modules/.exec(output)?.[1] ?? 0);
  return count >= 25 ? undefined : `only ${count} modules were read: the boundary check is blind`;
}
