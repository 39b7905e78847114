/** `bulkhead demo noisy`: one demo tenant floods the models, and the terminal shows, live, that the others do not notice. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { Command } from 'commander';
import { loadConfig, systemSources } from '../config/load.ts';
import { CommandError } from './command-error.ts';
import { Caller, fairnessOf, type Phase } from './demo-load.ts';
import { demoView, summaryOf, verdictOf } from './demo-view.ts';
import { type OutputOptions, print, withOutput } from './output.ts';
import { findRunningServer } from './running-server.ts';

interface NoisyOptions extends OutputOptions {
  readonly seconds: string;
  readonly tenant: string;
  readonly model: string;
}

interface Quickstart {
  readonly baseUrl: string;
  readonly adminToken: string;
  readonly tenants: readonly { readonly id: string; readonly tier: string; readonly apiKey: string }[];
}

/** Enough to fill the queue of a demo tenant, and no more than its tier admits at once. */
const floodAtOnce = 100;
const quietSeconds = 6;
const everyMs = 1_000;

export function demoCommand(): Command {
  const noisy = new Command('noisy')
    .description('One tenant of the running demo floods it; see what the others notice.')
    .option('--seconds <n>', 'how long the flood lasts, 5 to 300', '20')
    .option('--tenant <id>', 'who floods', 'acme')
    .option('--model <id>', 'what they all ask', 'sim-fast')
    .action(runNoisy);
  const command = new Command('demo').description('Show on the running demo what the product does.');
  return command.addCommand(withOutput(noisy, 'bulkhead demo noisy --seconds 20'));
}

async function runNoisy(options: NoisyOptions, self: Command): Promise<void> {
  const seconds = Number(options.seconds);
  if (!(seconds >= 5 && seconds <= 300)) throw new CommandError('--seconds is 5 to 300');
  const quickstart = quickstartOf(self);
  const stop = new AbortController();
  const interrupted = () => stop.abort();
  process.once('SIGINT', interrupted);
  try {
    const callers = quickstart.tenants.map((tenant) => new Caller({ ...tenant, baseUrl: quickstart.baseUrl, model: options.model }));
    const noisy = callers.find(({ tenant }) => tenant === options.tenant);
    if (noisy === undefined) throw new CommandError(`the demo has no tenant ${options.tenant}`);
    const quiet = callers.filter((caller) => caller !== noisy);
    const screen = new Screen(options.json === true);
    const asking = quiet.map((caller) => caller.askNowAndThen(stop.signal));
    const watch = async (phase: Phase, forSeconds: number) => {
      for (let left = forSeconds; left > 0 && !stop.signal.aborted; left--) {
        await wait(everyMs, undefined, { signal: stop.signal }).catch(() => {});
        screen.show(demoView({ phase, left: left - 1, callers, noisy: noisy.tenant, pool: await fairnessOf(quickstart, options.model) }));
      }
    };
    await watch('alone', quietSeconds);
    for (const caller of callers) caller.begin('flooded');
    const flooding = noisy.flood(floodAtOnce, stop.signal);
    await watch('flooded', seconds);
    stop.abort();
    await Promise.all([...asking, flooding]);
    const summary = summaryOf(callers, noisy.tenant);
    print(options, summary, () => verdictOf(summary));
  } finally {
    stop.abort();
    process.off('SIGINT', interrupted);
  }
}

function quickstartOf(self: Command): Quickstart {
  const file = self.optsWithGlobals<{ config?: string }>().config;
  const { config } = loadConfig(systemSources(file));
  const running = findRunningServer(config.dataDir);
  if (running === undefined) throw new CommandError('there is no server on this data directory; start one in another terminal: npm start');
  try {
    const quickstart = JSON.parse(readFileSync(join(config.dataDir, 'quickstart.json'), 'utf8')) as Quickstart;
    return { ...quickstart, baseUrl: running.baseUrl };
  } catch {
    throw new CommandError('the server here is not in demo mode: it has no tenants to play with');
  }
}

/** Written over itself where somebody watches; elsewhere every fifth view, one below the other. */
class Screen {
  readonly #isSilent: boolean;
  #lines = 0;
  #count = 0;

  constructor(isSilent: boolean) {
    this.#isSilent = isSilent;
  }

  show(view: string): void {
    if (this.#isSilent) return;
    if (process.stdout.isTTY) {
      const up = this.#lines === 0 ? '' : `\x1b[${this.#lines}A\x1b[0J`;
      process.stdout.write(`${up}${view}\n`);
      this.#lines = view.split('\n').length;
    } else if (this.#count++ % 5 === 4) {
      process.stdout.write(`${view}\n\n`);
    }
  }
}
