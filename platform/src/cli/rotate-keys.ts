/** `bulkhead rotate-keys`: wraps every data key by the configured master key, or gives one tenant a new data key. */
import { setTimeout as wait } from 'node:timers/promises';
import { Command } from 'commander';
import { type AdminClient, openAdminClient } from './admin-client.ts';
import { CommandError } from './command-error.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';

interface RotateOptions extends OutputOptions {
  readonly tenant?: string;
  readonly dryRun?: boolean;
}

interface Rewrap {
  readonly status: 'running' | 'completed' | 'failed';
  readonly dry_run: boolean;
  readonly tenants: number;
  readonly wrapped_by: Readonly<Record<string, number>>;
  readonly rewrapped: number;
  readonly unreadable: number;
  readonly tenants_with_plain_rows: number;
  readonly retired: readonly string[];
}

const pollMs = 200;

export function rotateKeysCommand(): Command {
  const command = new Command('rotate-keys')
    .description('Wrap all data keys by the master key in the configuration, or give one tenant a new data key.')
    .option('--dry-run', 'count, and try every key, without changing anything')
    .option('--tenant <id>', 'a new data key for this tenant; its content is sealed anew in the background')
    .action(async (options: RotateOptions, self: Command) => {
      if (options.tenant !== undefined && options.dryRun === true)
        throw new CommandError('--dry-run is about all data keys, not about one tenant');
      await using client = await openAdminClient(self);
      if (options.tenant === undefined) await rewrap(client, options);
      else await rotateTenant(client, options, options.tenant);
    });
  return withOutput(command, 'bulkhead rotate-keys --dry-run');
}

async function rotateTenant(client: AdminClient, options: RotateOptions, tenant: string): Promise<void> {
  const made = await client.call('POST', `/admin/v1/tenants/${encodeURIComponent(tenant)}/data-keys`);
  print(
    options,
    made,
    () => `tenant ${tenant} seals under data key ${String(made['version'])}; what was sealed before is sealed anew in the background`,
  );
}

async function rewrap(client: AdminClient, options: RotateOptions): Promise<void> {
  await client.call('POST', '/admin/v1/at-rest/rewrap', { dry_run: options.dryRun === true });
  const report = await endOf(client);
  print(options, report, () => summary(report));
  if (report.status === 'failed' || report.unreadable > 0) process.exitCode = 1;
}

async function endOf(client: AdminClient): Promise<Rewrap> {
  for (;;) {
    const { rewrap: report } = (await client.call('GET', '/admin/v1/at-rest')) as { readonly rewrap?: Rewrap };
    if (report !== undefined && report.status !== 'running') return report;
    await wait(pollMs);
  }
}

function summary(report: Rewrap): string {
  const rows = Object.entries(report.wrapped_by).map(([id, keys]) => [id, keys] as const);
  const found = table(['MASTER KEY', 'DATA KEYS'], rows);
  const ends = {
    failed: 'it ended early; the server’s log says why. Run it again: it goes on where it stopped',
    running: '',
    completed: report.dry_run ? 'nothing was changed' : `${report.rewrapped} data keys were wrapped anew`,
  };
  return [
    `${found}\n${ends[report.status]}`,
    ...(report.unreadable > 0 ? [`${report.unreadable} data keys do not unwrap: their master key stays`] : []),
    ...(report.tenants_with_plain_rows > 0
      ? [`${report.tenants_with_plain_rows} tenants have content from before there was encryption`]
      : []),
    ...report.retired.map((id) => `nothing is wrapped by ${id} any more: it may leave atRest.previous`),
  ].join('\n');
}
