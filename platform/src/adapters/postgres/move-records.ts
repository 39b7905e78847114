import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { TenantIsolation } from '../../tenancy/tenant.ts';
import type { TenantMove } from '../../tenancy/tenant-move.ts';
import type { Database, Sql } from './database.ts';

export interface MoveTicket {
  readonly tenantId: TenantId;
  readonly destination: TenantIsolation;
  readonly step: TenantMove['step'];
  readonly token: string;
}

const leaseMs = 60_000;

/** Who moves, how far it is, and until when it is believed to be alive. */
export class MoveRecords {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  async begin(tenantId: TenantId, destination: TenantIsolation): Promise<MoveTicket> {
    const nowMs = this.#clock.nowMs();
    const token = randomUUID();
    const { rows } = await this.#database.forDirectory().write((db) =>
      sql`
        INSERT INTO control.tenant_move AS move (tenant_id, destination, step, token, lease_until_ms, started_at_ms)
        VALUES (${tenantId}, ${destination}, 'copying', ${token}, ${nowMs + leaseMs}, ${nowMs})
        ON CONFLICT (tenant_id) DO UPDATE SET destination = excluded.destination, step = 'copying', token = excluded.token,
          lease_until_ms = excluded.lease_until_ms, started_at_ms = excluded.started_at_ms, finished_at_ms = NULL, report = '[]'
        WHERE move.step IN ('done', 'rolled_back') RETURNING tenant_id`.execute(db),
    );
    if (rows.length === 0) throw new BulkheadError('not_ready', 'This tenant is being moved already.');
    return { tenantId, destination, step: 'copying', token };
  }

  /** Renews the lease. Throws when another process has taken the move back. */
  async hold({ tenantId, token }: MoveTicket): Promise<void> {
    const { rows } = await this.#database.forDirectory().write((db) =>
      sql`
        UPDATE control.tenant_move SET lease_until_ms = ${this.#clock.nowMs() + leaseMs} WHERE tenant_id = ${tenantId} AND token = ${token} RETURNING 1`.execute(
        db,
      ),
    );
    if (rows.length === 0) throw new BulkheadError('not_ready', 'This move was taken back.');
  }

  async finish({ tenantId, token }: MoveTicket, step: 'done' | 'rolled_back'): Promise<void> {
    await this.#database.forDirectory().write((db) =>
      sql`
        UPDATE control.tenant_move SET step = ${step}, finished_at_ms = ${this.#clock.nowMs()} WHERE tenant_id = ${tenantId} AND token = ${token}`.execute(
        db,
      ),
    );
  }

  /** Takes over the moves whose process is gone: all unfinished ones, or those whose lease has run out. */
  async takeLeft(isOnlyProcess: boolean): Promise<readonly MoveTicket[]> {
    const nowMs = this.#clock.nowMs();
    const isLeft = isOnlyProcess ? sql`true` : sql`lease_until_ms < ${nowMs}`;
    const { rows } = await this.#database.forDirectory().write((db) =>
      sql<MoveTicket>`
        UPDATE control.tenant_move SET lease_until_ms = ${nowMs + leaseMs}
         WHERE step IN ('copying', 'switched') AND ${isLeft} RETURNING tenant_id AS "tenantId", destination, step, token`.execute(db),
    );
    return rows;
  }

  async find(tenantId: TenantId): Promise<TenantMove | undefined> {
    const { rows } = await this.#database
      .forDirectory()
      .read((db) => sql<MoveRow>`SELECT * FROM control.tenant_move WHERE tenant_id = ${tenantId}`.execute(db));
    const row = rows[0];
    return (
      row && {
        destination: row.destination,
        step: row.step,
        startedAtMs: Number(row.started_at_ms),
        finishedAtMs: row.finished_at_ms === null ? undefined : Number(row.finished_at_ms),
        report: row.report,
      }
    );
  }
}

/** Marks the switch, in the transaction that makes it. False when the move was taken back meanwhile. */
export async function markSwitched(db: Sql, ticket: MoveTicket, report: TenantMove['report'], nowMs: number): Promise<boolean> {
  const { tenantId, token, destination } = ticket;
  const { rows } = await sql`
    UPDATE control.tenant_move SET step = 'switched', report = ${JSON.stringify(report)}::jsonb
     WHERE tenant_id = ${tenantId} AND token = ${token} AND step = 'copying' RETURNING 1`.execute(db);
  if (rows.length === 0) return false;
  await sql`UPDATE control.tenant SET isolation = ${destination} WHERE id = ${tenantId}`.execute(db);
  await sql`
    INSERT INTO control.directory_change (kind, tenant_id, subject_id, changed_at_ms) VALUES ('tenant', ${tenantId}, NULL, ${nowMs})`.execute(
    db,
  );
  return true;
}

interface MoveRow {
  readonly destination: TenantIsolation;
  readonly step: TenantMove['step'];
  readonly started_at_ms: string;
  readonly finished_at_ms: string | null;
  readonly report: TenantMove['report'];
}
