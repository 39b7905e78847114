/** The command line: one command, one file. Exit codes: 0 done, 1 failed, 2 used wrongly. */
import { Command, CommanderError } from 'commander';
import { ConfigError } from '../config/load.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { auditCommand } from './audit.ts';
import { CommandError } from './command-error.ts';
import { demoCommand } from './demo.ts';
import { deploymentCommand } from './deployment.ts';
import { doctorCommand } from './doctor.ts';
import { signingKeyCommand, verifyReceiptCommand } from './erasure.ts';
import { keyCommand } from './key.ts';
import { migrateCommand } from './migrate.ts';
import { rotateKeysCommand } from './rotate-keys.ts';
import { serveCommand } from './serve.ts';
import { tenantCommand } from './tenant.ts';
import { tokenCommand } from './token.ts';
import { usageCommand } from './usage.ts';
import { productVersion } from './version.ts';

/** Runs one command and resolves with the exit code. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  const program = new Command('bulkhead')
    .description('Self-hosted multi-tenant AI platform: one process between your product and its model providers.')
    .version(productVersion())
    .option('-c, --config <file>', 'configuration file (default: bulkhead.yaml, or $BULKHEAD_CONFIG)')
    .exitOverride()
    .showHelpAfterError('(add --help for the options and an example)');
  for (const command of [
    serveCommand,
    tenantCommand,
    keyCommand,
    tokenCommand,
    usageCommand,
    auditCommand,
    deploymentCommand,
    demoCommand,
    rotateKeysCommand,
    doctorCommand,
    migrateCommand,
    verifyReceiptCommand,
    signingKeyCommand,
  ]) {
    program.addCommand(command());
  }
  try {
    await program.parseAsync([...argv]);
    return Number(process.exitCode ?? 0);
  } catch (error) {
    return exitCodeOf(error);
  }
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof BulkheadError || error instanceof ConfigError || error instanceof CommandError) {
    process.stderr.write(`bulkhead: ${error.message}\n`);
    return 1;
  }
  throw error;
}
