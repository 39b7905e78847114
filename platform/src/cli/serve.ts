/** `bulkhead serve`: start, say what is happening, print what to do next, and end in order on Ctrl-C. */
import { Command } from 'commander';
import { type App, openApp } from '../app.ts';
import { type LoadedConfig, loadConfig, systemSources } from '../config/load.ts';
import { createLogger } from '../telemetry/logger.ts';
import { banner } from './banner.ts';
import { openDemo } from './demo-tenants.ts';
import { announceServer, withdrawServer } from './running-server.ts';
import { StartProgress } from './start-progress.ts';

export function serveCommand(): Command {
  return new Command('serve')
    .description('Start the server. Without providers in bulkhead.yaml it runs in demo mode with simulated models.')
    .addHelpText('after', '\nExample:\n  $ bulkhead serve --config bulkhead.yaml\n')
    .option('--json', 'print one JSON line when ready instead of the welcome text')
    .action(async (options: { json?: boolean }, self: Command) => {
      const loaded = loadConfig(systemSources(self.optsWithGlobals<{ config?: string }>().config));
      process.exitCode = await serve(loaded, options.json === true);
    });
}

async function serve(loaded: LoadedConfig, json: boolean): Promise<number> {
  const progress = new StartProgress(json ? undefined : process.stdout);
  const logger = createLogger(loaded.config.logging.level);
  const app = await openApp({ loaded, logger, listen: true, onStep: (step) => progress.step(step) });
  try {
    const { dataDir } = loaded.config;
    const demo = loaded.demo ? await openDemo(app, loaded.config) : undefined;
    announceServer(dataDir, { pid: process.pid, baseUrl: app.baseUrl, adminToken: app.adminToken });
    progress.done();
    process.stdout.write(json ? `${JSON.stringify({ ready: true, baseUrl: app.baseUrl })}\n` : banner(app, loaded, demo));
    await untilStopped();
    process.stdout.write(json ? '' : '\n  stopping: finishing running streams, flushing usage\n');
    await demo?.close();
    withdrawServer(dataDir);
  } finally {
    await closeOnce(app);
  }
  return 0;
}

/** Resolves on the first SIGINT or SIGTERM; a second one ends the process at once. */
function untilStopped(): Promise<void> {
  return new Promise((resolve) => {
    let stopping = false;
    const onSignal = () => {
      if (stopping) process.exit(130);
      stopping = true;
      resolve();
    };
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
  });
}

async function closeOnce(app: App): Promise<void> {
  await app.close();
}
