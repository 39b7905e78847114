/** How far each erasure is, who carries it on, and the receipts. */
import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { SignedDocument } from '../../primitives/signed-document.ts';
import type { DeletionReceipt, ErasureStep, TenantErasure } from '../../tenancy/tenant-erasure.ts';
import type { Database } from './database.ts';
import type { Needle } from './erasure-canaries.ts';
import type { Purge } from './erasure-purge.ts';

/** What later steps need and cannot find out any more. */
export interface ErasureProgress {
  readonly needles: readonly Needle[];
  /** Surface -> how many before. */
  readonly before: Readonly<Record<string, number>>;
  /** Needle's surface -> how often the search found it before. */
  readonly foundBefore: Readonly<Record<string, number>>;
  /** False: the files may not be read, or are another database's. */
  readonly isSearched: boolean;
  /** Shards that hold rows of the tenant. */
  readonly shards: readonly number[];
  readonly purged?: Purge | undefined;
}

export interface ErasureTicket {
  readonly tenantId: TenantId;
  readonly token: string;
  readonly step: ErasureStep;
  readonly startedAtMs: number;
  readonly progress: ErasureProgress;
}

const leaseMs = 120_000;
const noProgress: ErasureProgress = { needles: [], before: {}, foundBefore: {}, isSearched: false, shards: [] };

export class ErasureRecords {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  /** Begins one, or takes over one that nobody carries on. Throws `not_ready` while another process does, or while the tenant moves. */
  async begin(tenantId: TenantId, isOnlyProcess: boolean): Promise<ErasureTicket> {
    const nowMs = this.#clock.nowMs();
    const row = await this.#database.forDirectory().write(async (db) => {
      const { rows: moves } = await sql`
        SELECT 1 FROM control.tenant_move WHERE tenant_id = ${tenantId} AND step IN ('copying', 'switched')`.execute(db);
      if (moves.length > 0) throw new BulkheadError('not_ready', 'This tenant is being moved.');
      const { rows } = await sql<ErasureRow>`
        INSERT INTO control.tenant_erasure AS erasure (tenant_id, step, token, lease_until_ms, started_at_ms, progress)
        VALUES (${tenantId}, 'refusing', ${randomUUID()}, ${nowMs + leaseMs}, ${nowMs}, ${JSON.stringify(noProgress)}::jsonb)
        ON CONFLICT (tenant_id) DO UPDATE SET token = excluded.token, lease_until_ms = excluded.lease_until_ms, refusal = NULL
          WHERE erasure.step <> 'done' AND (${isOnlyProcess} OR erasure.lease_until_ms < ${nowMs}) RETURNING *`.execute(db);
      return rows[0];
    });
    if (row === undefined) throw new BulkheadError('not_ready', 'This tenant is being erased already.');
    return { tenantId, token: row.token, step: row.step, startedAtMs: Number(row.started_at_ms), progress: row.progress };
  }

  /** Renews the lease; throws when another process has taken over. */
  async hold(ticket: ErasureTicket): Promise<void> {
    await this.#change(ticket, sql`lease_until_ms = ${this.#clock.nowMs() + leaseMs}`);
  }

  async advance(ticket: ErasureTicket, step: ErasureStep, progress: Partial<ErasureProgress> = {}): Promise<ErasureTicket> {
    const next = { ...ticket, step, progress: { ...ticket.progress, ...progress } };
    await this.#change(
      ticket,
      sql`step = ${step}, progress = ${JSON.stringify(next.progress)}::jsonb, lease_until_ms = ${this.#clock.nowMs() + leaseMs}`,
    );
    return next;
  }

  /** Ends an attempt without a receipt; the next one begins at `step`. */
  async refuse(ticket: ErasureTicket, step: ErasureStep, refusal: string): Promise<void> {
    await this.#change(ticket, sql`step = ${step}, refusal = ${refusal.slice(0, 2_000)}, lease_until_ms = 0`);
  }

  /** The tenant is gone and the receipt is there, in one transaction; the name goes, the id stays and is never given out again. */
  async finish(ticket: ErasureTicket, receipt: SignedDocument<DeletionReceipt>): Promise<void> {
    const nowMs = this.#clock.nowMs();
    await this.#database.forDirectory().write(async (db) => {
      await sql`
        UPDATE control.tenant_erasure SET step = 'done', receipt = ${JSON.stringify(receipt)}::jsonb, progress = '{}', finished_at_ms = ${nowMs}, refusal = NULL
         WHERE tenant_id = ${ticket.tenantId} AND token = ${ticket.token}`.execute(db);
      await sql`UPDATE control.tenant SET name = '', overrides = '{}', erased_at_ms = ${nowMs} WHERE id = ${ticket.tenantId}`.execute(db);
    });
  }

  async find(tenantId: TenantId): Promise<TenantErasure | undefined> {
    const [row] = await this.#rows(sql`WHERE tenant_id = ${tenantId}`);
    return (
      row && {
        step: row.step,
        startedAtMs: Number(row.started_at_ms),
        finishedAtMs: row.finished_at_ms === null ? undefined : Number(row.finished_at_ms),
        refusal: row.refusal ?? undefined,
        receipt: row.receipt ?? undefined,
      }
    );
  }

  async receipts(limit: number): Promise<readonly SignedDocument<DeletionReceipt>[]> {
    const rows = await this.#rows(sql`WHERE step = 'done' ORDER BY finished_at_ms DESC LIMIT ${limit}`);
    return rows.flatMap(({ receipt }) => (receipt === null ? [] : [receipt]));
  }

  /** Those of processes that are gone: all unfinished ones, or those whose lease has run out. One that was refused waits for an operator. */
  async unfinished(isOnlyProcess: boolean): Promise<readonly TenantId[]> {
    const isLeft = isOnlyProcess ? sql`true` : sql`lease_until_ms < ${this.#clock.nowMs()}`;
    const rows = await this.#rows(sql`WHERE step <> 'done' AND refusal IS NULL AND ${isLeft} ORDER BY started_at_ms`);
    return rows.map((row) => row.tenant_id);
  }

  async #rows(condition: ReturnType<typeof sql>): Promise<readonly ErasureRow[]> {
    const { rows } = await this.#database
      .forDirectory()
      .read((db) => sql<ErasureRow>`SELECT * FROM control.tenant_erasure ${condition}`.execute(db));
    return rows;
  }

  async #change({ tenantId, token }: ErasureTicket, change: ReturnType<typeof sql>): Promise<void> {
    const { rows } = await this.#database
      .forDirectory()
      .write((db) =>
        sql`UPDATE control.tenant_erasure SET ${change} WHERE tenant_id = ${tenantId} AND token = ${token} RETURNING 1`.execute(db),
      );
    if (rows.length === 0) throw new BulkheadError('not_ready', 'Another process has taken this erasure over.');
  }
}

interface ErasureRow {
  readonly tenant_id: TenantId;
  readonly step: ErasureStep;
  readonly token: string;
  readonly started_at_ms: string;
  readonly finished_at_ms: string | null;
  readonly refusal: string | null;
  readonly progress: ErasureProgress;
  readonly receipt: SignedDocument<DeletionReceipt> | null;
}
