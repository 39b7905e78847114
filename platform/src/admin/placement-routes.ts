/** `/admin/v1/tenants/{id}/placement`: where a tenant's large vector stores are, and where an operator wants them. */
import { z } from 'zod';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { validateBody } from '../gateway/validate.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { PlacementKeeper, TenantPlacement } from '../tenancy/placement.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';

export interface PlacementRouteParts {
  readonly operator: OperatorScope;
  readonly registry: Pick<TenantDirectory, 'find'>;
  /** Undefined where nothing can be placed: the embedded database, or a server whose owner is not known. */
  readonly placements: PlacementKeeper | undefined;
}

const wishSchema = z.strictObject({ to: z.enum(['dedicated', 'pooled', 'automatic']) });
const path = '/admin/v1/tenants/:tenantId/placement';

export function placementRoutes(parts: PlacementRouteParts): readonly OperatorRoute[] {
  const common = { auth: 'operator', spends: false, path } as const;
  return [
    { ...common, method: 'POST', body: 'json', handle: (exchange) => place(parts, exchange) },
    { ...common, method: 'GET', body: 'none', handle: (exchange) => show(parts, exchange) },
  ];
}

async function place(parts: PlacementRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const { to } = validateBody(wishSchema, exchange.body);
  const tenantId = await requireTenant(parts.registry, exchange);
  if (parts.placements !== undefined) await parts.placements.wish(parts.operator, tenantId, to === 'automatic' ? undefined : to);
  else if (to !== 'automatic') {
    throw new BulkheadError(
      'not_ready',
      'Stores are placed on a PostgreSQL server only, with database.ownerUrl: a login that owns the schema.',
    );
  }
  return answer(parts, tenantId);
}

async function show(parts: PlacementRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  return answer(parts, await requireTenant(parts.registry, exchange));
}

async function answer({ operator, placements }: PlacementRouteParts, tenantId: TenantId): Promise<JsonAnswer> {
  const placement = await placements?.find(operator, tenantId);
  return { kind: 'json', status: 200, body: placementShape(tenantId, placement) };
}

function placementShape(tenantId: TenantId, placement: TenantPlacement | undefined) {
  return {
    object: 'tenant.placement',
    tenant: tenantId,
    available: placement !== undefined,
    to: placement?.wish ?? 'automatic',
    stores: (placement?.stores ?? []).map((store) => ({
      id: store.storeId,
      chunks: store.chunks,
      placement: store.placement,
      moving: store.isMoving,
      search: store.search,
      recall: store.recall ?? null,
      measured_at: store.measuredAtMs === undefined ? null : Math.floor(store.measuredAtMs / 1_000),
    })),
  };
}

async function requireTenant(registry: Pick<TenantDirectory, 'find'>, exchange: Exchange): Promise<TenantId> {
  const text = exchange.params['tenantId'] ?? '';
  const id = parseTenantId(text);
  const tenant = id === undefined ? undefined : await registry.find(id);
  if (tenant === undefined) throw new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
  return tenant.id;
}
