/** Whether a tenant may enter a database: see `app.enter_tenant`. A database without a word about a tenant is open to it. */
import { sql } from 'kysely';
import type { TenantId } from '../../primitives/ids.ts';
import type { Sql, TenantDatabase } from './database.ts';
import type { MoveTicket } from './move-records.ts';

/** Holds the tenant's writers from now on, and returns when none is inside any more. */
export async function closeResidence(database: TenantDatabase, { tenantId, token }: MoveTicket): Promise<void> {
  await database.write((db) => sql`INSERT INTO app.residence (state, token) VALUES ('closing', ${token})`.execute(db));
  await database.write((db) => sql`SELECT pg_advisory_xact_lock(7070003, hashtext(${tenantId}))`.execute(db));
}

/** The tenant lives elsewhere from now on. False when this move does not hold the residence closed. In a transaction of the tenant or of an operator. */
export async function leaveResidence(db: Sql, { tenantId, token }: MoveTicket): Promise<boolean> {
  await actAsTenant(db, tenantId);
  const { rows } = await sql`UPDATE app.residence SET state = 'gone' WHERE token = ${token} AND state = 'closing' RETURNING 1`.execute(db);
  return rows.length > 0;
}

/** The tenant lives here. In a transaction of the tenant or of an operator. */
export async function openResidence(db: Sql, tenantId: TenantId): Promise<void> {
  await actAsTenant(db, tenantId);
  await sql`DELETE FROM app.residence`.execute(db);
}

async function actAsTenant(db: Sql, tenantId: TenantId): Promise<void> {
  await sql`SELECT set_config('role', 'bulkhead_runtime', true), set_config('app.tenant_id', ${tenantId}, true)`.execute(db);
}
