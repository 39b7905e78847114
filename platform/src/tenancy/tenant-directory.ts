import type { TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from './operator-scope.ts';
import type { BudgetPolicy, LimitPolicy, Tenant, TenantIsolation, TenantOverrides, TenantState } from './tenant.ts';

export const changesPerReadMax = 1_000;

/** Who the tenants are. Read by authentication on a cache miss; written by operators. */
export interface TenantDirectory {
  find(tenantId: TenantId): Promise<Tenant | undefined>;
  findApiKey(keyId: string): Promise<ApiKeyRecord | undefined>;
  /** Tokens of this subject issued before it are refused; undefined when nothing was revoked. */
  subjectNotBeforeMs(tenantId: TenantId, subject: string): Promise<number | undefined>;
  /** Newest sequence of the change feed, 0 when there is none. */
  latestSequence(): Promise<number>;
  /** Credential and tenant changes after `sequence`, oldest first, at most `changesPerReadMax`; fewer are all there were. A replica polls it to see revocations. */
  changesSince(sequence: number): Promise<readonly DirectoryChange[]>;
}

export interface ApiKeyRecord {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly name: string;
  readonly environment: 'live' | 'test';
  /** HMAC-SHA-256 of the whole key under the pepper of `pepperVersion`. */
  readonly digest: Uint8Array;
  readonly pepperVersion: number;
  readonly lastFour: string;
  readonly limits: LimitPolicy;
  readonly budget?: BudgetPolicy | undefined;
  /** Part of the tenant it belongs to. */
  readonly team?: string | undefined;
  readonly createdAtMs: number;
  readonly expiresAtMs?: number | undefined;
  readonly revokedAtMs?: number | undefined;
}

export interface DirectoryChange {
  readonly sequence: number;
  readonly kind: 'tenant' | 'api-key' | 'subject';
  readonly tenantId: TenantId;
  /** The key's id, or for `subject` the revoked subject. */
  readonly subjectId?: string | undefined;
}

export interface NewTenant {
  readonly id: TenantId;
  readonly name: string;
  readonly tier: string;
  readonly isolation: TenantIsolation;
  readonly overrides: TenantOverrides;
}

export interface TenantChanges {
  readonly name?: string | undefined;
  readonly tier?: string | undefined;
  readonly state?: TenantState | undefined;
  readonly overrides?: TenantOverrides | undefined;
}

/** The operator's side. `create` throws `already_exists`, also for an id that was erased: ids are never reused. */
export interface TenantRegistry extends TenantDirectory {
  create(operator: OperatorScope, tenant: NewTenant): Promise<Tenant>;
  update(operator: OperatorScope, tenantId: TenantId, changes: TenantChanges): Promise<Tenant | undefined>;
  list(
    operator: OperatorScope,
    page: { readonly limit: number; readonly after?: string | undefined },
  ): Promise<{ readonly items: readonly Tenant[]; readonly hasMore: boolean }>;
  createApiKey(operator: OperatorScope, key: Omit<ApiKeyRecord, 'createdAtMs' | 'revokedAtMs'>): Promise<ApiKeyRecord>;
  listApiKeys(operator: OperatorScope, tenantId: TenantId): Promise<readonly ApiKeyRecord[]>;
  /** False when there is no such live key. */
  revokeApiKey(operator: OperatorScope, tenantId: TenantId, keyId: string): Promise<boolean>;
  /** Every token of `subject` (or of the whole tenant when absent) issued before now is refused from now on. */
  revokeSubject(operator: OperatorScope, tenantId: TenantId, subject?: string): Promise<void>;
}
