/** `bulkhead deployment`: the providers behind the models, how much each takes now, and an operator's word against it. */
import { Command } from 'commander';
import { openAdminClient } from './admin-client.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';

interface Deployment {
  readonly id: string;
  readonly state: string;
  readonly override: string;
  readonly resumes_in_ms: number;
  readonly concurrency: { readonly configured: number; readonly adaptive: number; readonly now: number; readonly in_flight: number };
  readonly quota: Readonly<Record<string, { readonly limit: number; readonly remaining: number }>>;
  readonly answers: number;
  readonly failures: number;
  readonly refusals: number;
}

export function deploymentCommand(): Command {
  const command = new Command('deployment').description('Show the providers behind the models, and open or close one.');
  command.addCommand(listCommand());
  command.addCommand(setCommand());
  return command;
}

function listCommand(): Command {
  const command = new Command('list')
    .description('How many calls each provider takes now, and why.')
    .action(async (options: OutputOptions, self: Command) => {
      await using client = await openAdminClient(self);
      const list = (await client.call('GET', '/admin/v1/deployments')) as { readonly data: readonly Deployment[] };
      print(options, list, () => describe(list.data));
    });
  return withOutput(command, 'bulkhead deployment list');
}

function setCommand(): Command {
  const command = new Command('set')
    .description('Close a provider, open it whatever was observed, or leave it to what is observed. Of one process, until it ends.')
    .argument('<id>', 'as `list` shows it, for example openai/gpt-4o-mini')
    .requiredOption('--to <state>', 'auto, open or closed')
    .action(async (id: string, options: OutputOptions & { to: string }, self: Command) => {
      await using client = await openAdminClient(self);
      const deployment = (await client.call('POST', '/admin/v1/deployments', { id, to: options.to })) as unknown as Deployment;
      print(options, deployment, () => describe([deployment]));
    });
  return withOutput(command, 'bulkhead deployment set openai/gpt-4o-mini --to closed');
}

function describe(deployments: readonly Deployment[]): string {
  const rows = deployments.map(({ id, state, override, resumes_in_ms, concurrency, quota, answers, failures, refusals }) => [
    id,
    override === 'auto' ? state : `${state} (by hand)`,
    resumes_in_ms === 0 ? '-' : `${Math.ceil(resumes_in_ms / 1_000)} s`,
    `${concurrency.in_flight}/${concurrency.now}`,
    `${concurrency.adaptive} of ${concurrency.configured}`,
    Object.entries(quota)
      .map(([dimension, { limit, remaining }]) => `${remaining} of ${limit} ${dimension.replace('_', ' ')}`)
      .join(', ') || '-',
    answers,
    refusals,
    failures,
  ]);
  const headings = ['DEPLOYMENT', 'STATE', 'RESUMES IN', 'RUNNING', 'LIMIT', 'LEFT THIS MINUTE', 'ANSWERS', 'REFUSALS', 'FAILURES'];
  return table(headings, rows);
}
