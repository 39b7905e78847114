/** `DELETE /admin/v1/tenants/{id}` and what is left of a tenant afterwards: a receipt, and the key to check it with. */
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { SignedDocument } from '../primitives/signed-document.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';
import type { DeletionReceipt, TenantErasure } from '../tenancy/tenant-erasure.ts';

/** Port: runs erasures in the background. `jobs/` implements it. */
export interface ErasureRunner {
  isErasing(tenantId: TenantId): boolean;
  start(operator: OperatorScope, tenantId: TenantId): Promise<void>;
  find(operator: OperatorScope, tenantId: TenantId): Promise<TenantErasure | undefined>;
  receipts(operator: OperatorScope, limit: number): Promise<readonly SignedDocument<DeletionReceipt>[]>;
}

export interface ErasureRouteParts {
  readonly operator: OperatorScope;
  readonly registry: Pick<TenantDirectory, 'find'>;
  readonly erasures: ErasureRunner;
  /** Checks receipts, archives and reports. */
  readonly signingKey: { readonly keyId: string; readonly publicKey: string };
}

const tenantPath = '/admin/v1/tenants/:tenantId';
const receiptsMax = 1_000;

export function erasureRoutes(parts: ErasureRouteParts): readonly OperatorRoute[] {
  const common = { auth: 'operator', spends: false, body: 'none' } as const;
  return [
    { ...common, method: 'DELETE', path: tenantPath, handle: (exchange) => startErasure(parts, exchange) },
    { ...common, method: 'GET', path: `${tenantPath}/erasure`, handle: (exchange) => showErasure(parts, exchange) },
    { ...common, method: 'GET', path: '/admin/v1/receipts', handle: () => listReceipts(parts) },
    { ...common, method: 'GET', path: '/admin/v1/signing-key', handle: async () => signingKey(parts) },
  ];
}

async function startErasure({ operator, registry, erasures }: ErasureRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const tenantId = tenantOf(exchange);
  const known = await erasures.find(operator, tenantId);
  if (known?.step === 'done') return { kind: 'json', status: 200, body: erasureShape(tenantId, known, false) };
  if ((await registry.find(tenantId)) === undefined) throw notThere(tenantId);
  if (!erasures.isErasing(tenantId)) await erasures.start(operator, tenantId);
  const erasure = await erasures.find(operator, tenantId);
  if (erasure === undefined) throw new BulkheadError('not_ready', 'This tenant is not being erased.');
  return { kind: 'json', status: 202, body: erasureShape(tenantId, erasure, erasures.isErasing(tenantId)) };
}

async function showErasure({ operator, erasures }: ErasureRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const tenantId = tenantOf(exchange);
  const erasure = await erasures.find(operator, tenantId);
  if (erasure === undefined) throw new BulkheadError('not_found', 'Nobody has asked to erase this tenant.');
  return { kind: 'json', status: 200, body: erasureShape(tenantId, erasure, erasures.isErasing(tenantId)) };
}

async function listReceipts({ operator, erasures }: ErasureRouteParts): Promise<JsonAnswer> {
  return { kind: 'json', status: 200, body: { object: 'list', data: await erasures.receipts(operator, receiptsMax), has_more: false } };
}

function signingKey({ signingKey: { keyId, publicKey } }: ErasureRouteParts): JsonAnswer {
  return { kind: 'json', status: 200, body: { object: 'signing_key', algorithm: 'Ed25519', key_id: keyId, public_key: publicKey } };
}

function erasureShape(tenantId: TenantId, erasure: TenantErasure, isRunning: boolean) {
  const { step, startedAtMs, finishedAtMs, refusal, receipt } = erasure;
  const unfinished = refusal === undefined ? 'waiting' : 'refused';
  return {
    object: 'tenant.erasure',
    tenant: tenantId,
    status: step === 'done' ? 'completed' : isRunning ? 'erasing' : unfinished,
    step,
    refusal: refusal ?? null,
    started_at: Math.floor(startedAtMs / 1_000),
    finished_at: finishedAtMs === undefined ? null : Math.floor(finishedAtMs / 1_000),
    receipt: receipt ?? null,
  };
}

function tenantOf(exchange: Exchange): TenantId {
  const text = exchange.params['tenantId'] ?? '';
  const id = parseTenantId(text);
  if (id === undefined) throw notThere(text);
  return id;
}

function notThere(text: string): BulkheadError {
  return new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
}
