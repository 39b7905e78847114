/** A database that the operator gives for one tenant, in the bodies of the admin API. The URLs hold passwords: no answer and no log line repeats them. */
import { z } from 'zod';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { TenantIsolation } from '../tenancy/tenant.ts';

/** Port: remembers, encrypted, where the tenant's own database will be; undefined: where we make one. */
export type GiveDatabase = (
  tenantId: TenantId,
  given: { readonly url: string; readonly ownerUrl?: string | undefined } | undefined,
) => Promise<void>;

const postgresUrl = z.url({ protocol: /^postgres(ql)?$/, error: 'must be a postgres:// URL' }).max(2_048);

export const givenDatabaseSchema = { database_url: postgresUrl.optional(), database_owner_url: postgresUrl.optional() };

/** Throws `invalid_value` where no database of the tenant's own was asked for. */
export function givenDatabaseOf(
  body: { readonly database_url?: string | undefined; readonly database_owner_url?: string | undefined },
  isolation: TenantIsolation,
): Parameters<GiveDatabase>[1] {
  const { database_url: url, database_owner_url: ownerUrl } = body;
  if (url === undefined) {
    if (ownerUrl !== undefined) throw new BulkheadError('invalid_value', 'needs database_url', { param: 'database_owner_url' });
    return undefined;
  }
  if (isolation !== 'siloed') throw new BulkheadError('invalid_value', 'only a siloed tenant has a database', { param: 'database_url' });
  return { url, ownerUrl };
}
