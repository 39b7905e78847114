/** A real Bulkhead process on a free port with a data directory of its own. Stopped by its id; its directory is removed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { copyTemplate } from './database-template.ts';

export interface DemoTenantFacts {
  readonly id: string;
  readonly name: string;
  readonly tier: string;
  readonly apiKey: string;
  readonly jwt: string;
  readonly vectorStoreId: string;
}

export interface Quickstart {
  readonly baseUrl: string;
  readonly consoleUrl: string;
  readonly adminToken: string;
  readonly models: readonly { readonly id: string }[];
  readonly tenants: readonly DemoTenantFacts[];
}

export interface RunningBulkhead extends AsyncDisposable {
  readonly baseUrl: string;
  readonly dataDir: string;
  readonly process: ChildProcess;
  quickstart(): Quickstart;
  tenant(id: string): DemoTenantFacts;
  /** What the process wrote to standard error: its log. */
  log(): string;
  /** Sends the signal and waits for the end; resolves with the exit code (null when killed). */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

export interface StartOptions {
  /** Used as it is: an empty one sees a first boot. Absent: one of its own, where an empty database stands already. */
  readonly dataDir?: string;
  /** YAML of bulkhead.yaml; absent: demo mode. */
  readonly config?: string;
  readonly env?: Readonly<Record<string, string>>;
}

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

export async function startBulkhead(options: StartOptions = {}): Promise<RunningBulkhead> {
  const ownsDirectory = options.dataDir === undefined;
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'bulkhead-e2e-'));
  const isEmbedded = options.config?.includes('database:') !== true;
  if (ownsDirectory && isEmbedded) await copyTemplate(dataDir);
  const child = spawn(process.execPath, [main, ...configArguments(dataDir, options), 'serve', '--json'], {
    cwd: dataDir,
    env: { ...cleanEnvironment(), PORT: '0', BULKHEAD_DATA_DIR: dataDir, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  const baseUrl = await untilReady(child, () => log);
  const quickstart = () => JSON.parse(readFileSync(join(dataDir, 'quickstart.json'), 'utf8')) as Quickstart;
  const stop = (signal: NodeJS.Signals = 'SIGTERM') => stopProcess(child, signal);
  return {
    baseUrl,
    dataDir,
    process: child,
    quickstart,
    tenant: (id) => required(quickstart().tenants.find((tenant) => tenant.id === id)),
    log: () => log,
    stop,
    async [Symbol.asyncDispose]() {
      await stop('SIGTERM');
      if (ownsDirectory) rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

function configArguments(dataDir: string, options: StartOptions): string[] {
  if (options.config === undefined) return [];
  const file = join(dataDir, 'bulkhead.yaml');
  writeFileSync(file, options.config);
  return ['--config', file];
}

/** Without the variables that would change what is configured. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const configuring = new Set(['DATABASE_URL', 'VALKEY_URL', 'HOST', 'BULKHEAD_CONFIG', 'BULKHEAD_ADMIN_TOKEN']);
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !configuring.has(name)));
}

function untilReady(child: ChildProcess, log: () => string): Promise<string> {
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    lines.on('line', (line) => {
      if (!line.startsWith('{"ready"')) return;
      resolve((JSON.parse(line) as { readonly baseUrl: string }).baseUrl);
    });
    child.once('exit', (code) => reject(new Error(`bulkhead ended with code ${code} before it was ready:\n${log()}`)));
  });
}

function stopProcess(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((resolve) => {
    child.once('exit', (code) => resolve(code));
    child.kill(signal);
  });
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('no such demo tenant');
  return value;
}
