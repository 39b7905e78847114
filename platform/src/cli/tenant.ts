/** `bulkhead tenant create|list|move|suspend|resume|export|import|erase|receipts`. */

import { setTimeout as wait } from 'node:timers/promises';
import { Command } from 'commander';
import { openAdminClient } from './admin-client.ts';
import { CommandError } from './command-error.ts';
import { eraseCommand, receiptsCommand } from './erasure.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';
import { exportCommand, importCommand } from './tenant-archive.ts';
import { placementCommand } from './tenant-placement.ts';

type TenantRow = { readonly id: string; readonly name: string; readonly tier: string; readonly state: string; readonly isolation: string };

export function tenantCommand(): Command {
  const tenant = new Command('tenant')
    .description('Create, list, move, suspend, resume, export, import and erase tenants.')
    .addHelpText('after', '\nExample:\n  $ bulkhead tenant create acme --tier pro\n');
  tenant.addCommand(createCommand());
  tenant.addCommand(listCommand());
  tenant.addCommand(moveCommand());
  tenant.addCommand(placementCommand());
  tenant.addCommand(stateCommand('suspend', 'Refuse a tenant: its calls answer 403 within 5 seconds.'));
  tenant.addCommand(stateCommand('resume', 'Admit a suspended tenant again.'));
  tenant.addCommand(exportCommand());
  tenant.addCommand(importCommand());
  tenant.addCommand(eraseCommand());
  tenant.addCommand(receiptsCommand());
  return tenant;
}

function createCommand(): Command {
  const command = new Command('create')
    .description('Create a tenant. Its id is permanent and never reused.')
    .argument('<id>', 'lower-case letters, digits and dashes, 2 to 63 characters')
    .option('--name <name>', 'display name (default: the id)')
    .option('--tier <tier>', 'tier from the configuration', 'free')
    .option('--siloed', 'in a database of its own')
    .action(async (id: string, options: OutputOptions & { name?: string; tier: string; siloed?: boolean }, self: Command) => {
      await using client = await openAdminClient(self);
      const created = (await client.call('POST', '/admin/v1/tenants', {
        id,
        tier: options.tier,
        ...(options.name && { name: options.name }),
        ...(options.siloed && { isolation: 'siloed' }),
      })) as TenantRow;
      print(
        options,
        created,
        () => `created tenant ${created.id} (${created.tier})\nnext: bulkhead key create ${created.id} --name production`,
      );
    });
  return withOutput(command, 'bulkhead tenant create acme --name "Acme Corporation" --tier pro');
}

function listCommand(): Command {
  const command = new Command('list').description('List all tenants.').action(async (options: OutputOptions, self: Command) => {
    await using client = await openAdminClient(self);
    const tenants = await allTenants(client);
    const rows = tenants.map((entry) => [entry.id, entry.name, entry.tier, entry.state, entry.isolation]);
    print(options, tenants, () => table(['TENANT', 'NAME', 'TIER', 'STATE', 'ISOLATION'], rows));
  });
  return withOutput(command, 'bulkhead tenant list --json');
}

async function allTenants(client: Awaited<ReturnType<typeof openAdminClient>>): Promise<readonly TenantRow[]> {
  const tenants: TenantRow[] = [];
  let after = '';
  for (;;) {
    const page = await client.call('GET', `/admin/v1/tenants?limit=1000${after}`);
    tenants.push(...(page['data'] as TenantRow[]));
    if (page['has_more'] !== true) return tenants;
    after = `&after=${String(page['last_id'])}`;
  }
}

type Move = {
  readonly status: 'moving' | 'cleaning' | 'completed' | 'failed';
  readonly isolation: string;
  readonly tables: readonly { readonly table: string; readonly rows: number }[];
};

function moveCommand(): Command {
  const command = new Command('move')
    .description('Move a tenant into a database of its own, or back into the shared one, while it is served.')
    .argument('<id>', 'the tenant')
    .requiredOption('--to <isolation>', 'siloed or pooled')
    .action(async (id: string, options: OutputOptions & { to: string }, self: Command) => {
      await using client = await openAdminClient(self);
      const path = `/admin/v1/tenants/${encodeURIComponent(id)}/move`;
      const begun = (await client.call('POST', path, { to: options.to })) as Move;
      const move = begun.status === 'completed' ? begun : await endOfMove(client, path, options.to);
      const rows = move.tables.map(({ table: name, rows: count }) => [name, String(count)]);
      print(options, move, () => `tenant ${id} is ${move.isolation}\n${table(['TABLE', 'ROWS'], rows)}`);
    });
  return withOutput(command, 'bulkhead tenant move acme --to siloed');
}

const movePollMs = 200;

async function endOfMove(client: Awaited<ReturnType<typeof openAdminClient>>, path: string, destination: string): Promise<Move> {
  for (;;) {
    await wait(movePollMs);
    const move = (await client.call('GET', path)) as Move;
    if (move.status === 'failed') throw new CommandError(`the tenant was not moved and is ${move.isolation}; the server's log says why`);
    if (move.status === 'completed' && move.isolation === destination) return move;
  }
}

function stateCommand(name: 'suspend' | 'resume', description: string): Command {
  const command = new Command(name)
    .description(description)
    .argument('<id>', 'the tenant')
    .action(async (id: string, options: OutputOptions, self: Command) => {
      await using client = await openAdminClient(self);
      const changed = (await client.call('POST', `/admin/v1/tenants/${encodeURIComponent(id)}/${name}`)) as TenantRow;
      print(options, changed, () => `tenant ${changed.id} is ${changed.state}`);
    });
  return withOutput(command, `bulkhead tenant ${name} acme`);
}
