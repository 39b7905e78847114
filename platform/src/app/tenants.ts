import type { Config } from '../config/schema.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import { parseTenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';

/** Creates the configured tenants that are not there. One that is there stays as operators left it. */
export async function createTenants(
  { config, logger }: { readonly config: Config; readonly logger: Logger },
  registry: TenantRegistry,
  operator: OperatorScope,
): Promise<void> {
  for (const { id, name, tier, isolation } of config.tenants) {
    const tenantId = parseTenantId(id);
    assert(tenantId !== undefined, 'the configuration checked the tenant ids');
    if ((await registry.find(tenantId)) !== undefined) continue;
    try {
      await registry.create(operator, { id: tenantId, name: name ?? id, tier, isolation, overrides: {} });
    } catch (error) {
      // Erased: the configuration still names it, and the id is never given out again.
      if (!(error instanceof BulkheadError) || error.code !== 'already_exists') throw error;
      logger.warn(
        { component: 'configuration', tenantId },
        'a configured tenant was erased and is not made again; remove it from the configuration',
      );
    }
  }
}
