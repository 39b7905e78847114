import { sql } from 'kysely';
import type { DataKeyCustody, StoredDataKeys, WrappedDataKey } from '../../encryption/data-key.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { IdSource } from '../../primitives/ids.ts';
import type { SealJob } from '../../rag/job-queue.ts';
import type { Principal } from '../../tenancy/principal.ts';
import { PostgresDataKeys } from './data-keys.ts';
import type { Sql, TenantDatabase } from './database.ts';
import { insertJobs } from './documents-jobs.ts';

export interface DataKeyCustodyParts {
  readonly database: TenantDatabase;
  readonly principal: Principal;
  readonly ids: IdSource;
  readonly clock: Clock;
  readonly sealJob: SealJob;
}

/** One tenant's data keys, for the operator's rotation; works as the tenant. */
export class PostgresDataKeyCustody implements DataKeyCustody {
  readonly #parts: DataKeyCustodyParts;

  constructor(parts: DataKeyCustodyParts) {
    this.#parts = parts;
  }

  list(): Promise<StoredDataKeys> {
    return new PostgresDataKeys(this.#parts.database).list();
  }

  async replace(key: WrappedDataKey, by: Pick<WrappedDataKey, 'masterKeyId' | 'wrapped'>): Promise<boolean> {
    const { rows } = await this.#parts.database.write((db) =>
      sql`
        UPDATE app.data_key SET master_key_id = ${by.masterKeyId}, wrapped = ${by.wrapped}
         WHERE version = ${key.version} AND master_key_id = ${key.masterKeyId} AND wrapped = ${key.wrapped} RETURNING version`.execute(db),
    );
    return rows.length > 0;
  }

  async advance({ version, masterKeyId, wrapped, messages }: WrappedDataKey): Promise<boolean> {
    return this.#parts.database.write(async (db) => {
      const { rows } = await sql`
        INSERT INTO app.data_key (version, master_key_id, wrapped, messages) VALUES (${version}, ${masterKeyId}, ${wrapped}, ${messages})
        ON CONFLICT DO NOTHING RETURNING version`.execute(db);
      if (rows.length === 0) return false;
      await this.#enqueue(db);
      return true;
    });
  }

  async sealPlainRows(): Promise<void> {
    // The tenant may never have sealed anything.
    await this.#parts.database.cipher.sealer(0);
    await this.#parts.database.write((db) => this.#enqueue(db));
  }

  async #enqueue(db: Sql): Promise<void> {
    const { ids, clock, principal, sealJob } = this.#parts;
    const nowMs = clock.nowMs();
    const job = { id: ids.next('job_'), kind: 'reseal', payload: {} } as const;
    await insertJobs(db, [{ ...job, envelope: sealJob(principal, job) }], { nowMs, readyAtMs: nowMs });
  }
}
