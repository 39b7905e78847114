/** `/admin/v1/tenants/{id}/embedding`: by which models a tenant's vector stores are embedded, and what is being embedded anew. Counts, no content. */
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { EmbeddedStores } from '../rag/reembed.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';

export interface EmbeddingRouteParts {
  readonly operator: OperatorScope;
  readonly registry: Pick<TenantDirectory, 'find'>;
  /** Port: `jobs/` implements it. */
  readonly reembedding: { survey(operator: OperatorScope, tenantId: TenantId): Promise<readonly EmbeddedStores[]> };
}

export function embeddingRoutes(parts: EmbeddingRouteParts): readonly OperatorRoute[] {
  const path = '/admin/v1/tenants/:tenantId/embedding';
  return [{ auth: 'operator', spends: false, method: 'GET', path, body: 'none', handle: (exchange) => show(parts, exchange) }];
}

async function show({ operator, registry, reembedding }: EmbeddingRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const text = exchange.params['tenantId'] ?? '';
  const id = parseTenantId(text);
  const tenant = id === undefined ? undefined : await registry.find(id);
  if (tenant === undefined) throw new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
  const stores = await reembedding.survey(operator, tenant.id);
  return { kind: 'json', status: 200, body: { object: 'tenant.embedding', tenant: tenant.id, data: stores.map(storesShape) } };
}

function storesShape({ model, dimensions, stores, building, fault }: EmbeddedStores) {
  return { model, dimensions, vector_stores: stores, building: building ?? null, fault: fault ?? null };
}
