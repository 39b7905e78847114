/** `bulkhead doctor`: what is configured, what works, and what to do about the rest. */
import { accessSync, constants, mkdirSync } from 'node:fs';
import { Command } from 'commander';
import { openDatabase } from '../app/database.ts';
import { openProvider } from '../app/models.ts';
import { ConfigError, type LoadedConfig, loadConfig, systemSources } from '../config/load.ts';
import type { Provider } from '../inference/provider.ts';
import { systemClock } from '../primitives/clock.ts';
import { systemIds } from '../primitives/ids.ts';
import { silentLogger } from '../telemetry/logger.ts';
import { type OutputOptions, print, withOutput } from './output.ts';
import { findRunningServer } from './running-server.ts';

interface Finding {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
}

export function doctorCommand(): Command {
  const command = new Command('doctor')
    .description('Check the configuration, the data directory and the database, and say what to do.')
    .action(async (options: OutputOptions, self: Command) => {
      const findings = await examine(self.optsWithGlobals<{ config?: string }>().config);
      print(options, { findings }, () =>
        findings.map((finding) => `${finding.ok ? 'ok  ' : 'FAIL'} ${finding.check}: ${finding.detail}`).join('\n'),
      );
      if (findings.some((finding) => !finding.ok)) process.exitCode = 1;
    });
  return withOutput(command, 'bulkhead doctor --config bulkhead.yaml');
}

async function examine(file: string | undefined): Promise<Finding[]> {
  const findings: Finding[] = [nodeFinding()];
  const loaded = configuration(file, findings);
  if (loaded === undefined) return findings;
  findings.push(modeFinding(loaded), dataDirFinding(loaded.config.dataDir));
  findings.push(...(await packageFindings(loaded)), largeStoresFinding(loaded));
  const running = findRunningServer(loaded.config.dataDir);
  if (running === undefined) findings.push(await databaseFinding(loaded));
  else findings.push(await serverFinding(running.baseUrl, running.pid));
  return findings;
}

function nodeFinding(): Finding {
  const ok = Number.parseInt(process.versions.node, 10) >= 24;
  return { check: 'node', ok, detail: ok ? `v${process.versions.node}` : `v${process.versions.node} is too old: Node 24 is needed` };
}

function configuration(file: string | undefined, findings: Finding[]): LoadedConfig | undefined {
  try {
    const loaded = loadConfig(systemSources(file));
    findings.push({ check: 'configuration', ok: true, detail: loaded.file ?? 'no bulkhead.yaml, defaults' });
    return loaded;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    findings.push({ check: 'configuration', ok: false, detail: error.message });
    return undefined;
  }
}

function modeFinding(loaded: LoadedConfig): Finding {
  const { config } = loaded;
  if (loaded.demo) return { check: 'mode', ok: true, detail: 'demo: simulated models; name providers in bulkhead.yaml to leave it' };
  const models = config.models.map((model) => model.id).join(', ');
  return {
    check: 'mode',
    ok: config.models.length > 0,
    detail: models === '' ? 'providers are named but no models: add a models section' : `models ${models}`,
  };
}

/** Of providers whose adapter is a package that may have to be installed. */
async function packageFindings({ config }: LoadedConfig): Promise<Finding[]> {
  const opening = config.providers.flatMap((provider) =>
    provider.kind === 'ai-sdk'
      ? [packageFinding(`provider ${provider.id}`, provider.package, openProvider(provider, systemClock, systemIds))]
      : [],
  );
  return Promise.all(opening);
}

async function packageFinding(check: string, name: string, opening: Promise<Provider>): Promise<Finding> {
  try {
    await (await opening).close();
    return { check, ok: true, detail: `${name} is there` };
  } catch (error) {
    return { check, ok: false, detail: error instanceof ConfigError ? error.mistakes.join('; ') : `${name} cannot be opened` };
  }
}

function dataDirFinding(dataDir: string): Finding {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    accessSync(dataDir, constants.W_OK);
    return { check: 'data directory', ok: true, detail: dataDir };
  } catch {
    return { check: 'data directory', ok: false, detail: `${dataDir} is not writable: change dataDir or its permissions` };
  }
}

/** Nothing is wrong without: large stores are searched exactly, and slower. */
function largeStoresFinding({ config: { database, retrieval } }: LoadedConfig): Finding {
  const check = 'large vector stores';
  if (database.url === undefined) return { check, ok: true, detail: 'searched exactly: the embedded database builds no approximate index' };
  if (database.ownerUrl === undefined) {
    return {
      check,
      ok: true,
      detail: 'searched exactly: a shard and an index of their own need database.ownerUrl, the login that owns the schema',
    };
  }
  return {
    check,
    ok: true,
    detail: `from ${retrieval.dedicatedChunksMin} chunks in a shard of their own, by an index that found ${retrieval.recallMin} of the nearest`,
  };
}

async function databaseFinding(loaded: LoadedConfig): Promise<Finding> {
  const kind = loaded.config.database.url === undefined ? 'embedded PostgreSQL' : 'PostgreSQL server';
  try {
    await using opened = await openDatabase(loaded.config, silentLogger);
    return { check: 'database', ok: true, detail: `${kind}, schema ${opened.schema.version}, catalogue clean` };
  } catch (error) {
    return { check: 'database', ok: false, detail: `${kind}: ${error instanceof Error ? error.message : 'cannot be opened'}` };
  }
}

async function serverFinding(baseUrl: string, pid: number): Promise<Finding> {
  try {
    const answer = await fetch(`${baseUrl}/readyz`, { signal: AbortSignal.timeout(3_000) });
    return {
      check: 'server',
      ok: answer.ok,
      detail: `process ${pid} at ${baseUrl} ${answer.ok ? 'is ready' : `answers ${answer.status}`}`,
    };
  } catch {
    return { check: 'server', ok: false, detail: `process ${pid} does not answer at ${baseUrl}` };
  }
}
