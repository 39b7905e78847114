/** `bulkhead migrate`: bring the database's schema up to this version. The embedded database does so by itself at start. */
import { Command } from 'commander';
import { migrateDatabase } from '../app/database.ts';
import { loadConfig, systemSources } from '../config/load.ts';
import { silentLogger } from '../telemetry/logger.ts';
import { type OutputOptions, print, withOutput } from './output.ts';

export function migrateCommand(): Command {
  const command = new Command('migrate')
    .description('Apply pending migrations as the owner (database.ownerUrl) and check the catalogue.')
    .action(async (options: OutputOptions, self: Command) => {
      const { config } = loadConfig(systemSources(self.optsWithGlobals<{ config?: string }>().config));
      const result = await migrateDatabase(config, silentLogger);
      print(options, result, () =>
        result.applied.length === 0
          ? `nothing to do, the schema is at ${result.version}`
          : `applied ${result.applied.join(', ')}; the schema is at ${result.version}`,
      );
    });
  return withOutput(command, 'BULKHEAD_CONFIG=bulkhead.yaml bulkhead migrate');
}
