/** `bulkhead tenant placement`: where a tenant's large vector stores are, and where they are wanted. */
import { Command } from 'commander';
import { openAdminClient } from './admin-client.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';

type Placement = {
  readonly available: boolean;
  readonly to: string;
  readonly stores: readonly {
    readonly id: string;
    readonly chunks: number;
    readonly placement: string;
    readonly moving: boolean;
    readonly search: string;
    readonly recall: number | null;
  }[];
};

export function placementCommand(): Command {
  const command = new Command('placement')
    .description('Show where a tenant’s vector stores are, or say where the large ones belong. A sweep of the server brings them there.')
    .argument('<id>', 'the tenant')
    .option('--to <placement>', 'dedicated, pooled, or automatic: by size')
    .action(async (id: string, options: OutputOptions & { to?: string }, self: Command) => {
      await using client = await openAdminClient(self);
      const path = `/admin/v1/tenants/${encodeURIComponent(id)}/placement`;
      const called = options.to === undefined ? client.call('GET', path) : client.call('POST', path, { to: options.to });
      const placement = (await called) as Placement;
      print(options, placement, () => describe(id, placement));
    });
  return withOutput(command, 'bulkhead tenant placement acme --to dedicated');
}

function describe(id: string, { available, to, stores }: Placement): string {
  if (!available) return `tenant ${id} is searched exactly: stores are placed on a PostgreSQL server only, with database.ownerUrl`;
  const rows = stores.map((store) => [
    store.id,
    String(store.chunks),
    store.moving ? 'moving' : store.placement,
    store.search,
    store.recall === null ? '-' : store.recall.toFixed(3),
  ]);
  return `tenant ${id} is placed: ${to}\n${table(['STORE', 'CHUNKS', 'PLACEMENT', 'SEARCH', 'RECALL@10'], rows)}`;
}
