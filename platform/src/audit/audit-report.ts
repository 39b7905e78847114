/** What an audit found: one record a probe, summed by surface. Evidence is hashes and canary ids, never content. */
import type { AuditVerdict } from '../tenancy/audit-records.ts';

export type Verdict = AuditVerdict;

/** What is looked at, in the order it is shown. */
export const surfaces = {
  chunks: 'chunk text and vectors',
  attributes: 'chunk attributes',
  files: 'files and their bodies',
  stores: 'vector stores, names, metadata',
  batches: 'file batches',
  conversations: 'conversations',
  idempotency: 'kept answers',
  models: 'models and inference',
  limits: 'limits and usage',
  credentials: 'credentials',
  operator: 'operator routes',
  open: 'open routes',
  jobs: 'background jobs',
  tables: 'rows in the database',
  catalogue: 'database catalogue',
  concurrency: 'interleaved requests',
  registry: 'routes, tables and jobs with a probe',
} as const;

export type Surface = keyof typeof surfaces;

export interface ProbeResult {
  /** Family and number, as in docs/guides/isolation-audit.md. */
  readonly id: string;
  readonly surface: Surface;
  readonly attacker: string;
  readonly victim: string;
  /** What was tried, in words. */
  readonly attempt: string;
  readonly expected: string;
  readonly got: string;
  /** That the owner does find it, or that the right credential does pass. */
  readonly positiveControl: 'held' | 'missing';
  readonly verdict: Verdict;
  readonly ms: number;
  /** SHA-256 of what came back, and the ids of canaries in it. */
  readonly evidence?: string;
}

export interface AuditReport {
  readonly object: 'audit';
  readonly id: string;
  readonly kind: 'full' | 'smoke';
  readonly trigger: 'operator' | 'schedule';
  /** Families that were run; null: all. */
  readonly only: readonly string[] | null;
  readonly startedAt: string;
  readonly finishedAt: string;
  readonly durationMs: number;
  readonly build: string;
  readonly schemaHash: string;
  readonly database: string;
  readonly tenants: readonly { readonly id: string; readonly kind: string; readonly isolation: string }[];
  readonly pairs: number;
  readonly verdict: Verdict;
  readonly summary: AuditSummary;
  readonly recallFloor: { readonly min: number | null; readonly tenant: string | null; readonly queries: number };
  readonly timing: readonly TimingResult[];
  readonly mutationScore: MutationScore | null;
  readonly capacity: CapacityShare;
  readonly notApplicable: readonly { readonly what: string; readonly reason: string }[];
  readonly probes: readonly ProbeResult[];
}

export interface AuditSummary {
  readonly pass: number;
  readonly leak: number;
  readonly inconclusive: number;
  readonly requests: number;
  readonly surfacesRegistered: number;
  readonly surfacesProbed: number;
  readonly surfaces: readonly SurfaceSummary[];
}

export interface SurfaceSummary {
  readonly surface: Surface;
  readonly families: readonly string[];
  readonly pass: number;
  readonly leak: number;
  readonly inconclusive: number;
}

export interface TimingResult {
  readonly question: string;
  readonly pairs: number;
  readonly foreignMedianMs: number;
  readonly absentMedianMs: number;
  /** Two-sided exact sign test over adjacent pairs. */
  readonly p: number;
}

export interface MutationScore {
  readonly killed: number;
  readonly total: number;
  readonly at: string;
  readonly survivors: readonly string[];
}

export interface CapacityShare {
  /** Undefined bound: an operator asked, and it ran as fast as one client. */
  readonly max: number | null;
  /** Time with a request under way over time in all. */
  readonly measured: number;
  readonly busyMs: number;
}

/** The worst of them; nothing at all is no pass. */
export function verdictOf(results: readonly { readonly verdict: Verdict }[]): Verdict {
  if (results.some(({ verdict }) => verdict === 'LEAK')) return 'LEAK';
  return results.length === 0 || results.some(({ verdict }) => verdict === 'INCONCLUSIVE') ? 'INCONCLUSIVE' : 'PASS';
}

export function countVerdicts(results: readonly ProbeResult[]) {
  const count = (wanted: Verdict) => results.filter(({ verdict }) => verdict === wanted).length;
  return { pass: count('PASS'), leak: count('LEAK'), inconclusive: count('INCONCLUSIVE') };
}

/** One row for each surface that was probed, in the order of the list above. */
export function bySurface(results: readonly ProbeResult[]): readonly SurfaceSummary[] {
  return (Object.keys(surfaces) as Surface[]).flatMap((surface) => {
    const own = results.filter((result) => result.surface === surface);
    if (own.length === 0) return [];
    const families = [...new Set(own.map(({ id }) => id.replace(/\d+$/, '')))].toSorted();
    return [{ surface, families, ...countVerdicts(own) }];
  });
}
