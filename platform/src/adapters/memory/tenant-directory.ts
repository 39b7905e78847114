import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { TenantId } from '../../primitives/ids.ts';
import { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Tenant } from '../../tenancy/tenant.ts';
import {
  type ApiKeyRecord,
  changesPerReadMax,
  type DirectoryChange,
  type NewTenant,
  type TenantChanges,
  type TenantRegistry,
} from '../../tenancy/tenant-directory.ts';

const keysPerList = 1_000;

/** The directory without a database: forgets everything with the process. For tests; nothing in it is bounded but what it returns. */
export class MemoryTenantDirectory implements TenantRegistry {
  readonly #clock: Clock;
  readonly #tenants = new Map<TenantId, Tenant>();
  readonly #keys = new Map<string, ApiKeyRecord>();
  /** By tenant, then by subject; '' is every subject. */
  readonly #epochs = new Map<TenantId, Map<string, number>>();
  readonly #changes: DirectoryChange[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async find(tenantId: TenantId): Promise<Tenant | undefined> {
    return this.#tenants.get(tenantId);
  }

  async findApiKey(keyId: string): Promise<ApiKeyRecord | undefined> {
    return this.#keys.get(keyId);
  }

  async subjectNotBeforeMs(tenantId: TenantId, subject: string): Promise<number | undefined> {
    const epochs = this.#epochs.get(tenantId);
    const known = [epochs?.get(''), epochs?.get(subject)].filter((epochMs) => epochMs !== undefined);
    return known.length === 0 ? undefined : Math.max(...known);
  }

  async latestSequence(): Promise<number> {
    return this.#changes.length;
  }

  async changesSince(sequence: number): Promise<readonly DirectoryChange[]> {
    return this.#changes.slice(sequence, sequence + changesPerReadMax);
  }

  async create(operator: OperatorScope, tenant: NewTenant): Promise<Tenant> {
    requireOperator(operator);
    if (this.#tenants.has(tenant.id)) {
      throw new BulkheadError('already_exists', `The tenant id ${quoteInput(tenant.id)} is taken; ids are never reused.`, { param: 'id' });
    }
    return this.#keep({ ...tenant, state: 'active', createdAtMs: this.#clock.nowMs() });
  }

  async update(operator: OperatorScope, tenantId: TenantId, changes: TenantChanges): Promise<Tenant | undefined> {
    requireOperator(operator);
    const before = this.#tenants.get(tenantId);
    if (before === undefined) return undefined;
    const { name = before.name, tier = before.tier, state = before.state, overrides = before.overrides } = changes;
    return this.#keep({ ...before, name, tier, state, overrides });
  }

  async list(operator: OperatorScope, page: { readonly limit: number; readonly after?: string | undefined }) {
    requireOperator(operator);
    const after = page.after ?? '';
    const following = [...this.#tenants.values()].filter(({ id }) => id > after).sort((left, right) => (left.id < right.id ? -1 : 1));
    return { items: following.slice(0, page.limit), hasMore: following.length > page.limit };
  }

  async createApiKey(operator: OperatorScope, key: Omit<ApiKeyRecord, 'createdAtMs' | 'revokedAtMs'>): Promise<ApiKeyRecord> {
    requireOperator(operator);
    if (!this.#tenants.has(key.tenantId)) throw new Error('the tenant of a key exists');
    if (this.#keys.has(key.id)) throw new Error('the id of a key is its own');
    const record: ApiKeyRecord = { ...key, digest: Uint8Array.from(key.digest), createdAtMs: this.#clock.nowMs() };
    this.#keys.set(key.id, record);
    this.#append('api-key', key.tenantId, key.id);
    return record;
  }

  async listApiKeys(operator: OperatorScope, tenantId: TenantId): Promise<readonly ApiKeyRecord[]> {
    requireOperator(operator);
    const own = [...this.#keys.values()].filter((key) => key.tenantId === tenantId);
    return own.sort((left, right) => left.createdAtMs - right.createdAtMs || (left.id < right.id ? -1 : 1)).slice(0, keysPerList);
  }

  async revokeApiKey(operator: OperatorScope, tenantId: TenantId, keyId: string): Promise<boolean> {
    requireOperator(operator);
    const key = this.#keys.get(keyId);
    if (key === undefined || key.tenantId !== tenantId || key.revokedAtMs !== undefined) return false;
    this.#keys.set(keyId, { ...key, revokedAtMs: this.#clock.nowMs() });
    this.#append('api-key', tenantId, keyId);
    return true;
  }

  async revokeSubject(operator: OperatorScope, tenantId: TenantId, subject?: string): Promise<void> {
    requireOperator(operator);
    if (!this.#tenants.has(tenantId)) throw new Error('the tenant of a subject exists');
    const epochs = this.#epochs.get(tenantId) ?? new Map<string, number>();
    this.#epochs.set(tenantId, epochs.set(subject ?? '', this.#clock.nowMs()));
    this.#append('subject', tenantId, subject);
  }

  #keep(tenant: Tenant): Tenant {
    this.#tenants.set(tenant.id, tenant);
    this.#append('tenant', tenant.id);
    return tenant;
  }

  #append(kind: DirectoryChange['kind'], tenantId: TenantId, subjectId?: string): void {
    this.#changes.push({ sequence: this.#changes.length + 1, kind, tenantId, ...(subjectId !== undefined && { subjectId }) });
  }
}

function requireOperator(operator: OperatorScope): void {
  assert(OperatorScope.is(operator), 'the directory is written and listed by operators');
}
