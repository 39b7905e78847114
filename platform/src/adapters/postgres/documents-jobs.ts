import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import type { Clock } from '../../primitives/clock.ts';
import type { ClaimedJob, JobFacts, JobQueue } from '../../rag/job-queue.ts';
import type { OperatorDatabase, Sql } from './database.ts';

/**
 * The durable queue, over every tenant, in the role that reaches no content. Tenants take turns: the tenant served longest ago is served next, so
 * 5,000 files of one delay a single file of another by at most the rest of one job. A claim costs the same however many jobs wait
 * (`control.claim_job`).
 */
export class PostgresJobQueue implements JobQueue {
  readonly #database: OperatorDatabase;
  readonly #clock: Clock;
  readonly #jobsPerTenantMax: number;

  /** `jobsPerTenantMax`: of one tenant that run at a time, over all processes. */
  constructor(database: OperatorDatabase, clock: Clock, jobsPerTenantMax: number) {
    this.#database = database;
    this.#clock = clock;
    this.#jobsPerTenantMax = jobsPerTenantMax;
  }

  async claim(leaseMs: number): Promise<ClaimedJob | undefined> {
    const nowMs = this.#clock.nowMs();
    return this.#database.write(async (db) => {
      const { rows } = await sql<JobRow>`
        SELECT id, tenant_id, kind, payload, envelope, attempts, lease
          FROM control.claim_job(${nowMs}, ${randomUUID()}, ${leaseMs}, ${this.#jobsPerTenantMax})`.execute(db);
      return rows[0] && claimedJob(rows[0]);
    });
  }

  async extend(job: ClaimedJob, leaseMs: number): Promise<boolean> {
    const untilMs = this.#clock.nowMs() + leaseMs;
    return this.#database.write(async (db) => {
      const { rows } = await sql`
        UPDATE control.job SET lease_until_ms = ${untilMs} WHERE id = ${job.id} AND lease = ${job.lease} RETURNING 1`.execute(db);
      return rows.length > 0;
    });
  }

  async complete(job: ClaimedJob): Promise<void> {
    await this.#database.write((db) => sql`DELETE FROM control.job WHERE id = ${job.id} AND lease = ${job.lease}`.execute(db));
  }

  async release(job: ClaimedJob, retry: { readonly delayMs: number; readonly countsAsAttempt: boolean }): Promise<void> {
    const readyAtMs = this.#clock.nowMs() + retry.delayMs;
    await this.#database.write((db) =>
      sql`
        WITH released AS (
          UPDATE control.job
             SET lease = NULL, lease_until_ms = NULL, ready_at_ms = ${readyAtMs}, attempts = attempts - ${retry.countsAsAttempt ? 0 : 1}
           WHERE id = ${job.id} AND lease = ${job.lease} RETURNING tenant_id, ready_at_ms)
        INSERT INTO control.job_arrival (tenant_id, ready_at_ms) SELECT tenant_id, ready_at_ms FROM released`.execute(db),
    );
  }

  async bury(job: ClaimedJob, reason: string): Promise<void> {
    await this.#database.write((db) =>
      sql`
        UPDATE control.job SET lease = NULL, lease_until_ms = NULL, buried_reason = ${reason}
         WHERE id = ${job.id} AND lease = ${job.lease}`.execute(db),
    );
  }

  async releaseAll(): Promise<void> {
    await this.#database.write((db) =>
      sql`
        WITH released AS (UPDATE control.job SET lease = NULL, lease_until_ms = NULL WHERE lease IS NOT NULL RETURNING tenant_id, ready_at_ms)
        INSERT INTO control.job_arrival (tenant_id, ready_at_ms) SELECT tenant_id, ready_at_ms FROM released`.execute(db),
    );
  }
}

type JobRow = JobFacts & {
  readonly tenant_id: string;
  readonly envelope: string;
  readonly attempts: number;
  readonly lease: string;
};

function claimedJob({ tenant_id: tenantLabel, attempts: attempt, ...job }: JobRow): ClaimedJob {
  return { ...job, attempt, tenantLabel };
}

/** Adds jobs in the tenant's own transaction, which can add and see nothing. A job whose id is there already is there already. */
export async function insertJobs(
  db: Sql,
  jobs: readonly SealedJob[],
  time: { readonly nowMs: number; readonly readyAtMs: number },
): Promise<void> {
  if (jobs.length === 0) return;
  await sql`
    INSERT INTO control.job (id, kind, payload, envelope, created_at_ms, ready_at_ms)
    SELECT id, kind, payload, envelope, ${time.nowMs}::bigint, ${time.readyAtMs}::bigint
      FROM jsonb_to_recordset(${JSON.stringify(jobs)}::jsonb) AS fresh (id text, kind text, payload jsonb, envelope text)
    ON CONFLICT DO NOTHING`.execute(db);
}

export type SealedJob = JobFacts & { readonly envelope: string };
