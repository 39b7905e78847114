/** `bulkhead usage`: what the tenants used and what it cost. */
import { Command } from 'commander';
import { openAdminClient } from './admin-client.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';

interface UsageRow {
  readonly tenant: string;
  readonly model?: string;
  readonly key?: string;
  readonly day?: string;
  readonly endpoint?: string;
  readonly requests: number;
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly cost_usd: string;
  readonly unpriced_requests: number;
}

interface UsageOptions extends OutputOptions {
  readonly tenant?: string;
  readonly by: string;
  readonly from?: string;
  readonly until?: string;
}

export function usageCommand(): Command {
  const command = new Command('usage')
    .description('Show tokens and cost by tenant, and by model, key, endpoint or day.')
    .option('--tenant <id>', 'one tenant only')
    .option('--by <dimensions>', 'comma-separated: model, key, endpoint, day', 'model')
    .option('--from <day>', 'first UTC day, YYYY-MM-DD (default: 30 days ago)')
    .option('--until <day>', 'day after the last (default: tomorrow)')
    .action(async (options: UsageOptions, self: Command) => {
      await using client = await openAdminClient(self);
      const answer = await client.call('GET', pathOf(options));
      const rows = answer['data'] as UsageRow[];
      print(options, answer, () => (rows.length === 0 ? 'no usage in that time' : tableOf(rows, options.by.split(','))));
    });
  return withOutput(command, 'bulkhead usage --tenant acme --by model,day');
}

function pathOf(options: UsageOptions): string {
  const query = new URLSearchParams({ group_by: options.by });
  if (options.from !== undefined) query.set('from', options.from);
  if (options.until !== undefined) query.set('until', options.until);
  const base = options.tenant === undefined ? '/admin/v1/usage' : `/admin/v1/tenants/${encodeURIComponent(options.tenant)}/usage`;
  return `${base}?${query.toString()}`;
}

function tableOf(rows: readonly UsageRow[], by: readonly string[]): string {
  const groups = (['model', 'key', 'endpoint', 'day'] as const).filter((dimension) => by.includes(dimension));
  const headings = ['TENANT', ...groups.map((group) => group.toUpperCase()), 'REQUESTS', 'INPUT', 'OUTPUT', 'COST USD'];
  const cells = rows.map((row) => [
    row.tenant,
    ...groups.map((group) => row[group] ?? ''),
    row.requests,
    row.input_tokens,
    row.output_tokens,
    row.unpriced_requests > 0 ? `${row.cost_usd} + ${row.unpriced_requests} unpriced` : row.cost_usd,
  ]);
  return table(headings, cells);
}
