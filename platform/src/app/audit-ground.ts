/** The tenants of the isolation audit and what they call with: made, keyed and ended with an operator's authority. */

import type { AuditGround, EnrolledTenant } from '../audit/audit-ports.ts';
import { CanaryIssuer } from '../auth/canary-issuer.ts';
import type { TrustedIssuer } from '../auth/issuer-registry.ts';
import type { Config } from '../config/schema.ts';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import type { AuditRecords } from '../tenancy/audit-records.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Tenant, TenantOverrides } from '../tenancy/tenant.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';
import type { Identity } from './identity.ts';

/** One name is tried after another, because an erased tenant's id is never used again. */
const namesMax = 64;
/** Far above what a run sends, and different for each, so that a limit header shows whose limit was looked at. */
const requestsPerMinuteBase = 1_000_000;
const tokensPerMinute = 1_000_000_000;
const concurrency = 64;
/** Audits yield to everybody where there is a queue. */
const weight = 0.01;
/** Beyond the longest run. A key is revoked when its run ends; this is for a process that died. */
const keyLifeMs = 2 * 3_600_000;

export interface CanaryIssuers {
  readonly issuers: ReadonlyMap<string, CanaryIssuer>;
  readonly trusted: readonly TrustedIssuer[];
  /** Tokens of the canary tenants' issuers are believed while it is true. */
  setOpen(isOpen: boolean): void;
}

/** Made before the authenticator, which must know every issuer from the start. */
export function canaryIssuers(): CanaryIssuers {
  let open = false;
  const issuers = new Map<string, CanaryIssuer>();
  for (let number = 1; number <= namesMax; number++) issuers.set(nameOf(number), new CanaryIssuer(idOf(number), () => open));
  return {
    issuers,
    trusted: [...issuers.values()].map(({ trust }) => trust),
    setOpen(isOpen) {
      open = isOpen;
    },
  };
}

export interface AuditGroundParts {
  readonly operator: OperatorScope;
  readonly config: Config;
  readonly registry: TenantRegistry;
  readonly records: AuditRecords;
  readonly identity: Identity;
  readonly issuers: CanaryIssuers;
  readonly settle: (tenantId: TenantId) => Promise<void>;
  readonly models: readonly string[];
  readonly adminToken: string;
  readonly nowMs: () => number;
}

export function openAuditGround(parts: AuditGroundParts): AuditGround {
  const { operator, registry, identity } = parts;
  const changed = async <T>(work: Promise<T>): Promise<T> => {
    const result = await work;
    await identity.directoryChanged();
    return result;
  };
  return {
    operatorCredential: parts.adminToken,
    enrol: (count) => changed(enrol(parts, count)),
    admit: (tenantId) => admit(parts, tenantId),
    async issueKey(tenantId, requestsPerMinute) {
      const limits = requestsPerMinute === undefined ? {} : { requestsPerMinute };
      const expiresAtMs = parts.nowMs() + keyLifeMs;
      const issued = identity.apiKeys.issue({ tenantId, name: 'isolation audit', environment: 'live', limits, expiresAtMs });
      await changed(registry.createApiKey(operator, issued.record));
      return { key: issued.key, keyId: issued.record.id };
    },
    async revokeKey(tenantId, keyId) {
      await changed(registry.revokeApiKey(operator, tenantId, keyId));
    },
    revokeSubject: (tenantId, subject) => changed(registry.revokeSubject(operator, tenantId, subject)),
  };
}

async function enrol(parts: AuditGroundParts, count: number): Promise<readonly EnrolledTenant[]> {
  const own = await parts.records.ownTenants(parts.operator);
  const enrolled: EnrolledTenant[] = [];
  for (let number = 1; number <= namesMax && enrolled.length < count; number++) {
    const isSiloed = enrolled.length >= count - parts.config.audit.siloedTenants;
    const tenant = await canaryTenant(parts, { number, isOwn: own.has(nameOf(number)), isSiloed });
    if (tenant === undefined) continue;
    const { id: tenantId, isolation } = tenant;
    enrolled.push({
      tenantId,
      kind: 'canary',
      isolation,
      requestsPerMinute: requestsPerMinuteBase + number,
      issuer: parts.issuers.issuers.get(tenantId),
    });
  }
  return enrolled;
}

interface Wanted {
  readonly number: number;
  readonly isOwn: boolean;
  readonly isSiloed: boolean;
}

/** Undefined when the id was used and erased. Throws for a tenant of that name that the audit did not make. */
async function canaryTenant(parts: AuditGroundParts, { number, isOwn, isSiloed }: Wanted): Promise<Tenant | undefined> {
  const { operator, registry, records } = parts;
  const id = idOf(number);
  const overrides = overridesOf(parts, number);
  const found = await registry.find(id);
  if (found !== undefined) {
    if (!isOwn)
      throw new BulkheadError('already_exists', `The tenant ${id} was there before the audit, which would fill it with canaries.`);
    if (found.state !== 'active') throw new BulkheadError('tenant_suspended', `The canary tenant ${id} is ${found.state}; resume it.`);
    const tier = parts.config.tiers[found.tier] === undefined ? lowestTier(parts.config) : undefined;
    return (await registry.update(operator, id, { overrides, tier })) ?? found;
  }
  await records.claimTenant(operator, id);
  const isolation = isSiloed ? 'siloed' : 'pooled';
  try {
    const name = `Isolation audit, canary ${number}`;
    const made = await registry.create(operator, { id, name, tier: lowestTier(parts.config), isolation, overrides });
    if (isSiloed) await parts.settle(id);
    return made;
  } catch (error) {
    if (error instanceof BulkheadError && error.code === 'already_exists') return undefined;
    throw error;
  }
}

function overridesOf({ models }: AuditGroundParts, number: number): TenantOverrides {
  return { weight, limits: { requestsPerMinute: requestsPerMinuteBase + number, tokensPerMinute, concurrency }, models };
}

function lowestTier({ tiers }: Config): string {
  const [lowest] = Object.entries(tiers).toSorted(([, left], [, right]) => left.weight - right.weight);
  assert(lowest !== undefined, 'there is a tier');
  return lowest[0];
}

async function admit({ registry }: AuditGroundParts, text: string): Promise<EnrolledTenant> {
  const id = parseTenantId(text);
  const tenant = id === undefined ? undefined : await registry.find(id);
  if (tenant === undefined) throw new BulkheadError('not_found', `there is no tenant ${quoteInput(text)}`);
  if (tenant.state !== 'active') throw new BulkheadError('tenant_suspended', `The tenant ${tenant.id} is ${tenant.state}.`);
  return { tenantId: tenant.id, kind: 'by consent', isolation: tenant.isolation, requestsPerMinute: undefined, issuer: undefined };
}

function nameOf(number: number): string {
  return `canary-${number}`;
}

function idOf(number: number): TenantId {
  const id = parseTenantId(nameOf(number));
  assert(id !== undefined, 'a canary tenant has a possible name');
  return id;
}
