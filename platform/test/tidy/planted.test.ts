import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { type PlantedFault, plantedFaults } from './planted.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const commands: Readonly<Record<PlantedFault['tool'], readonly string[]>> = {
  boundaries: ['depcruise', 'platform/src', '--config', '.dependency-cruiser.cjs'],
  'format and syntax': ['biome', 'check', '--error-on-warnings', '--vcs-enabled=false', 'platform/src'],
  'promises and types': ['oxlint', '--type-aware', '--deny-warnings', 'platform/src'],
  types: ['tsc', '-p', '.'],
};

const projects: string[] = [];
afterEach(() => {
  for (const project of projects.splice(0)) rmSync(project, { recursive: true, force: true });
});

/** A project of the same rules with only `files` in it. Outside the checkout, whose ignore files would hide it from the tools. */
function plant(files: Readonly<Record<string, string>>): string {
  const project = mkdtempSync(join(tmpdir(), 'bulkhead-planted-'));
  projects.push(project);
  for (const config of ['biome.json', '.oxlintrc.json', '.dependency-cruiser.cjs', 'tsconfig.json', 'package.json']) {
    cpSync(join(root, config), join(project, config));
  }
  symlinkSync(join(root, 'node_modules'), join(project, 'node_modules'));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(project, path)), { recursive: true });
    writeFileSync(join(project, path), text);
  }
  return project;
}

function runTool(tool: PlantedFault['tool'], project: string): Promise<{ readonly code: number; readonly output: string }> {
  const [command, ...args] = commands[tool] as [string, ...string[]];
  const path = `${join(root, 'node_modules', '.bin')}:${process.env['PATH']}`;
  return new Promise((resolve) => {
    execFile(
      join(root, 'node_modules', '.bin', command),
      args,
      { cwd: project, env: { ...process.env, PATH: path } },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : 1, output: stdout + stderr });
      },
    );
  });
}

describe('the checks of the code', () => {
  it.each(plantedFaults.map((fault) => [fault.fault, fault] as const))('see %s', async (_, fault) => {
    const result = await runTool(fault.tool, plant(fault.files));
    expect(result.output).toMatch(fault.complaint);
    expect(result.code).not.toBe(0);
  });

  it.each(Object.keys(commands) as PlantedFault['tool'][])('pass a faultless project: %s', async (tool) => {
    const clean = {
      'platform/src/primitives/a.ts': 'export const value = 1;\n',
      'platform/src/auth/b.ts': "import { value } from '../primitives/a.ts';\n\nexport const copy = value;\n",
    };
    const result = await runTool(tool, plant(clean));
    expect(result, result.output).toMatchObject({ code: 0 });
  });
});
