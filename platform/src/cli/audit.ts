/** `bulkhead audit`: attack the running system, tenant against tenant, and say what was found. Exit codes: 0 PASS, 1 LEAK, 2 INCONCLUSIVE or not run. */
import { readFileSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { Command } from 'commander';
import { openSecrets } from '../app/secrets.ts';
import type { Verdict } from '../audit/audit-report.ts';
import { probeFamilies } from '../audit/run-audit.ts';
import { reportFault, type SignedReport } from '../audit/sign-report.ts';
import { loadConfig, systemSources } from '../config/load.ts';
import { DocumentSigner } from '../primitives/signed-document.ts';
import { type AdminClient, openAdminClient } from './admin-client.ts';
import { auditView, checkLine } from './audit-view.ts';
import { CommandError } from './command-error.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';
import { StepLine } from './step-line.ts';

const base = '/admin/v1/audits';
const exitCodes: Readonly<Record<Verdict, number>> = { PASS: 0, LEAK: 1, INCONCLUSIVE: 2 };

interface AuditOptions extends OutputOptions {
  readonly smoke?: boolean;
  readonly paced?: boolean;
  readonly only?: string;
  readonly tenants?: string;
  readonly consent?: boolean;
  readonly canaryTenants: boolean;
  readonly verbose?: boolean;
}

export function auditCommand(): Command {
  const command = new Command('audit')
    .description('Attack the running system tenant against tenant and report PASS, LEAK or INCONCLUSIVE. Exit codes: 0, 1, 2.')
    .option('--smoke', 'the short run of the schedule: reads and searches, no conversation')
    .option('--paced', 'sleep between requests to stay under audit.capacityShareMax')
    .option('--only <families>', `comma-separated: ${probeFamilies.join(', ')}`)
    .option('--tenants <ids>', 'also these tenants, comma-separated: one opaque canary chunk each, removed afterwards')
    .option('--consent', 'the operator of those tenants agrees to the planting')
    .option('--no-canary-tenants', 'only the tenants that are named')
    .option('--verbose', 'list every probe')
    .action(runAuditCommand);
  command.addCommand(listCommand()).addCommand(showCommand()).addCommand(verifyCommand());
  return withOutput(command, 'bulkhead audit --smoke');
}

async function runAuditCommand(options: AuditOptions, self: Command): Promise<void> {
  // Whatever keeps the audit from its end, it is not a pass and not a leak.
  process.exitCode = exitCodes.INCONCLUSIVE;
  const report = await performAudit(options, self).catch((error: unknown) => {
    if (!(error instanceof Error)) throw error;
    process.stderr.write(`bulkhead: ${error.message}\n`);
    return undefined;
  });
  if (report === undefined) return;
  print(options, report, () => auditView(report.body, viewOptions(options)));
  process.exitCode = exitCodes[report.body.verdict];
}

async function performAudit(options: AuditOptions, self: Command): Promise<SignedReport> {
  await using client = await openAdminClient(self);
  const begun = await client.call('POST', base, {
    kind: options.smoke === true ? 'smoke' : 'full',
    paced: options.paced === true,
    ...(options.only !== undefined && { only: listOf(options.only) }),
    tenants: listOf(options.tenants ?? ''),
    consent: options.consent === true,
    canary_tenants: options.canaryTenants,
  });
  using line = new StepLine(options.json === true ? undefined : process.stderr);
  return await follow(client, String(begun['id']), (step) => line.show(step));
}

function listOf(text: string): readonly string[] {
  return text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

const pollMs = 200;

async function follow(client: AdminClient, id: string, onStep: (step: string) => void): Promise<SignedReport> {
  for (;;) {
    const answer = await client.call('GET', `${base}/${id}`);
    if (answer['status'] === undefined) return answer as unknown as SignedReport;
    if (answer['status'] === 'failed') throw new CommandError(`the audit was not run: ${String(answer['reason'])}`);
    onStep(String(answer['step']));
    await wait(pollMs);
  }
}

function viewOptions({ verbose }: { readonly verbose?: boolean }) {
  return { colour: process.stdout.isTTY && process.env['NO_COLOR'] === undefined, verbose: verbose === true };
}

function listCommand(): Command {
  const command = new Command('list').description('List the kept reports.').action(async (_: OutputOptions, self: Command) => {
    await using client = await openAdminClient(self);
    const answer = await client.call('GET', `${base}?limit=50`);
    const rows = answer['data'] as readonly { number: number; id: string; kind: string; verdict: string; started_at: number }[];
    print(self.optsWithGlobals<OutputOptions>(), answer, () =>
      rows.length === 0
        ? 'no audit has run yet'
        : table(
            ['NUMBER', 'STARTED', 'KIND', 'VERDICT', 'ID'],
            rows.map((row) => [row.number, new Date(row.started_at * 1_000).toISOString(), row.kind, row.verdict, row.id]),
          ),
    );
  });
  return withOutput(command, 'bulkhead audit list');
}

function showCommand(): Command {
  const command = new Command('show')
    .description('Show a kept report; the newest when no id is given.')
    .argument('[id]', 'the report')
    .option('--verbose', 'list every probe')
    .action(async (id: string | undefined, _: OutputOptions, self: Command) => {
      const options = self.optsWithGlobals<OutputOptions & { verbose?: boolean }>();
      await using client = await openAdminClient(self);
      const report = await client.call('GET', `${base}/${id ?? (await newestId(client))}`);
      if (report['status'] !== undefined) throw new CommandError('this audit is still running');
      print(options, report, () => auditView((report as unknown as SignedReport).body, viewOptions(options)));
    });
  return withOutput(command, 'bulkhead audit show');
}

async function newestId(client: AdminClient): Promise<string> {
  const { data } = (await client.call('GET', `${base}?limit=1`)) as unknown as { readonly data: readonly { readonly id: string }[] };
  if (data[0] === undefined) throw new CommandError('no audit has run yet');
  return data[0].id;
}

function verifyCommand(): Command {
  const command = new Command('verify')
    .description('Check the signature and hash of a report that was saved with --json.')
    .argument('<file>', 'the report')
    .option('--public-key <file>', 'PEM of the key to trust (default: this installation’s)')
    .action((file: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<OutputOptions & { publicKey?: string; config?: string }>();
      const publicKey = options.publicKey === undefined ? ownPublicKey(options.config) : readFileSync(options.publicKey, 'utf8');
      const report = readReport(file);
      const fault = reportFault(report, publicKey);
      print(options, { file, genuine: fault === undefined, fault: fault ?? null }, () => checkLine(fault, report));
      process.exitCode = fault === undefined ? 0 : 1;
    });
  return withOutput(command, 'bulkhead audit verify report.json');
}

function ownPublicKey(file: string | undefined): string {
  const { config } = loadConfig(systemSources(file));
  return new DocumentSigner(openSecrets(config.dataDir, config.auth.secret).documentSigning).publicKey;
}

function readReport(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    throw new CommandError(`${file} cannot be read as a report`);
  }
}
