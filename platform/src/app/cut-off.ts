/** Ends what is running for a tenant that was suspended or is being erased, and for a key that was revoked, and forgets what was in memory of the tenant. New calls are refused by `auth/`. */
import type { ResidentPartitions } from '../adapters/postgres/resident-partitions.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Gateway } from '../gateway/server.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { DirectoryChange, TenantDirectory } from '../tenancy/tenant-directory.ts';
import type { Identity } from './identity.ts';

export interface CutOffParts {
  readonly identity: Identity;
  readonly gateway: Gateway;
  readonly directory: TenantDirectory;
  readonly residents: ResidentPartitions;
  readonly logger: Logger;
}

/** A call whose credential was being verified when the change came is found at the second look. */
const secondLookMs = 2_000;
const component = 'suspension';

export function cutOffRefused(parts: CutOffParts): Disposable {
  const timers = new Set<NodeJS.Timeout>();
  parts.identity.onChange((change) => {
    void look(parts, change);
    const timer = setTimeout(() => {
      timers.delete(timer);
      void look(parts, change);
    }, secondLookMs).unref();
    timers.add(timer);
  });
  return {
    [Symbol.dispose]() {
      for (const timer of timers) clearTimeout(timer);
    },
  };
}

/** Never rejects. A directory that cannot be read leaves the streams to the second look and to their own bounds. */
async function look(parts: CutOffParts, { kind, tenantId, subjectId }: DirectoryChange): Promise<void> {
  const { gateway, directory, logger } = parts;
  try {
    if (kind === 'tenant') return await lookAtTenant(parts, tenantId);
    if (kind === 'subject' || gateway.openExchanges() === 0) return;
    if (subjectId === undefined || (await directory.findApiKey(subjectId))?.revokedAtMs === undefined) return;
    const reason = new BulkheadError('invalid_api_key', 'The API key was revoked.');
    gateway.endExchanges(({ principal }) => principal.kind === 'api-key' && principal.keyId === subjectId, reason);
  } catch {
    logger.warn({ component, tenantId }, 'could not look up whether running calls must end');
  }
}

/** An active tenant keeps what is in memory of it, whatever else changed. */
async function lookAtTenant({ gateway, directory, residents, logger }: CutOffParts, tenantId: TenantId): Promise<void> {
  const tenant = await directory.find(tenantId);
  if (tenant?.state === 'active') return;
  residents.drop(tenantId);
  const reason = new BulkheadError('tenant_suspended', 'This tenant is suspended.');
  const count = gateway.endExchanges((scope) => scope.tenantId === tenantId, reason);
  if (count > 0) logger.info({ component, tenantId, count }, 'ended what was running for a suspended tenant');
}
