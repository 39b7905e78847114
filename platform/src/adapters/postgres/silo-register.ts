/** Which tenants have a database of their own, in the shared one. */
import { sql } from 'kysely';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { Database } from './database.ts';

export interface SiloRecord {
  readonly tenantId: TenantId;
  readonly place: string;
  readonly state: 'preparing' | 'home' | 'leaving';
}

/** A silo as the owner's login sees it, with the sealed URL of one that was given by the admin API. */
export interface OwnedSilo {
  readonly tenantId: string;
  readonly place: string;
  readonly sealed: Buffer | null;
}

/** All silos, for the owner's login, which may take no role of requests. */
export async function silosSeenByOwner(owner: Database): Promise<readonly OwnedSilo[]> {
  return owner.withClient(async (client) => {
    await client.query('BEGIN');
    try {
      await client.query('SET LOCAL ROLE bulkhead_owner');
      const { rows } = await client.query<OwnedSilo>(
        'SELECT tenant_id AS "tenantId", place, sealed FROM control.silo LEFT JOIN control.silo_url USING (tenant_id) ' +
          "WHERE state = 'home' ORDER BY place",
      );
      return rows;
    } finally {
      await client.query('ROLLBACK');
    }
  });
}

export class SiloRegister {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  async find(tenantId: TenantId): Promise<SiloRecord | undefined> {
    return (await this.#records(sql`tenant_id = ${tenantId}`))[0];
  }

  /** Tenants whose rows are in a database of their own. */
  homes(): Promise<readonly SiloRecord[]> {
    return this.#records(sql`state = 'home'`);
  }

  /** Tenants that were created to be siloed and have no database yet. */
  async homeless(): Promise<readonly TenantId[]> {
    const { rows } = await this.#database.forDirectory().read((db) =>
      sql<{ readonly id: TenantId }>`
        SELECT id FROM control.tenant tenant
         WHERE isolation = 'siloed' AND state <> 'deleting' AND erased_at_ms IS NULL
           AND NOT EXISTS (SELECT FROM control.silo WHERE tenant_id = tenant.id AND state = 'home') ORDER BY id`.execute(db),
    );
    return rows.map((row) => row.id);
  }

  /** Before the database is made, so that one a crash left half made is found. Keeps a record that is there; returns the place on record. */
  async prepare(tenantId: TenantId, place: string): Promise<string> {
    const { rows } = await this.#database.forDirectory().write((db) =>
      sql<{ readonly place: string }>`
        INSERT INTO control.silo AS silo (tenant_id, place, state, created_at_ms) VALUES (${tenantId}, ${place}, 'preparing', ${this.#clock.nowMs()})
        ON CONFLICT (tenant_id) DO UPDATE SET place = silo.place RETURNING place`.execute(db),
    );
    return rows[0]?.place ?? place;
  }

  /** The tenant has no database of its own any more, and no URL of one. */
  async remove(tenantId: TenantId): Promise<void> {
    await this.#database.forDirectory().write(async (db) => {
      await sql`DELETE FROM control.silo WHERE tenant_id = ${tenantId}`.execute(db);
      await sql`DELETE FROM control.silo_url WHERE tenant_id = ${tenantId}`.execute(db);
    });
  }

  /** The database was not moved into. Where the operator wants it stays on record, for the next attempt. */
  async withdraw(tenantId: TenantId): Promise<void> {
    await this.#database.forDirectory().write((db) => sql`DELETE FROM control.silo WHERE tenant_id = ${tenantId}`.execute(db));
  }

  async #records(condition: ReturnType<typeof sql>): Promise<readonly SiloRecord[]> {
    const { rows } = await this.#database
      .forDirectory()
      .read((db) =>
        sql<SiloRecord>`SELECT tenant_id AS "tenantId", place, state FROM control.silo WHERE ${condition} ORDER BY tenant_id`.execute(db),
      );
    return rows;
  }
}
