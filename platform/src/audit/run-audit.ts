/**
 * One audit: plant canaries in every audited tenant, attack every ordered pair through the real edge and from inside, let the owners clear up, and
 * report. Whatever could not be tried is INCONCLUSIVE, and so is the run.
 */
import { type Clock, systemClock } from '../primitives/clock.ts';
import { AuditBook, type CallerParts, Pace, PlantingError } from './attempt.ts';
import type { AuditGround, AuditTarget, EnrolledTenant, JobForger, SurfaceRegistry, TruthReader } from './audit-ports.ts';
import { type AuditReport, bySurface, countVerdicts, type MutationScore, type TimingResult, verdictOf } from './audit-report.ts';
import { type CanaryTenant, type OwnDeletions, type Planting, plantCanaries, removeCanaries } from './canary-tenant.ts';
import type { CanaryTokens } from './canary-token.ts';
import { probeConfusion } from './probes/confusion.ts';
import { probeCredentials } from './probes/credentials.ts';
import { probeDoors } from './probes/doors.ts';
import { probeCatalogue, probeInside, probeJobs } from './probes/inside.ts';
import { probeLimits } from './probes/limits.ts';
import { type ProbeContext, pairsOf } from './probes/probe-context.ts';
import { type PendingDeletions, probeRoutes } from './probes/routes.ts';
import { probeRecall, probeSearch, type RecallFloor } from './probes/search.ts';
import { probeTiming } from './probes/timing.ts';
import { jobCases, routeCases, tableCases } from './surface-cases.ts';

export interface AuditParts {
  readonly target: AuditTarget;
  readonly ground: AuditGround;
  readonly registry: SurfaceRegistry;
  readonly truth: TruthReader;
  readonly forger: JobForger;
  readonly tokens: CanaryTokens;
  readonly clock?: Clock;
  /** Undefined: no conversation is planted. */
  readonly chatModel: string | undefined;
  readonly embeddingModel: string;
  readonly build: string;
  readonly database: string;
  readonly mutationScore: MutationScore | null;
}

export interface AuditOrder {
  readonly id: string;
  readonly kind: 'full' | 'smoke';
  readonly trigger: 'operator' | 'schedule';
  /** These families alone: to look again at what an earlier run found. Undefined: all. */
  readonly only: readonly ProbeFamily[] | undefined;
  /** Canary tenants; 2 or more unless `tenants` are named. */
  readonly canaryTenants: number;
  /** Tenants that somebody uses, with their operator's consent: one opaque chunk each. */
  readonly tenants: readonly string[];
  /** Undefined: as fast as one client. */
  readonly capacityShareMax: number | undefined;
  readonly ingestionWaitMaxMs: number;
  readonly signal: AbortSignal;
  /** Told what is being done, as it starts. */
  readonly onStep?: ((step: string) => void) | undefined;
}

/** Families of probes, in the order they run. Each is tried even when another could not be. */
export const probeFamilies = [
  'inside',
  'search',
  'recall',
  'routes',
  'doors',
  'credentials',
  'limits',
  'confusion',
  'jobs',
  'timing',
] as const;
export type ProbeFamily = (typeof probeFamilies)[number];

/** Rejects only when not even the tenants could be enrolled; every later failure is in the report. */
export async function runAudit(parts: AuditParts, order: AuditOrder): Promise<AuditReport> {
  const { clock = systemClock } = parts;
  const startedAt = new Date(clock.nowMs());
  const beganMs = clock.monotonicMs();
  const book = new AuditBook();
  const calling: CallerParts = {
    target: parts.target,
    tokens: parts.tokens,
    facts: new Map(),
    pace: new Pace(clock, order.capacityShareMax),
    signal: order.signal,
  };
  order.onStep?.('enrolling the canary tenants');
  const enrolled = await enrol(parts, order);
  const measured = await attack({ parts, order, book, calling }, enrolled);
  return {
    object: 'audit',
    id: order.id,
    kind: order.kind,
    trigger: order.trigger,
    only: order.only ?? null,
    startedAt: startedAt.toISOString(),
    finishedAt: new Date(clock.nowMs()).toISOString(),
    durationMs: Math.round(clock.monotonicMs() - beganMs),
    build: parts.build,
    schemaHash: await parts.truth.schemaHash(),
    database: parts.database,
    tenants: enrolled.map(({ tenantId, kind, isolation }) => ({ id: tenantId, kind, isolation })),
    pairs: enrolled.length * (enrolled.length - 1),
    verdict: verdictOf(book.results),
    summary: await summaryOf(parts, { book, calling }),
    ...measured,
    mutationScore: parts.mutationScore,
    capacity: calling.pace.share,
    notApplicable,
    probes: book.results,
  };
}

async function enrol({ ground }: AuditParts, { canaryTenants, tenants }: AuditOrder): Promise<readonly EnrolledTenant[]> {
  const enrolled = [...(canaryTenants > 0 ? await ground.enrol(canaryTenants) : [])];
  for (const tenant of tenants) enrolled.push(await ground.admit(tenant));
  return enrolled;
}

interface Running {
  readonly parts: AuditParts;
  readonly order: AuditOrder;
  readonly book: AuditBook;
  readonly calling: CallerParts;
}

interface Measured {
  readonly recallFloor: RecallFloor;
  readonly timing: readonly TimingResult[];
}

async function attack(running: Running, enrolled: readonly EnrolledTenant[]): Promise<Measured> {
  const { parts, order, book, calling } = running;
  const { ground } = parts;
  const { kind } = order;
  const planting: Planting = {
    ground,
    calling,
    options: { kind, chatModel: parts.chatModel, ingestionWaitMaxMs: order.ingestionWaitMaxMs },
  };
  const planted: CanaryTenant[] = [];
  let measured: Measured = { recallFloor: { min: null, tenant: null, queries: 0 }, timing: [] };
  let pending: PendingDeletions = [];
  try {
    // Before anything is planted: it needs nothing, and on a broken system it may be all that can be said.
    if (order.only?.includes('inside') !== false) await probeCatalogue({ ...parts, book });
    order.onStep?.('planting canaries');
    for (const tenant of enrolled) planted.push(await plantCanaries(planting, tenant));
    const context: ProbeContext = { ...parts, kind, tenants: planted, pairs: pairsOf(planted), book, calling };
    const search = await runFamilies(running, context, (routes) => {
      pending = routes;
    });
    measured = search;
  } catch (error) {
    addFailure(book, 'plant canaries', error);
  } finally {
    order.onStep?.('letting the owners clear up');
    const deletions = new Map<string, OwnDeletions>();
    for (const tenant of planted) deletions.set(tenant.name, await removeCanaries(planting, tenant, book));
    for (const judge of pending) judge(deletions);
  }
  return measured;
}

/** One family that fails leaves the others to be tried. */
async function runFamilies(
  { order, book }: Running,
  context: ProbeContext,
  onPending: (pending: PendingDeletions) => void,
): Promise<Measured> {
  let recallFloor: RecallFloor = { min: null, tenant: null, queries: 0 };
  let timing: readonly TimingResult[] = [];
  const runs: Readonly<Record<ProbeFamily, () => Promise<void>>> = {
    inside: () => probeInside(context),
    search: () => probeSearch(context),
    recall: async () => {
      recallFloor = await probeRecall(context);
    },
    routes: async () => onPending(await probeRoutes(context)),
    doors: () => probeDoors(context),
    credentials: () => probeCredentials(context),
    limits: () => probeLimits(context),
    confusion: () => probeConfusion(context),
    jobs: () => probeJobs(context),
    timing: async () => {
      timing = await probeTiming(context);
    },
  };
  for (const family of probeFamilies) {
    if (order.only !== undefined && !order.only.includes(family)) continue;
    order.onStep?.(`attacking: ${family}`);
    await runs[family]().catch((error: unknown) => addFailure(book, family, error));
  }
  return { recallFloor, timing };
}

/** The name or code alone: a message may quote an answer. */
function addFailure(book: AuditBook, attempt: string, error: unknown): void {
  const code = (error as { readonly code?: unknown }).code;
  const got =
    error instanceof PlantingError ? error.message : typeof code === 'string' ? code : error instanceof Error ? error.name : 'failed';
  const what = { id: 'R0', surface: 'registry', attacker: '-', victim: '-', attempt, expected: 'it can be tried' } as const;
  book.add({ ...what, got, control: false, leaked: false, ms: 0 });
}

async function summaryOf({ registry }: AuditParts, { book, calling }: Pick<Running, 'book' | 'calling'>) {
  const tables = await registry.tables();
  const names = registry.routes.filter(({ auth }) => auth === 'tenant').map(({ method, path }) => `${method} ${path}`);
  const others = registry.routes.length - names.length;
  const probed =
    others +
    names.filter((name) => routeCases[name] !== undefined).length +
    tables.filter((table) => tableCases[table] !== undefined).length +
    registry.jobKinds.filter((kind) => jobCases[kind] !== undefined).length;
  return {
    ...countVerdicts(book.results),
    requests: calling.pace.requests,
    surfacesRegistered: registry.routes.length + tables.length + registry.jobKinds.length,
    surfacesProbed: probed,
    surfaces: bySurface(book.results),
  };
}

/** Families of the catalogue of attacks for which the product has no surface today, or which need what a running system does not give away. */
const notApplicable = [
  { what: 'C semantic cache', reason: 'no cache of model answers exists; kept answers of idempotency keys are probed (I1)' },
  { what: 'N sessions', reason: 'stored responses are the only conversations; they are probed as routes (F)' },
  { what: 'T fine-tunes and adapters', reason: 'none exist' },
  {
    what: 'G webhooks, exports, traces',
    reason: 'none reach a tenant; metrics and open routes are probed (G3), the log is tested in route-silence',
  },
  { what: 'L obeying model', reason: 'models have no tool that reads; what a model is given is what a search of one’s own found (V, K)' },
  {
    what: 'R starvation, S outbound requests, X injection, H audit chain',
    reason: 'tested where they are built, not tried on a running system',
  },
  { what: 'J8 outbound fetch', reason: 'the token is refused; that nothing was fetched is seen in test/auth alone' },
  { what: 'J22 key rotation, J27 unknown-kid flood', reason: 'need an issuer with a JWKS; tested in test/auth' },
  { what: 'usage labels', reason: 'the ledger holds counts and key ids; no text of a tenant reaches it (I2 looks)' },
  { what: 'T2 membership, embedding inversion', reason: 'the API returns no vectors of stores' },
] as const;
