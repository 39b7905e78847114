// Makes the machine ready: dependencies from the lockfile and a Node 24 to run on. Runs on Node 20, needs npm alone.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const projectRoot = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(projectRoot, 'node_modules');
const stampFile = join(modules, '.bulkhead-lock');

/** Installs what the lockfile names if it is not there yet; returns the path of a Node 24 or newer. */
export async function setUp({ quiet = false } = {}) {
  const wanted = createHash('sha256')
    .update(readFileSync(join(projectRoot, 'package-lock.json')))
    .digest('hex');
  if (!isInstalled(wanted)) await installDependencies(wanted, quiet);
  return node24();
}

function isInstalled(wanted) {
  return existsSync(stampFile) && readFileSync(stampFile, 'utf8') === wanted && existsSync(join(modules, '.bin', 'node'));
}

async function installDependencies(wanted, quiet) {
  const startedAt = Date.now();
  const say = (text) => quiet || process.stderr.write(text);
  say('  installing dependencies from package-lock.json ');
  const ticker = setInterval(() => say('.'), 2_000);
  // Not `npm ci`: it refuses a lockfile without the optional packages of other platforms, which a registry mirror may not have.
  const result = await run('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: projectRoot });
  clearInterval(ticker);
  if (result.code !== 0) {
    process.stderr.write(`\n${result.output}\nbulkhead: npm install failed with code ${result.code}. Is the npm registry reachable?\n`);
    process.exit(1);
  }
  mkdirSync(modules, { recursive: true });
  writeFileSync(stampFile, wanted);
  say(` ${((Date.now() - startedAt) / 1_000).toFixed(1)} s\n`);
}

function node24() {
  if (majorOf(process.versions.node) >= 24) return process.execPath;
  const bundled = join(modules, '.bin', 'node');
  const answer = spawnSync(bundled, ['--version'], { encoding: 'utf8' });
  if (answer.status === 0 && majorOf(answer.stdout.trim().slice(1)) >= 24) return bundled;
  process.stderr.write(
    'bulkhead: Node 24 is needed. The `node` package should have brought it; if install scripts are switched off, ' +
      'allow them for `node` (npm install-scripts approve node) and delete node_modules, or install Node 24.\n',
  );
  process.exit(1);
}

function majorOf(version) {
  return Number.parseInt(version, 10);
}

/** Runs a command, keeps what it prints, resolves with its exit code. */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code: code ?? (signal ? 1 : 0), output }));
  });
}

/** Runs a command on this terminal and passes signals on; resolves with its exit code. */
export function runAttached(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'inherit', cwd: projectRoot, ...options });
    const forward = (signal) => child.kill(signal);
    // A terminal sends Ctrl-C to the whole process group: the child has it already, and we wait for its orderly end.
    process.on('SIGINT', () => {});
    process.on('SIGTERM', forward);
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? (signal ? 1 : 0)));
  });
}

/** PATH with the project's tools first, so that `node` inside them is the one set up here. */
export function toolEnvironment() {
  return { ...process.env, PATH: `${join(modules, '.bin')}:${process.env.PATH}` };
}
