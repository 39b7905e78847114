import type { TenantId } from '../primitives/ids.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { Principal } from '../tenancy/principal.ts';

/** The identity under which the audit looks at a tenant's rows from inside, as any transaction of the tenant would. */
export function auditPrincipalOf(tenantId: TenantId): Principal {
  return mintPrincipal({ tenantId, kind: 'job', user: 'audit', keyId: 'job:audit' });
}
