/** `bulkhead tenant create|list|suspend|resume`. */
import { Command } from 'commander';
import { openAdminClient } from './admin-client.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';

type TenantRow = { readonly id: string; readonly name: string; readonly tier: string; readonly state: string; readonly isolation: string };

export function tenantCommand(): Command {
  const tenant = new Command('tenant')
    .description('Create, list, suspend and resume tenants.')
    .addHelpText('after', '\nExample:\n  $ bulkhead tenant create acme --tier pro\n');
  tenant.addCommand(createCommand());
  tenant.addCommand(listCommand());
  tenant.addCommand(stateCommand('suspend', 'Refuse a tenant: its calls answer 403 within 5 seconds.'));
  tenant.addCommand(stateCommand('resume', 'Admit a suspended tenant again.'));
  return tenant;
}

function createCommand(): Command {
  const command = new Command('create')
    .description('Create a tenant. Its id is permanent and never reused.')
    .argument('<id>', 'lower-case letters, digits and dashes, 2 to 63 characters')
    .option('--name <name>', 'display name (default: the id)')
    .option('--tier <tier>', 'tier from the configuration', 'free')
    .action(async (id: string, options: OutputOptions & { name?: string; tier: string }, self: Command) => {
      await using client = await openAdminClient(self);
      const created = (await client.call('POST', '/admin/v1/tenants', {
        id,
        tier: options.tier,
        ...(options.name && { name: options.name }),
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
