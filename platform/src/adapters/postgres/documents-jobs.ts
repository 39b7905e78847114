import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import type { Clock } from '../../primitives/clock.ts';
import type { ClaimedJob, JobFacts, JobQueue } from '../../rag/job-queue.ts';
import type { OperatorDatabase, Sql } from './database.ts';

/**
 * The durable queue, over every tenant, in the role that reaches no content. Tenants take turns: the tenant served longest ago is served
 * next, so a thousand files of one delay a single file of another by at most the jobs that already run.
 */
export class PostgresJobQueue implements JobQueue {
  readonly #database: OperatorDatabase;
  readonly #clock: Clock;

  constructor(database: OperatorDatabase, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  async claim(leaseMs: number): Promise<ClaimedJob | undefined> {
    const nowMs = this.#clock.nowMs();
    const isReady = sql`buried_reason IS NULL AND ready_at_ms <= ${nowMs} AND (lease_until_ms IS NULL OR lease_until_ms <= ${nowMs})`;
    // Of a tenant that is suspended, or on its way out.
    const mustWait = sql`(SELECT id FROM control.tenant WHERE state <> 'active')`;
    return this.#database.write(async (db) => {
      const { rows } = await sql<JobRow>`
        WITH next AS (
          SELECT j.id FROM control.job j
            JOIN (SELECT tenant_id, min(sequence) AS sequence FROM control.job WHERE ${isReady} AND tenant_id NOT IN ${mustWait} GROUP BY tenant_id) oldest USING (sequence)
            LEFT JOIN control.job_turn turn ON turn.tenant_id = oldest.tenant_id
           -- Once more, of the row itself: a claim that committed since the snapshot is seen when the row is locked.
           WHERE ${isReady}
           ORDER BY turn.served NULLS FIRST, j.sequence LIMIT 1 FOR UPDATE OF j SKIP LOCKED)
        UPDATE control.job j
           SET lease = ${randomUUID()}, lease_until_ms = ${nowMs + leaseMs}, attempts = attempts + 1
          FROM next WHERE j.id = next.id
        RETURNING j.id, j.tenant_id, j.kind, j.payload, j.envelope, j.attempts, j.lease`.execute(db);
      const [row] = rows;
      if (row === undefined) return undefined;
      await sql`
        INSERT INTO control.job_turn (tenant_id, served) VALUES (${row.tenant_id}, nextval('control.job_served'))
        ON CONFLICT (tenant_id) DO UPDATE SET served = excluded.served`.execute(db);
      return claimedJob(row);
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
        UPDATE control.job
           SET lease = NULL, lease_until_ms = NULL, ready_at_ms = ${readyAtMs}, attempts = attempts - ${retry.countsAsAttempt ? 0 : 1}
         WHERE id = ${job.id} AND lease = ${job.lease}`.execute(db),
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
    await this.#database.write((db) => sql`UPDATE control.job SET lease = NULL, lease_until_ms = NULL WHERE lease IS NOT NULL`.execute(db));
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
