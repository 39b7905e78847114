/** `/admin/v1/tenants/{id}/export` and `/admin/v1/imports`: everything a tenant owns, out and in. */
import { z } from 'zod';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer, PartsAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { validateBody } from '../gateway/validate.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Tenant } from '../tenancy/tenant.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';
import { tenantShape } from './shapes.ts';

/** Port: runs exports and imports. `jobs/` implements it. */
export interface ExportRunner {
  isExporting(tenantId: TenantId): boolean;
  failureOf(tenantId: TenantId): string | undefined;
  archiveOf(tenantId: TenantId): Promise<ExportedArchive | undefined>;
  start(operator: OperatorScope, tenant: Tenant): void;
  import(
    operator: OperatorScope,
    order: { readonly file: string; readonly as: TenantId | undefined; readonly publicKey: string | undefined },
    idOf: (text: string) => TenantId,
  ): Promise<TenantId>;
}

interface ExportedArchive {
  readonly file: string;
  readonly bytes: number;
  readonly createdAtMs: number;
  readonly parts: AsyncIterable<Uint8Array>;
}

export interface ExportRouteParts {
  readonly operator: OperatorScope;
  readonly registry: Pick<TenantDirectory, 'find'>;
  readonly exports: ExportRunner;
}

const path = '/admin/v1/tenants/:tenantId/export';
const importSchema = z.strictObject({
  file: z.string().min(1).max(128),
  as: z.string().optional(),
  public_key: z.string().min(1).max(1_000).optional(),
});

export function exportRoutes(parts: ExportRouteParts): readonly OperatorRoute[] {
  const common = { auth: 'operator', spends: false } as const;
  return [
    { ...common, method: 'POST', path, body: 'none', handle: (exchange) => startExport(parts, exchange) },
    { ...common, method: 'GET', path, body: 'none', handle: (exchange) => showExport(parts, exchange) },
    { ...common, method: 'GET', path: `${path}/archive`, body: 'none', handle: (exchange) => download(parts, exchange) },
    { ...common, method: 'POST', path: '/admin/v1/imports', body: 'json', handle: (exchange) => importTenant(parts, exchange) },
  ];
}

async function startExport({ operator, registry, exports }: ExportRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const tenant = await requireTenant(registry, exchange);
  if (tenant.state === 'deleting') throw new BulkheadError('not_ready', 'This tenant is being erased.');
  if (!exports.isExporting(tenant.id)) exports.start(operator, tenant);
  return {
    kind: 'json',
    status: 202,
    body: { object: 'tenant.export', tenant: tenant.id, status: 'exporting', failure: null, file: null, bytes: null, created_at: null },
  };
}

async function showExport({ registry, exports }: ExportRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const { id } = await requireTenant(registry, exchange);
  const failure = exports.failureOf(id);
  const archive = await exports.archiveOf(id);
  const isExporting = exports.isExporting(id);
  if (!isExporting && failure === undefined && archive === undefined)
    throw new BulkheadError('not_found', 'This tenant has never been exported.');
  const ended = failure === undefined ? 'completed' : 'failed';
  const body = {
    object: 'tenant.export',
    tenant: id,
    status: isExporting ? 'exporting' : ended,
    failure: failure ?? null,
    file: archive?.file ?? null,
    bytes: archive?.bytes ?? null,
    created_at: archive === undefined ? null : Math.floor(archive.createdAtMs / 1_000),
  };
  return { kind: 'json', status: 200, body };
}

async function download({ registry, exports }: ExportRouteParts, exchange: Exchange): Promise<PartsAnswer> {
  const { id } = await requireTenant(registry, exchange);
  const archive = await exports.archiveOf(id);
  if (archive === undefined) throw new BulkheadError('not_found', 'There is no archive of this tenant.');
  const headers = { 'content-disposition': 'attachment', 'x-content-type-options': 'nosniff' };
  return { kind: 'parts', status: 200, headers, contentType: 'application/x-tar', bytes: archive.bytes, parts: archive.parts };
}

async function importTenant({ operator, registry, exports }: ExportRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const { file, as, public_key: publicKey } = validateBody(importSchema, exchange.body);
  const order = { file, as: as === undefined ? undefined : idOf(as), publicKey };
  const tenantId = await exports.import(operator, order, idOf);
  const tenant = await registry.find(tenantId);
  if (tenant === undefined) throw new BulkheadError('not_ready', 'The tenant was erased while it came in.');
  return { kind: 'json', status: 201, body: tenantShape(tenant) };
}

function idOf(text: string): TenantId {
  const id = parseTenantId(text);
  if (id === undefined) throw new BulkheadError('invalid_value', 'must match ^[a-z0-9][a-z0-9-]{1,62}$', { param: 'as' });
  return id;
}

async function requireTenant(registry: Pick<TenantDirectory, 'find'>, exchange: Exchange): Promise<Tenant> {
  const text = exchange.params['tenantId'] ?? '';
  const id = parseTenantId(text);
  const tenant = id === undefined ? undefined : await registry.find(id);
  if (tenant === undefined) throw new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
  return tenant;
}
