/** `bulkhead tenant export|import`. The archive is copied from and to the data directory, never held in memory. */
import { randomBytes } from 'node:crypto';
import { constants, readFileSync } from 'node:fs';
import { chmod, copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { Command } from 'commander';
import { loadConfig, systemSources } from '../config/load.ts';
import { openAdminClient } from './admin-client.ts';
import { CommandError } from './command-error.ts';
import { type OutputOptions, print, withOutput } from './output.ts';

type Export = {
  readonly status: 'exporting' | 'completed' | 'failed';
  readonly failure: string | null;
  readonly file: string | null;
  readonly bytes: number | null;
};

const pollMs = 300;

export function exportCommand(): Command {
  const command = new Command('export')
    .description('Write everything a tenant owns into a signed archive. With the embedded database the tenant is suspended first.')
    .argument('<id>', 'the tenant')
    .requiredOption('--out <file>', 'where the archive goes; it holds content in plain')
    .action(async (id: string, options: OutputOptions & { out: string }, self: Command) => {
      await using client = await openAdminClient(self);
      const path = `/admin/v1/tenants/${encodeURIComponent(id)}/export`;
      let state = (await client.call('POST', path)) as Export;
      while (state.status === 'exporting') {
        await wait(pollMs);
        state = (await client.call('GET', path)) as Export;
      }
      if (state.status === 'failed' || state.file === null) throw new CommandError(state.failure ?? 'the export failed');
      await copyFile(join(dataDirOf(self), 'exports', state.file), options.out, constants.COPYFILE_EXCL).catch(
        (error: NodeJS.ErrnoException) => {
          throw new CommandError(error.code === 'EEXIST' ? `${options.out} is there already` : `${options.out} cannot be written`);
        },
      );
      await chmod(options.out, 0o600);
      print(
        options,
        state,
        () => `exported ${id} to ${options.out} (${state.bytes} bytes); the server keeps its copy until the tenant is erased`,
      );
    });
  return withOutput(command, 'bulkhead tenant export acme --out acme.tar');
}

export function importCommand(): Command {
  const command = new Command('import')
    .description('Make a tenant from an archive, with everything it owned but its keys and its bill. All of it, or nothing.')
    .argument('<file>', 'the archive')
    .option('--as <id>', 'under this id (default: the id it had)')
    .option('--public-key <file>', 'PEM of the installation that exported (default: this one)')
    .action(async (file: string, options: OutputOptions & { as?: string; publicKey?: string }, self: Command) => {
      await using client = await openAdminClient(self);
      const directory = join(dataDirOf(self), 'imports');
      const name = `${randomBytes(8).toString('hex')}.tar`;
      await mkdir(directory, { recursive: true, mode: 0o700 });
      try {
        await copyFile(file, join(directory, name)).catch(() => {
          throw new CommandError(`${file} cannot be read`);
        });
        const tenant = await client.call('POST', '/admin/v1/imports', {
          file: name,
          ...(options.as !== undefined && { as: options.as }),
          ...(options.publicKey !== undefined && { public_key: readFileSync(options.publicKey, 'utf8') }),
        });
        print(
          options,
          tenant,
          () => `imported tenant ${String(tenant['id'])}\nnext: bulkhead key create ${String(tenant['id'])} --name production`,
        );
      } finally {
        await rm(join(directory, name), { force: true });
      }
    });
  return withOutput(command, 'bulkhead tenant import acme.tar --as acme-restored');
}

function dataDirOf(self: Command): string {
  return loadConfig(systemSources(self.optsWithGlobals<{ config?: string }>().config)).config.dataDir;
}
