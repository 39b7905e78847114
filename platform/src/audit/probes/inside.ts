/** The second observer: rows as each tenant's own transaction sees them, walls that are leaned on, forged jobs, and the catalogue lint. */
import type { TableTruth } from '../../tenancy/audit-records.ts';
import type { CanaryTenant } from '../canary-tenant.ts';
import { jobCases, tableCases } from '../surface-cases.ts';
import type { Pair, ProbeContext } from './probe-context.ts';

export async function probeInside(context: ProbeContext): Promise<void> {
  for (const tenant of context.tenants) await probeTables(context, tenant);
  for (const pair of context.pairs) await probeWalls(context, pair);
}

/** L: each finding of the lint is a hole, whether or not anybody has found it yet. */
export async function probeCatalogue({ truth, book, registry }: Pick<ProbeContext, 'truth' | 'book' | 'registry'>): Promise<void> {
  const beganMs = performance.now();
  const findings = await truth.lint();
  const tables = await registry.tables();
  const what = { surface: 'catalogue', attacker: '-', victim: 'every tenant', expected: 'no finding' } as const;
  const ms = performance.now() - beganMs;
  if (findings.length === 0) {
    const got = `no finding in ${tables.length} tables`;
    book.add({ ...what, id: 'L0', attempt: 'the catalogue lint', got, control: tables.length > 0, leaked: false, ms });
  }
  for (const { rule, means, object } of findings) {
    book.add({ ...what, id: rule, attempt: `the catalogue lint: ${object}`, got: means, control: true, leaked: true, ms });
  }
  for (const table of tables) {
    if (tableCases[table] !== undefined) continue;
    const missing = {
      id: 'G1',
      surface: 'registry',
      attacker: '-',
      victim: '-',
      attempt: `table ${table}`,
      control: false,
      ms: 0,
    } as const;
    book.add({ ...missing, expected: 'a case in audit/surface-cases.ts', got: 'none', leaked: false });
  }
}

/** I2: where canaries really are. */
async function probeTables(context: ProbeContext, tenant: CanaryTenant): Promise<void> {
  const beganMs = performance.now();
  const truths = await context.truth.scan(tenant.enrolled.tenantId);
  const ms = (performance.now() - beganMs) / Math.max(1, truths.length);
  for (const truth of truths) addTable(context, tenant, { truth, ms });
}

function addTable(context: ProbeContext, tenant: CanaryTenant, { truth, ms }: { readonly truth: TableTruth; readonly ms: number }): void {
  const { tokens } = context.calling;
  const tableCase = tableCases[truth.table];
  if (tableCase === undefined) return;
  const { tenantId } = tenant.enrolled;
  const marks = tokens.find(truth.text).map(({ token }) => token);
  const foreign = marks.filter((token) => !tokens.belongsTo(token, tenantId)).length;
  const own = marks.length - foreign;
  const isPlanted = tableCase.fullOnly !== true || tenant.ids.responseId !== undefined;
  const isConsented = tenant.enrolled.kind === 'by consent';
  const hasControl = tableCase.holds === 'empty' || !isPlanted || isConsented || (tableCase.holds === 'token' ? own > 0 : truth.rows > 0);
  context.book.add({
    id: 'I2',
    surface: 'tables',
    attacker: tenant.name,
    victim: 'all others',
    attempt: `${truth.table}: ${tableCase.why}`,
    expected: 'own rows and own canaries alone',
    got: `${truth.rows} rows, ${truth.foreignRows} foreign; ${own} own canaries, ${foreign} foreign`,
    control: hasControl,
    leaked: truth.foreignRows > 0 || foreign > 0,
    ms,
  });
}

/** I3: what must be refused, tried. */
async function probeWalls(context: ProbeContext, { attacker, victim }: Pair): Promise<void> {
  const beganMs = performance.now();
  const wires = await context.truth.tripwires(attacker.enrolled.tenantId, victim.enrolled.tenantId);
  const ms = (performance.now() - beganMs) / Math.max(1, wires.length);
  for (const { name, held, got } of wires) {
    const what = { id: 'I3', surface: 'tables', attacker: attacker.name, victim: victim.name, attempt: name, got, ms } as const;
    context.book.add({ ...what, expected: 'refused, or nothing', control: true, leaked: !held });
  }
}

/** B: a job that names the victim's file, with an envelope that was not sealed for it. Nothing of the victim may change. */
export async function probeJobs(context: ProbeContext): Promise<void> {
  const { registry, book, kind } = context;
  for (const job of registry.jobKinds) {
    if (jobCases[job] !== undefined) continue;
    const missing = { id: 'G1', surface: 'registry', attacker: '-', victim: '-', attempt: `job ${job}`, control: false, ms: 0 } as const;
    book.add({ ...missing, expected: 'a case in audit/surface-cases.ts', got: 'none', leaked: false });
  }
  if (kind === 'smoke') return;
  for (const pair of context.pairs) {
    if (pair.attacker.enrolled.kind !== 'canary' || pair.victim.enrolled.kind !== 'canary') continue;
    await probeForgedJob(context, pair, 'names the victim, unsigned');
    await probeForgedJob(context, pair, 'sealed by the attacker');
  }
}

async function probeForgedJob(
  context: ProbeContext,
  { attacker, victim }: Pair,
  envelope: 'names the victim, unsigned' | 'sealed by the attacker',
) {
  const { ids, caller } = victim;
  const beganMs = performance.now();
  const became = await context.forger.forge(attacker.enrolled.tenantId, victim.enrolled.tenantId, {
    kind: 'expire_file',
    envelope,
    storeId: ids.storeId,
    fileId: ids.fileId,
    signal: context.calling.signal,
  });
  const left = await caller.ask({ method: 'GET', path: `/v1/files/${ids.fileId}/content` });
  const isThere = left.status === 200 && left.body === victim.texts.vault;
  const expected = envelope === 'sealed by the attacker' ? 'done' : 'buried';
  context.book.add({
    id: 'B1',
    surface: 'jobs',
    attacker: attacker.name,
    victim: victim.name,
    attempt: `a job to delete the victim’s file, its envelope ${envelope}`,
    expected: `${expected} without effect`,
    got: isThere ? `${became}, the file is there` : `${became}, the file is gone`,
    control: became === expected,
    // Whoever takes an envelope that nobody sealed would take any.
    leaked: left.status === 404 || (envelope === 'names the victim, unsigned' && became === 'done'),
    ms: performance.now() - beganMs,
    answer: left,
  });
}
