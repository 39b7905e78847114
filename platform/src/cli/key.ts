/** `bulkhead key create|list|revoke`. */
import { Command } from 'commander';
import { openAdminClient } from './admin-client.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';

interface KeyRow {
  readonly id: string;
  readonly name: string;
  readonly environment: string;
  readonly last_four: string;
  readonly created_at: number;
  readonly expires_at: number | null;
  readonly revoked_at: number | null;
  readonly key?: string;
}

export function keyCommand(): Command {
  const key = new Command('key')
    .description("Create, list and revoke a tenant's API keys.")
    .addHelpText('after', '\nExample:\n  $ bulkhead key create acme --name production\n');
  key.addCommand(createCommand());
  key.addCommand(listCommand());
  key.addCommand(revokeCommand());
  return key;
}

function createCommand(): Command {
  const command = new Command('create')
    .description('Create an API key and show it, this once: only a digest is kept.')
    .argument('<tenant>', 'the tenant')
    .requiredOption('--name <name>', 'what the key is for')
    .option('--test', 'make a bh_test_ key')
    .option('--expires-in-days <days>', 'how long it is good for')
    .action(async (tenant: string, options: OutputOptions & { name: string; test?: boolean; expiresInDays?: string }, self: Command) => {
      await using client = await openAdminClient(self);
      const expiry = options.expiresInDays === undefined ? {} : { expires_in_seconds: Math.round(Number(options.expiresInDays) * 86_400) };
      const body = { name: options.name, environment: options.test ? 'test' : 'live', ...expiry };
      const created = (await client.call('POST', `${keysOf(tenant)}`, body)) as unknown as KeyRow;
      print(options, created, () => `${created.key}\n\nkey ${created.id} of ${tenant}; it is not shown again`);
    });
  return withOutput(command, 'bulkhead key create acme --name production');
}

function listCommand(): Command {
  const command = new Command('list')
    .description("List a tenant's keys, revoked ones included.")
    .argument('<tenant>', 'the tenant')
    .action(async (tenant: string, options: OutputOptions, self: Command) => {
      await using client = await openAdminClient(self);
      const keys = (await client.call('GET', keysOf(tenant)))['data'] as KeyRow[];
      const rows = keys.map((key) => [key.id, key.name, key.environment, `…${key.last_four}`, day(key.created_at), stateOf(key)]);
      print(options, keys, () => table(['KEY', 'NAME', 'KIND', 'ENDS IN', 'CREATED', 'STATE'], rows));
    });
  return withOutput(command, 'bulkhead key list acme');
}

function revokeCommand(): Command {
  const command = new Command('revoke')
    .description('Revoke a key: it is refused within 5 seconds, everywhere.')
    .argument('<tenant>', 'the tenant')
    .argument('<key>', "the key's id")
    .action(async (tenant: string, key: string, options: OutputOptions, self: Command) => {
      await using client = await openAdminClient(self);
      const revoked = await client.call('DELETE', `${keysOf(tenant)}/${encodeURIComponent(key)}`);
      print(options, revoked, () => `key ${key} of ${tenant} is revoked`);
    });
  return withOutput(command, 'bulkhead key revoke acme 4fK2bQ7x');
}

function keysOf(tenant: string): string {
  return `/admin/v1/tenants/${encodeURIComponent(tenant)}/keys`;
}

function stateOf(key: KeyRow): string {
  if (key.revoked_at !== null) return `revoked ${day(key.revoked_at)}`;
  return key.expires_at === null ? 'active' : `active until ${day(key.expires_at)}`;
}

function day(seconds: number): string {
  return new Date(seconds * 1_000).toISOString().slice(0, 10);
}
