/**
 * Where stores have their place, and which of them have an approximate index: written by the owner of the schema, under the tenant's own policy, and by
 * nobody else. The login that serves requests can read it and cannot name it.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { Database, Sql } from './database.ts';
import type { StoreMove } from './shard-rows.ts';
import type { TenantTable } from './tenant-tables.ts';

export interface PlacedStore {
  readonly storeNo: number;
  readonly id: string;
  readonly shard: number;
  readonly movingTo: number | undefined;
  /** The pooled shard that its tenant's stores begin in. */
  readonly homeShard: number;
  readonly chunks: number;
  readonly spaceNo: number;
  readonly dimensions: number;
  readonly index: MeasuredIndex | undefined;
}

export interface MeasuredIndex {
  readonly spaceNo: number;
  /** What searches use; undefined: the recall was too low, and they are exact. */
  readonly efSearch: number | undefined;
  readonly recall: number;
  readonly measuredAtMs: number;
}

/** Dedicated shards begin here; see `control.shard`. */
export const dedicatedShardMin = 1_000;

/** How long a change of the schema stands in a queue that others stand behind, and how often it tries again. */
const lockTimeoutMs = 200;
const lockAttemptsMax = 50;
const lockPauseMs = 200;

export class StorePlacements {
  readonly #owner: Database;

  /** `owner`: connections of the login that owns the schema. */
  constructor(owner: Database) {
    this.#owner = owner;
  }

  /** Stores of these tenants that are large, away from home or moving. Counts alone, one tenant after the other. */
  async outstanding(tenants: readonly TenantId[], chunksMin: number): Promise<readonly { tenantId: TenantId; storeNo: number }[]> {
    const { rows } = await this.#owner.transaction({ role: 'bulkhead_owner', readOnly: false }, (db) =>
      sql<{ readonly tenantId: TenantId; readonly storeNo: number }>`
        SELECT tenant_id AS "tenantId", store_no AS "storeNo" FROM control.large_stores(${tenants}::text[], ${chunksMin}::bigint)
         ORDER BY chunk_count DESC, tenant_id, store_no`.execute(db),
    );
    return rows;
  }

  /** The next tenants whose rows are here and stay, in the order of their ids. */
  async tenantsAfter(after: string, limit: number): Promise<readonly TenantId[]> {
    const { rows } = await this.#owner.transaction({ role: 'bulkhead_owner', readOnly: true }, (db) =>
      sql<{ readonly id: TenantId }>`
        SELECT id FROM control.tenant WHERE id > ${after} AND isolation = 'pooled' AND state <> 'deleting' ORDER BY id LIMIT ${limit}`.execute(
        db,
      ),
    );
    return rows.map((row) => row.id);
  }

  /** Tenants that have a shard of their own. */
  async tenantsWithShard(): Promise<readonly TenantId[]> {
    const { rows } = await this.#owner.transaction({ role: 'bulkhead_owner', readOnly: true }, (db) =>
      sql<{ readonly tenantId: TenantId }>`
        SELECT tenant_id AS "tenantId" FROM control.shard WHERE tenant_id IS NOT NULL ORDER BY shard_id`.execute(db),
    );
    return rows.map((row) => row.tenantId);
  }

  async find(tenantId: TenantId, storeNo: number): Promise<PlacedStore | undefined> {
    return this.#asTenant(tenantId, async (db) => (await storesOf(db, sql`s.store_no = ${storeNo}`))[0]);
  }

  all(tenantId: TenantId): Promise<readonly PlacedStore[]> {
    return this.#asTenant(tenantId, (db) => storesOf(db, sql`true`));
  }

  /** The tenant's own shard, made when there is none; undefined: there are as many as there may be. */
  async dedicatedShard(tenantId: TenantId, shardsMax: number, signal: AbortSignal): Promise<number | undefined> {
    return this.#changeSchema(signal, async (db) => {
      const { rows } = await sql<{ readonly shard: number | null }>`
        SELECT control.dedicated_shard(${tenantId}, ${shardsMax}::int) AS shard`.execute(db);
      return rows[0]?.shard ?? undefined;
    });
  }

  /** Drops the tenant's own shard with all that is in it. False: a store has its place there, or there is none. */
  async dropDedicatedShard(tenantId: TenantId, signal: AbortSignal): Promise<boolean> {
    return this.#changeSchema(signal, async (db) => {
      const { rows } = await sql<{ readonly dropped: boolean }>`SELECT control.drop_dedicated_shard(${tenantId}) AS dropped`.execute(db);
      return rows[0]?.dropped === true;
    });
  }

  /** Drops the shards that belong to nobody any more: their tenant was erased. Returns how many tables went. */
  async dropOrphanedShards(signal: AbortSignal): Promise<number> {
    return this.#changeSchema(signal, async (db) => {
      const { rows } = await sql<{ readonly dropped: number }>`SELECT control.drop_orphaned_shards() AS dropped`.execute(db);
      return rows[0]?.dropped ?? 0;
    });
  }

  /** From now on rows may be in both shards, and new ones go to the second. Its index, which sees one of them, is searched no more. */
  async begin(tenantId: TenantId, move: StoreMove): Promise<boolean> {
    return this.#asTenant(tenantId, async (db) => {
      // A shard that is being dropped must not become anybody's destination.
      await sql`SELECT 1 FROM control.shard WHERE shard_id = ${move.toShard} FOR KEY SHARE`.execute(db);
      const { rows } = await sql`
        UPDATE app.vector_store SET moving_to_shard = ${move.toShard}, index_space_no = NULL, index_ef_search = NULL, index_recall = NULL, index_measured_at_ms = NULL
         WHERE store_no = ${move.storeNo} AND shard_id = ${move.fromShard} AND moving_to_shard IS NULL
           AND EXISTS (SELECT FROM control.shard WHERE shard_id = ${move.toShard}) RETURNING 1`.execute(db);
      return rows.length > 0;
    });
  }

  /** The store has its place in the new shard. False, and nothing done, while a row is left in the old one. */
  async finish(tenantId: TenantId, move: StoreMove, tables: readonly TenantTable[]): Promise<boolean> {
    return this.#asTenant(tenantId, async (db) => {
      const which = sql`store_no = ${move.storeNo} AND shard_id = ${move.fromShard} AND moving_to_shard = ${move.toShard}`;
      const { rows } = await sql`SELECT 1 FROM app.vector_store WHERE ${which} FOR UPDATE`.execute(db);
      if (rows.length === 0) return false;
      for (const table of tables) {
        const left = await sql`
          SELECT 1 FROM ${sql.table(`app.${table.name}`)} WHERE shard_id = ${move.fromShard}::int AND store_no = ${move.storeNo}::int LIMIT 1`.execute(
          db,
        );
        if (left.rows.length > 0) return false;
      }
      await sql`UPDATE app.vector_store SET shard_id = moving_to_shard, moving_to_shard = NULL WHERE ${which}`.execute(db);
      return true;
    });
  }

  /** What was measured of the index of the store's active space. False when the store has moved or has another space by now. */
  async recordIndex(tenantId: TenantId, store: Pick<PlacedStore, 'storeNo' | 'shard'>, index: MeasuredIndex): Promise<boolean> {
    return this.#asTenant(tenantId, async (db) => {
      const { rows } = await sql`
        UPDATE app.vector_store SET index_space_no = ${index.spaceNo}, index_ef_search = ${index.efSearch ?? null}::int, index_recall = ${index.recall},
               index_measured_at_ms = ${index.measuredAtMs}
         WHERE store_no = ${store.storeNo} AND shard_id = ${store.shard} AND moving_to_shard IS NULL AND space_no = ${index.spaceNo}
        RETURNING 1`.execute(db);
      return rows.length > 0;
    });
  }

  /** Turned away with BH001 or BH002 when the tenant lives in another database, or is about to. */
  #asTenant<T>(tenantId: TenantId, work: (db: Sql) => Promise<T>): Promise<T> {
    return this.#owner.transaction({ role: 'bulkhead_owner', readOnly: false, tenantId, asksResidence: true }, work);
  }

  /** Others queue behind whoever waits for a lock on a table, so the wait is short and repeated. */
  async #changeSchema<T>(signal: AbortSignal, work: (db: Sql) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#owner.transaction({ role: 'bulkhead_owner', readOnly: false }, async (db) => {
          await sql`SELECT set_config('lock_timeout', ${String(lockTimeoutMs)}, true)`.execute(db);
          return await work(db);
        });
      } catch (error) {
        const isBusy = error instanceof BulkheadError && error.code === 'database_unavailable';
        if (!isBusy || attempt === lockAttemptsMax) throw error;
        await wait(lockPauseMs, undefined, { signal });
      }
    }
  }
}

interface StoreRow {
  readonly store_no: number;
  readonly id: string;
  readonly shard_id: number;
  readonly moving_to_shard: number | null;
  readonly home_shard: number;
  readonly chunk_count: string;
  readonly space_no: number;
  readonly embedding_dimensions: number;
  readonly index_space_no: number | null;
  readonly index_ef_search: number | null;
  readonly index_recall: number | null;
  readonly index_measured_at_ms: string | null;
}

async function storesOf(db: Sql, which: ReturnType<typeof sql>): Promise<readonly PlacedStore[]> {
  const { rows } = await sql<StoreRow>`
    SELECT s.store_no, s.id, s.shard_id, s.moving_to_shard, app.home_shard() AS home_shard, s.chunk_count, s.space_no, s.embedding_dimensions,
           s.index_space_no, s.index_ef_search, s.index_recall, s.index_measured_at_ms
      FROM app.vector_store s WHERE ${which} ORDER BY s.store_no`.execute(db);
  return rows.map((row) => ({
    storeNo: row.store_no,
    id: row.id,
    shard: row.shard_id,
    movingTo: row.moving_to_shard ?? undefined,
    homeShard: row.home_shard,
    chunks: Number(row.chunk_count),
    spaceNo: row.space_no,
    dimensions: row.embedding_dimensions,
    index: indexOf(row),
  }));
}

function indexOf(row: StoreRow): MeasuredIndex | undefined {
  if (row.index_space_no === null) return undefined;
  return {
    spaceNo: row.index_space_no,
    efSearch: row.index_ef_search ?? undefined,
    recall: Number(row.index_recall),
    measuredAtMs: Number(row.index_measured_at_ms),
  };
}
