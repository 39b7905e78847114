/** `bulkhead token`: a development JWT. Demo mode only: a real tenant's tokens come from its identity provider. */
import { Command } from 'commander';
import { mintDevelopmentToken, openDevelopmentIssuer } from '../auth/dev-issuer.ts';
import { loadConfig, systemSources } from '../config/load.ts';
import { systemClock } from '../primitives/clock.ts';
import { parseTenantId } from '../primitives/ids.ts';
import { CommandError } from './command-error.ts';
import { type OutputOptions, print, withOutput } from './output.ts';

export function tokenCommand(): Command {
  const command = new Command('token')
    .description('Mint a development JWT for a demo tenant.')
    .argument('<tenant>', 'the tenant it names')
    .option('--user <user>', 'who acts', 'developer')
    .option('--tier <tier>', 'tier claim (default: the tenant’s own)')
    .option('--expires-in-seconds <seconds>', 'life time, at most 86400', '3600')
    .action(async (tenant: string, options: OutputOptions & { user: string; tier?: string; expiresInSeconds: string }, self: Command) => {
      const loaded = loadConfig(systemSources(self.optsWithGlobals<{ config?: string }>().config));
      if (!loaded.demo) throw new CommandError('development tokens exist in demo mode only; ask your identity provider for a token');
      const tenantId = parseTenantId(tenant);
      if (tenantId === undefined) throw new CommandError(`${JSON.stringify(tenant)} is not a tenant id`);
      const issuer = await openDevelopmentIssuer(loaded.config.dataDir);
      const expiresInSeconds = Math.min(Number(options.expiresInSeconds) || 3_600, 86_400);
      const token = await mintDevelopmentToken(issuer, {
        tenant: tenantId,
        user: options.user,
        tier: options.tier,
        expiresInSeconds,
        clock: systemClock,
      });
      print(options, { token, expires_in: expiresInSeconds }, () => token);
    });
  return withOutput(command, 'bulkhead token acme --user ada');
}
