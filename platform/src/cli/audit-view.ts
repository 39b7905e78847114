/** An audit report as a person reads it: what was attacked, what held, and on one line the verdict. Nothing from outside can drive the terminal. */
import { type ProbeResult, type SurfaceSummary, surfaces, type Verdict } from '../audit/audit-report.ts';
import type { ChainedReport, SignedReport } from '../audit/sign-report.ts';
import type { SignatureFault } from '../primitives/signed-document.ts';
import { printable } from './output.ts';

export interface ViewOptions {
  readonly colour: boolean;
  /** Every probe, not only those that did not pass. */
  readonly verbose: boolean;
}

type Paint = (style: keyof typeof styles, text: string) => string;

const styles = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33 } as const;
const marks: Readonly<Record<Verdict, { readonly mark: string; readonly style: keyof typeof styles }>> = {
  PASS: { mark: '✓', style: 'green' },
  LEAK: { mark: '✗', style: 'red' },
  INCONCLUSIVE: { mark: '?', style: 'yellow' },
};
const findingsMax = 20;

/** Families in the order of their columns, with what they stand for. */
const families = {
  V: 'vector search',
  K: 'keywords',
  F: 'foreign ids',
  I: 'inside',
  B: 'jobs',
  U: 'limits',
  J: 'credentials',
  Q: 'concurrency',
  G: 'doors',
  L: 'catalogue',
} as const;

export function auditView(report: ChainedReport, { colour, verbose }: ViewOptions): string {
  const paint: Paint = (style, text) => (colour ? `\x1b[${styles[style]}m${text}\x1b[0m` : text);
  return [
    '',
    ...heading(report, paint),
    '',
    ...matrix(report, paint),
    '',
    ...findings(report.probes, paint),
    ...(verbose ? [...everyProbe(report.probes, paint), ''] : []),
    ...facts(report, paint),
    '',
    bottomLine(report, paint),
    '',
  ].join('\n');
}

function heading({ kind, only, trigger, tenants, pairs, build, database, startedAt }: ChainedReport, paint: Paint): string[] {
  const who = tenants.map(({ id, isolation }) => (isolation === 'siloed' ? `${id} (siloed)` : id)).join(', ');
  const when = startedAt.slice(0, 19).replace('T', ' ');
  return [
    `  ${paint('bold', 'Isolation audit')}   ${kind} run${only === null ? '' : ` of ${only.join(', ')}`} ${trigger === 'schedule' ? 'on schedule' : 'by hand'}, ${when} UTC`,
    paint('dim', `  Bulkhead ${build}, ${printable(database)}`),
    paint('dim', `  ${printable(who)}: each attacked every other, ${pairs} pairs`),
  ];
}

/** Surfaces down, families of probes across. */
function matrix({ probes, summary }: ChainedReport, paint: Paint): string[] {
  const names = (Object.keys(families) as (keyof typeof families)[]).filter((family) => probes.some((probe) => familyOf(probe) === family));
  const label = Math.max(...summary.surfaces.map(({ surface }) => surfaces[surface].length), 8);
  const head = `  ${''.padEnd(label)}  ${names.map((name) => name.padStart(cellWidth)).join('')}   verdict`;
  const rows = summary.surfaces.map((row) => surfaceRow(row, { probes, names, label, paint }));
  const used = names.map((name) => `${name} ${families[name]}`).join('  ');
  return [paint('dim', head), ...rows, '', paint('dim', `  ${used}`)];
}

const cellWidth = 6;

interface RowParts {
  readonly probes: readonly ProbeResult[];
  readonly names: readonly (keyof typeof families)[];
  readonly label: number;
  readonly paint: Paint;
}

function surfaceRow({ surface, pass, leak, inconclusive }: SurfaceSummary, { probes, names, label, paint }: RowParts): string {
  const own = probes.filter((probe) => probe.surface === surface);
  const cells = names.map((name) => {
    const asked = own.filter((probe) => familyOf(probe) === name);
    if (asked.length === 0) return paint('dim', '·'.padStart(cellWidth));
    const worst = worstOf(asked);
    const failed = asked.filter(({ verdict }) => verdict !== 'PASS').length;
    const text = worst === 'PASS' ? String(asked.length) : `${failed}${marks[worst].mark}`;
    return worst === 'PASS' ? text.padStart(cellWidth) : paint(marks[worst].style, text.padStart(cellWidth));
  });
  const verdict: Verdict = leak > 0 ? 'LEAK' : inconclusive > 0 ? 'INCONCLUSIVE' : 'PASS';
  const { mark, style } = marks[verdict];
  const total = pass + leak + inconclusive;
  const count = verdict === 'PASS' ? '' : paint('dim', `  ${leak + inconclusive} of ${total}`);
  return `  ${surfaces[surface].padEnd(label)}  ${cells.join('')}   ${paint(style, `${mark} ${verdict}`)}${count}`;
}

function worstOf(probes: readonly ProbeResult[]): Verdict {
  if (probes.some(({ verdict }) => verdict === 'LEAK')) return 'LEAK';
  return probes.some(({ verdict }) => verdict === 'INCONCLUSIVE') ? 'INCONCLUSIVE' : 'PASS';
}

/** `L05` and `V1` both begin with their family. */
function familyOf({ id }: ProbeResult): string {
  return id.charAt(0);
}

/** What did not pass, leaks first. */
function findings(probes: readonly ProbeResult[], paint: Paint): string[] {
  const bad = [...probes.filter(({ verdict }) => verdict === 'LEAK'), ...probes.filter(({ verdict }) => verdict === 'INCONCLUSIVE')];
  if (bad.length === 0) return [];
  const alike = [...Map.groupBy(bad, ({ id, verdict, attempt, expected }) => JSON.stringify([id, verdict, attempt, expected])).values()];
  const shown = alike.slice(0, findingsMax).flatMap((probes) => describe(probes, paint));
  const rest = alike.length > findingsMax ? [paint('dim', `  and ${alike.length - findingsMax} more kinds; --json has them all`)] : [];
  return [...shown, ...rest, ''];
}

/** The first of those that differ in nothing but who attacked whom. */
function describe([probe, ...others]: readonly ProbeResult[], paint: Paint): string[] {
  if (probe === undefined) return [];
  const { mark, style } = marks[probe.verdict];
  const more = others.length === 0 ? '' : paint('dim', `  and ${others.length} more`);
  const { id, attacker, victim, attempt, expected, got, positiveControl, evidence } = probe;
  const control = positiveControl === 'missing' ? paint('yellow', '  (no positive control)') : '';
  return [
    `  ${paint(style, `${mark} ${id.padEnd(4)}`)} ${printable(attacker)} → ${printable(victim)}${more}   ${printable(attempt)}`,
    paint('dim', `         expected ${printable(expected)}; got `) + printable(got) + control,
    ...(evidence === undefined ? [] : [paint('dim', `         ${printable(evidence)}`)]),
  ];
}

function everyProbe(probes: readonly ProbeResult[], paint: Paint): string[] {
  return probes.map((probe) => {
    const { mark, style } = marks[probe.verdict];
    const { id, attacker, victim, attempt, got, ms } = probe;
    return `  ${paint(style, mark)} ${id.padEnd(4)} ${printable(`${attacker} → ${victim}`).padEnd(24)} ${printable(attempt)}${paint('dim', `  ${printable(got)}, ${ms} ms`)}`;
  });
}

function facts(report: ChainedReport, paint: Paint): string[] {
  const { summary, recallFloor, mutationScore, capacity, timing } = report;
  const line = (name: string, text: string) => `  ${paint('dim', name.padEnd(10))} ${text}`;
  const lines = [
    line('coverage', `${summary.surfacesProbed} of ${summary.surfacesRegistered} registered routes, tables and job kinds have a probe`),
  ];
  if (recallFloor.min !== null) {
    lines.push(
      line('recall', `${recallFloor.min.toFixed(3)} at worst (${printable(recallFloor.tenant ?? '-')}), ${recallFloor.queries} queries`),
    );
  }
  for (const { question, foreignMedianMs, absentMedianMs, p } of timing) {
    lines.push(
      line(
        'timing',
        `${question}: foreign ${foreignMedianMs.toFixed(2)} ms, absent ${absentMedianMs.toFixed(2)} ms, p ${p.toPrecision(2)}`,
      ),
    );
  }
  if (mutationScore !== null) {
    lines.push(line('self-test', `${mutationScore.killed} of ${mutationScore.total} planted leaks caught (${mutationScore.at})`));
  }
  const share =
    capacity.max === null ? 'not paced' : `${(capacity.measured * 100).toFixed(2)} % of the time, at most ${capacity.max * 100} %`;
  lines.push(line('load', `${summary.requests} requests, ${(capacity.busyMs / 1_000).toFixed(1)} s under way, ${share}`));
  lines.push(line('report', `${report.id}, number ${report.number} of its chain, signed (ed25519)`));
  return lines;
}

function bottomLine({ verdict, summary, durationMs }: ChainedReport, paint: Paint): string {
  const { mark, style } = marks[verdict];
  const total = summary.pass + summary.leak + summary.inconclusive;
  const counts = `${count(summary.pass)} of ${count(total)} probes passed, ${summary.leak} leaks, ${summary.inconclusive} inconclusive`;
  return `  ${paint(style, paint('bold', `${mark} ${verdict}`))}   ${counts}   ${(durationMs / 1_000).toFixed(1)} s`;
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** Of `bulkhead audit verify`. */
export function checkLine(fault: SignatureFault | undefined, report: unknown): string {
  if (fault !== undefined) return `✗ ${fault}`;
  const { id, verdict, startedAt, number } = (report as SignedReport).body;
  return `✓ genuine: ${printable(id)}, number ${number}, ${verdict}, ${printable(startedAt)}`;
}
