import type { Config } from '../config/schema.ts';
import { assert } from '../primitives/assert.ts';
import { parseTenantId } from '../primitives/ids.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';

/** Creates the configured tenants that are not there. One that is there stays as operators left it. */
export async function createTenants(config: Config, registry: TenantRegistry, operator: OperatorScope): Promise<void> {
  for (const { id, name, tier, isolation } of config.tenants) {
    const tenantId = parseTenantId(id);
    assert(tenantId !== undefined, 'the configuration checked the tenant ids');
    if ((await registry.find(tenantId)) !== undefined) continue;
    await registry.create(operator, { id: tenantId, name: name ?? id, tier, isolation, overrides: {} });
  }
}
