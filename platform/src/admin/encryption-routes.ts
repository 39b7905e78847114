/** `/admin/v1/at-rest` and `/admin/v1/tenants/{id}/data-keys`: rotation of master keys and of a tenant's data key. */
import { z } from 'zod';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Exchange, JsonAnswer } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { validateBody } from '../gateway/validate.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Tenant } from '../tenancy/tenant.ts';
import type { TenantDirectory } from '../tenancy/tenant-directory.ts';

/** Port: `jobs/` implements it. */
export interface KeyRotator {
  readonly currentMasterKeyId: string;
  readonly report: RewrapReport | undefined;
  masterKeyIds(operator: OperatorScope): Promise<readonly string[]>;
  start(operator: OperatorScope, isDryRun: boolean): RewrapReport;
  rotate(operator: OperatorScope, tenantId: TenantId): Promise<number>;
  dataKeys(operator: OperatorScope, tenantId: TenantId): Promise<readonly { readonly version: number; readonly masterKeyId: string }[]>;
}

interface RewrapReport {
  readonly isDryRun: boolean;
  readonly status: 'running' | 'completed' | 'failed';
  readonly tenants: number;
  readonly wrappedBy: Readonly<Record<string, number>>;
  readonly rewrapped: number;
  readonly unreadable: number;
  readonly tenantsWithPlainRows: number;
  readonly retired: readonly string[];
}

export interface EncryptionRouteParts {
  readonly operator: OperatorScope;
  readonly registry: Pick<TenantDirectory, 'find'>;
  readonly rotation: KeyRotator;
}

const rewrapSchema = z.strictObject({ dry_run: z.boolean().optional() });

export function encryptionRoutes(parts: EncryptionRouteParts): readonly OperatorRoute[] {
  const common = { auth: 'operator', spends: false } as const;
  const dataKeys = '/admin/v1/tenants/:tenantId/data-keys';
  return [
    { ...common, method: 'GET', path: '/admin/v1/at-rest', body: 'none', handle: () => showKeys(parts) },
    { ...common, method: 'POST', path: '/admin/v1/at-rest/rewrap', body: 'optional-json', handle: (exchange) => rewrap(parts, exchange) },
    { ...common, method: 'POST', path: dataKeys, body: 'optional-json', handle: (exchange) => rotate(parts, exchange) },
    { ...common, method: 'GET', path: dataKeys, body: 'none', handle: (exchange) => listDataKeys(parts, exchange) },
  ];
}

async function showKeys({ operator, rotation }: EncryptionRouteParts): Promise<JsonAnswer> {
  const ids = await rotation.masterKeyIds(operator);
  const masterKeys = ids.map((id) => ({ id, current: id === rotation.currentMasterKeyId }));
  const rewrapping = rotation.report === undefined ? null : reportShape(rotation.report);
  return { kind: 'json', status: 200, body: { object: 'at_rest', master_keys: masterKeys, rewrap: rewrapping } };
}

async function rewrap({ operator, rotation }: EncryptionRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const { dry_run: isDryRun = false } = validateBody(rewrapSchema, exchange.body ?? {});
  return { kind: 'json', status: 202, body: reportShape(rotation.start(operator, isDryRun)) };
}

async function rotate(parts: EncryptionRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  validateBody(z.strictObject({}), exchange.body ?? {});
  const tenant = await requireTenant(parts, exchange);
  if (tenant.state === 'deleting') throw new BulkheadError('not_ready', 'A tenant that is being erased gets no new key.');
  const version = await parts.rotation.rotate(parts.operator, tenant.id);
  return { kind: 'json', status: 202, body: { object: 'tenant.data_key', tenant: tenant.id, version } };
}

async function listDataKeys(parts: EncryptionRouteParts, exchange: Exchange): Promise<JsonAnswer> {
  const tenant = await requireTenant(parts, exchange);
  const keys = await parts.rotation.dataKeys(parts.operator, tenant.id);
  const rows = keys.map(({ version, masterKeyId }, index) => ({ version, master_key: masterKeyId, seals: index === keys.length - 1 }));
  return { kind: 'json', status: 200, body: { object: 'list', data: rows, has_more: false } };
}

function reportShape(report: RewrapReport) {
  return {
    object: 'at_rest.rewrap',
    status: report.status,
    dry_run: report.isDryRun,
    tenants: report.tenants,
    wrapped_by: report.wrappedBy,
    rewrapped: report.rewrapped,
    unreadable: report.unreadable,
    tenants_with_plain_rows: report.tenantsWithPlainRows,
    retired: report.retired,
  };
}

async function requireTenant({ registry }: EncryptionRouteParts, exchange: Exchange): Promise<Tenant> {
  const text = exchange.params['tenantId'] ?? '';
  const id = parseTenantId(text);
  const tenant = id === undefined ? undefined : await registry.find(id);
  if (tenant === undefined) throw new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
  return tenant;
}
