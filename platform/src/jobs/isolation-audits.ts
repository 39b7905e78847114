/**
 * Runs isolation audits: one at a time over all replicas, when an operator asks and on a schedule. Every report is signed, chained and kept; a leak is
 * said in the log and in the metrics. A scheduled run sleeps between its requests to stay under its share of the capacity.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { AuditReport, Verdict } from '../audit/audit-report.ts';
import { type AuditParts, type ProbeFamily, runAudit } from '../audit/run-audit.ts';
import { signReport } from '../audit/sign-report.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { DocumentSigner } from '../primitives/signed-document.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { AuditRecord, AuditRecords } from '../tenancy/audit-records.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';

export interface AuditSettings {
  /** 0: no schedule. */
  readonly intervalMinutes: number;
  /** UTC, `HH:MM`: when the nightly full run is due. */
  readonly fullAtUtc: string;
  /** Of the time of one request after another. */
  readonly capacityShareMax: number;
  readonly canaryTenants: number;
  readonly durationMaxMinutes: number;
  readonly ingestionWaitMaxMs: number;
}

export interface IsolationAuditParts {
  readonly operator: OperatorScope;
  readonly records: AuditRecords;
  /** What a run needs; what it holds is put on the stack, which is disposed when the run ends. */
  readonly open: (run: AsyncDisposableStack) => Promise<AuditParts>;
  readonly signer: DocumentSigner;
  readonly settings: AuditSettings;
  readonly onReport: (outcome: AuditOutcome) => void;
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly logger: Logger;
}

export interface AuditOutcome {
  readonly verdict: Verdict;
  readonly leaks: number;
  readonly inconclusive: number;
  readonly finishedAtMs: number;
}

export interface AuditRequestOrder {
  readonly kind: 'full' | 'smoke';
  /** Keep to the share of scheduled runs. */
  readonly paced: boolean;
  readonly only: readonly ProbeFamily[] | undefined;
  /** Beside or instead of the canary tenants. */
  readonly tenants: readonly string[];
  readonly withCanaryTenants: boolean;
}

export interface RunningAudit {
  readonly id: string;
  readonly kind: 'full' | 'smoke';
  readonly startedAtMs: number;
  readonly step: string;
}

const leaseMs = 120_000;
const lookEveryMs = 15_000;
const minuteMs = 60_000;
const dayMs = 86_400_000;

export class IsolationAudits implements AsyncDisposable {
  readonly #parts: IsolationAuditParts;
  readonly #stop = new AbortController();
  readonly #openedAtMs: number;
  #running: RunningAudit | undefined;
  #work: Promise<void> = Promise.resolve();
  #schedule: Promise<void> = Promise.resolve();
  #failures = new Map<string, string>();

  constructor(parts: IsolationAuditParts) {
    this.#parts = parts;
    this.#openedAtMs = parts.clock.nowMs();
  }

  get running(): RunningAudit | undefined {
    return this.#running;
  }

  /** Why a run of this id ended without a report; known to the process that ran it, for the last few runs. */
  failureOf(id: string): string | undefined {
    return this.#failures.get(id);
  }

  /** Resolves with the id as soon as the run has begun. Throws `not_ready` while another runs. */
  async start(order: AuditRequestOrder): Promise<string> {
    return (await this.#begin(order, 'operator')).id;
  }

  find(id: string): Promise<AuditRecord | undefined> {
    return this.#parts.records.find(this.#parts.operator, id);
  }

  list(page: { readonly limit: number; readonly beforeNumber?: number | undefined }): Promise<readonly Omit<AuditRecord, 'text'>[]> {
    return this.#parts.records.list(this.#parts.operator, page);
  }

  startSchedule(): void {
    if (this.#parts.settings.intervalMinutes > 0) this.#schedule = this.#followSchedule();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new BulkheadError('shutting_down', 'the server is shutting down'));
    await Promise.all([this.#work, this.#schedule]);
  }

  async #begin(order: AuditRequestOrder, trigger: 'operator' | 'schedule'): Promise<{ readonly id: string; readonly done: Promise<void> }> {
    const { records, operator, ids, clock } = this.#parts;
    if (this.#running !== undefined || this.#stop.signal.aborted) throw alreadyRunning();
    const id = ids.next('audit_');
    this.#running = { id, kind: order.kind, startedAtMs: clock.nowMs(), step: 'starting' };
    try {
      if (!(await records.claim(operator, id, leaseMs))) throw alreadyRunning();
    } catch (error) {
      this.#running = undefined;
      throw error;
    }
    this.#work = this.#run(id, order, trigger);
    return { id, done: this.#work };
  }

  /** Never rejects. */
  async #run(id: string, order: AuditRequestOrder, trigger: 'operator' | 'schedule'): Promise<void> {
    const { records, operator, logger, settings } = this.#parts;
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(settings.durationMaxMinutes * minuteMs)]);
    const beat = setInterval(() => void records.claim(operator, id, leaseMs).catch(() => {}), leaseMs / 4);
    try {
      await using run = new AsyncDisposableStack();
      const report = await runAudit(await this.#parts.open(run), {
        id,
        kind: order.kind,
        trigger,
        only: order.only,
        canaryTenants: order.withCanaryTenants ? settings.canaryTenants : 0,
        tenants: order.tenants,
        capacityShareMax: order.paced ? settings.capacityShareMax : undefined,
        ingestionWaitMaxMs: settings.ingestionWaitMaxMs,
        signal,
        onStep: (step) => this.#show(step),
      });
      await this.#keep(report);
    } catch (error) {
      const reason = error instanceof BulkheadError ? error.message : 'the audit could not be run';
      this.#remember(id, reason);
      logger.error(
        { component: 'audit', code: error instanceof BulkheadError ? error.code : undefined, ...stackOf(error) },
        'an isolation audit did not end with a report',
      );
    } finally {
      clearInterval(beat);
      await records.release(operator, id).catch(() => {});
      this.#running = undefined;
    }
  }

  #show(step: string): void {
    if (this.#running !== undefined) this.#running = { ...this.#running, step };
  }

  #remember(id: string, reason: string): void {
    this.#failures = new Map([...this.#failures, [id, reason] as const].slice(-failuresKept));
  }

  async #keep(report: AuditReport): Promise<void> {
    const { records, operator, signer, onReport, logger } = this.#parts;
    const { id, kind, verdict, summary } = report;
    await records.keep(operator, (place) => {
      const signed = signReport(report, place, signer);
      const startedAtMs = Date.parse(report.startedAt);
      return { number: place.number, id, kind, verdict, startedAtMs, head: signed.body.chainHead, text: JSON.stringify(signed) };
    });
    onReport({ verdict, leaks: summary.leak, inconclusive: summary.inconclusive, finishedAtMs: Date.parse(report.finishedAt) });
    const fields = { component: 'audit', jobId: id, count: summary.leak, durationMs: report.durationMs };
    if (verdict === 'LEAK') {
      logger.error(
        { ...fields, code: 'isolation_leak' },
        `ISOLATION LEAK: bulkhead audit show ${id} says where; docs/guides/isolation-audit.md says what to do`,
      );
    } else if (verdict === 'INCONCLUSIVE') {
      logger.warn(
        { ...fields, code: 'isolation_unknown', count: summary.inconclusive },
        `the isolation audit is inconclusive: bulkhead audit show ${id}`,
      );
    } else logger.info(fields, 'the isolation audit passed');
  }

  async #followSchedule(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await sleep(lookEveryMs, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
      const kind = await this.#dueKind().catch(() => undefined);
      if (kind === undefined) continue;
      const order = { kind, paced: true, only: undefined, tenants: [], withCanaryTenants: true } as const;
      const begun = await this.#begin(order, 'schedule').catch(() => undefined);
      await begun?.done;
    }
  }

  /** By the reports of all replicas. */
  async #dueKind(): Promise<'full' | 'smoke' | undefined> {
    const recent = await this.list({ limit: 200 });
    return dueAudit(this.#parts.settings, {
      nowMs: this.#parts.clock.nowMs(),
      openedAtMs: this.#openedAtMs,
      lastMs: recent[0]?.startedAtMs,
      lastFullMs: recent.find(({ kind }) => kind === 'full')?.startedAtMs,
    });
  }
}

/** Nothing is due before one interval has passed since the process started and since the last run of any replica. */
export function dueAudit(
  settings: Pick<AuditSettings, 'intervalMinutes' | 'fullAtUtc'>,
  times: {
    readonly nowMs: number;
    readonly openedAtMs: number;
    readonly lastMs: number | undefined;
    readonly lastFullMs: number | undefined;
  },
): 'full' | 'smoke' | undefined {
  const { nowMs, openedAtMs, lastMs = 0, lastFullMs = 0 } = times;
  if (nowMs - Math.max(openedAtMs, lastMs) < settings.intervalMinutes * minuteMs) return undefined;
  return lastFullMs < lastTimeOfDayMs(settings.fullAtUtc, nowMs) ? 'full' : 'smoke';
}

const failuresKept = 16;

/** The latest moment at this time of day that is not in the future. */
function lastTimeOfDayMs(timeUtc: string, nowMs: number): number {
  const [hours = 0, minutes = 0] = timeUtc.split(':').map(Number);
  const today = Math.floor(nowMs / dayMs) * dayMs + (hours * 60 + minutes) * minuteMs;
  return today <= nowMs ? today : today - dayMs;
}

function alreadyRunning(): BulkheadError {
  return new BulkheadError('not_ready', 'An isolation audit is running already; ask for it with GET /admin/v1/audits.');
}

function stackOf(error: unknown): { readonly stack?: string } {
  if (!(error instanceof Error) || error instanceof BulkheadError) return {};
  return { stack: [error.name, ...(error.stack?.split('\n').filter((line) => line.trimStart().startsWith('at ')) ?? [])].join('\n') };
}
