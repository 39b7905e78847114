/** Kept audit reports and the claim of the run under way, in the control schema. */
import { sql } from 'kysely';
import type { Clock } from '../../primitives/clock.ts';
import type { AuditRecord, AuditRecords } from '../../tenancy/audit-records.ts';
import type { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Database, Sql } from './database.ts';

/** Writers of the chain queue here: two reports cannot take one place. */
const chainLock = 7_070_013;
const dayMs = 86_400_000;

export interface ReportBounds {
  /** Newest reports kept, whatever they say. */
  readonly reportsMax: number;
  /** Reports of a leak are evidence: kept this long beside them, at most `reportsMax` of them. */
  readonly leakReportDays: number;
}

export class PostgresAuditRecords implements AuditRecords {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #bounds: ReportBounds;

  constructor(database: Database, clock: Clock, bounds: ReportBounds) {
    this.#database = database;
    this.#clock = clock;
    this.#bounds = bounds;
  }

  async claim(operator: OperatorScope, runId: string, leaseMs: number): Promise<boolean> {
    const nowMs = this.#clock.nowMs();
    return this.#database.forOperator(operator).write(async (db) => {
      const { rows } = await sql`
        INSERT INTO control.audit_claim AS held (run_id, lease_until_ms) VALUES (${runId}, ${nowMs + leaseMs})
        ON CONFLICT (only_row) DO UPDATE SET run_id = excluded.run_id, lease_until_ms = excluded.lease_until_ms
         WHERE held.run_id = excluded.run_id OR held.lease_until_ms <= ${nowMs} RETURNING 1`.execute(db);
      return rows.length > 0;
    });
  }

  async release(operator: OperatorScope, runId: string): Promise<void> {
    await this.#database.forOperator(operator).write((db) => sql`DELETE FROM control.audit_claim WHERE run_id = ${runId}`.execute(db));
  }

  keep(operator: OperatorScope, make: Parameters<AuditRecords['keep']>[1]): Promise<AuditRecord> {
    return this.#database.forOperator(operator).write(async (db) => {
      await sql`SELECT pg_advisory_xact_lock(${chainLock})`.execute(db);
      const { rows } = await sql<{ readonly number: string; readonly head: string }>`
        SELECT number::text, head FROM control.audit_report ORDER BY ${byNumber} DESC LIMIT 1`.execute(db);
      const record = make({ number: Number(rows[0]?.number ?? 0) + 1, previous: rows[0]?.head ?? null });
      await sql`
        INSERT INTO control.audit_report (number, id, kind, verdict, started_at_ms, head, report)
        VALUES (${record.number}, ${record.id}, ${record.kind}, ${record.verdict}, ${record.startedAtMs}, ${record.head}, ${record.text})`.execute(
        db,
      );
      await this.#dropOld(db, record.number);
      return record;
    });
  }

  async find(operator: OperatorScope, id: string): Promise<AuditRecord | undefined> {
    const { rows } = await this.#database
      .forOperator(operator)
      .read((db) => sql<RecordRow>`SELECT ${columns}, report FROM control.audit_report WHERE id = ${id}`.execute(db));
    return rows[0] && { ...recordOf(rows[0]), text: rows[0].report };
  }

  async list(operator: OperatorScope, page: Parameters<AuditRecords['list']>[1]): Promise<readonly Omit<AuditRecord, 'text'>[]> {
    const before = page.beforeNumber ?? null;
    const { rows } = await this.#database.forOperator(operator).read((db) =>
      sql<RecordRow>`
        SELECT ${columns} FROM control.audit_report WHERE ${before}::bigint IS NULL OR number < ${before}::bigint
         ORDER BY ${byNumber} DESC LIMIT ${page.limit}`.execute(db),
    );
    return rows.map(recordOf);
  }

  async ownTenants(operator: OperatorScope): Promise<ReadonlySet<string>> {
    const { rows } = await this.#database
      .forOperator(operator)
      .read((db) => sql<{ readonly tenant_id: string }>`SELECT tenant_id FROM control.audit_tenant`.execute(db));
    return new Set(rows.map((row) => row.tenant_id));
  }

  async claimTenant(operator: OperatorScope, tenantId: string): Promise<void> {
    await this.#database
      .forOperator(operator)
      .write((db) => sql`INSERT INTO control.audit_tenant (tenant_id) VALUES (${tenantId}) ON CONFLICT DO NOTHING`.execute(db));
  }

  async #dropOld(db: Sql, newest: number): Promise<void> {
    const { reportsMax, leakReportDays } = this.#bounds;
    const leaksSinceMs = this.#clock.nowMs() - leakReportDays * dayMs;
    await sql`
      DELETE FROM control.audit_report WHERE number <= ${newest - reportsMax} AND NOT (verdict = 'LEAK' AND started_at_ms > ${leaksSinceMs}
        AND number IN (SELECT number FROM control.audit_report WHERE verdict = 'LEAK' ORDER BY number DESC LIMIT ${reportsMax}))`.execute(
      db,
    );
  }
}

/** Bare, it would be the text that is selected under this name, and 9 greater than 10. */
const byNumber = sql`audit_report.number`;
const columns = sql`number::text, id, kind, verdict, started_at_ms::text, head`;

interface RecordRow {
  readonly number: string;
  readonly id: string;
  readonly kind: AuditRecord['kind'];
  readonly verdict: AuditRecord['verdict'];
  readonly started_at_ms: string;
  readonly head: string;
  readonly report: string;
}

function recordOf({ number, id, kind, verdict, started_at_ms, head }: RecordRow): Omit<AuditRecord, 'text'> {
  return { number: Number(number), id, kind, verdict, startedAtMs: Number(started_at_ms), head };
}
