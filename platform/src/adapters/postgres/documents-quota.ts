import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Sql } from './database.ts';

/** Most a tenant may keep. */
export interface DocumentQuota {
  readonly filesPerTenantMax: number;
  readonly fileBytesPerTenantMax: number;
  readonly vectorStoresPerTenantMax: number;
}

export interface DocumentUse {
  readonly files?: number;
  readonly fileBytes?: number;
  readonly vectorStores?: number;
}

/**
 * Takes room for what the rest of the transaction creates. The counters' row stays locked until it ends, so of any number of
 * concurrent creations exactly as many succeed as there is room for. Throws `quota_exceeded`.
 */
export async function takeQuota(db: Sql, use: DocumentUse, quota: DocumentQuota): Promise<void> {
  await sql`INSERT INTO app.document_quota (files) VALUES (0) ON CONFLICT (tenant_id) DO NOTHING`.execute(db);
  const { files = 0, fileBytes = 0, vectorStores = 0 } = use;
  const { rows } = await sql`
    UPDATE app.document_quota
       SET files = files + ${files}, file_bytes = file_bytes + ${fileBytes}, vector_stores = vector_stores + ${vectorStores}
     WHERE files + ${files} <= ${quota.filesPerTenantMax}
       AND file_bytes + ${fileBytes} <= ${quota.fileBytesPerTenantMax}
       AND vector_stores + ${vectorStores} <= ${quota.vectorStoresPerTenantMax}
    RETURNING files`.execute(db);
  if (rows.length === 0) throw await exceeded(db, use, quota);
}

/** Gives room back for what the transaction deletes. */
export async function returnQuota(db: Sql, use: DocumentUse): Promise<void> {
  const { files = 0, fileBytes = 0, vectorStores = 0 } = use;
  await sql`
    UPDATE app.document_quota
       SET files = files - ${files}, file_bytes = file_bytes - ${fileBytes}, vector_stores = vector_stores - ${vectorStores}`.execute(db);
}

/** The next number of a store; numbers are the tenant's own and never used twice. */
export async function takeStoreNumber(db: Sql): Promise<number> {
  const { rows } = await sql<{ readonly store_no: number }>`
    UPDATE app.document_quota SET next_store_no = next_store_no + 1 RETURNING next_store_no - 1 AS store_no`.execute(db);
  return rows[0]?.store_no ?? 0;
}

async function exceeded(db: Sql, use: DocumentUse, quota: DocumentQuota): Promise<BulkheadError> {
  const { rows } = await sql<{ readonly files: string; readonly file_bytes: string; readonly vector_stores: string }>`
    SELECT files, file_bytes, vector_stores FROM app.document_quota`.execute(db);
  const [used] = rows;
  const bounds = [
    { name: 'files', used: Number(used?.files), wanted: use.files ?? 0, max: quota.filesPerTenantMax },
    { name: 'bytes of files', used: Number(used?.file_bytes), wanted: use.fileBytes ?? 0, max: quota.fileBytesPerTenantMax },
    { name: 'vector stores', used: Number(used?.vector_stores), wanted: use.vectorStores ?? 0, max: quota.vectorStoresPerTenantMax },
  ];
  const bound = bounds.find(({ used: now, wanted, max }) => now + wanted > max);
  return new BulkheadError('quota_exceeded', `at most ${bound?.max} ${bound?.name} can be kept; ${bound?.used} are`, {
    details: { limit: bound?.max ?? 0, used: bound?.used ?? 0 },
  });
}
