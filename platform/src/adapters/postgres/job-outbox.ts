import { sql } from 'kysely';
import type { Database } from './database.ts';

const forwardedMax = 1_000;

interface JobRow {
  readonly id: string;
}

/**
 * Brings jobs that a tenant's own database holds to the queue in the shared one. A job is added by its tenant's transaction, so it is there exactly
 * when its work is; forwarding may be repeated, because a job keeps its id. (A job that ran and was forwarded again finds nothing to do.)
 */
export async function forwardJobs(silo: Database, shared: Database): Promise<void> {
  const { rows } = await silo.forDirectory().read((db) =>
    sql<JobRow>`
        SELECT id, tenant_id, kind, payload, envelope, created_at_ms::text, ready_at_ms::text FROM control.job ORDER BY sequence LIMIT ${forwardedMax}`.execute(
      db,
    ),
  );
  if (rows.length === 0) return;
  await shared.forDirectory().write((db) =>
    sql`
      INSERT INTO control.job (id, tenant_id, kind, payload, envelope, created_at_ms, ready_at_ms)
      SELECT id, tenant_id, kind, payload, envelope, created_at_ms, ready_at_ms
        FROM jsonb_to_recordset(${JSON.stringify(rows)}::jsonb)
          AS left_behind (id text, tenant_id text, kind text, payload jsonb, envelope text, created_at_ms bigint, ready_at_ms bigint)
      ON CONFLICT (id) DO NOTHING`.execute(db),
  );
  const ids = rows.map((row) => row.id);
  await silo.forDirectory().write(async (db) => {
    await sql`DELETE FROM control.job WHERE id = ANY(${ids}::text[])`.execute(db);
    // Nobody claims here, so nobody reads these away.
    await sql`DELETE FROM control.job_arrival`.execute(db);
  });
}
