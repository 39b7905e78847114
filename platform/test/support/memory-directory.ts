/** A tenant directory in memory, for tests of what stands before the database. */
import type { TenantId } from '../../src/primitives/ids.ts';
import type { Tenant } from '../../src/tenancy/tenant.ts';
import type { ApiKeyRecord, DirectoryChange, TenantDirectory } from '../../src/tenancy/tenant-directory.ts';
import { tenantId } from './embedded-database.ts';

export class MemoryDirectory implements TenantDirectory {
  readonly tenants = new Map<string, Tenant>();
  readonly keys = new Map<string, ApiKeyRecord>();
  readonly epochs = new Map<string, number>();
  readonly changes: DirectoryChange[] = [];
  lookups = 0;

  addTenant(id: string, fields: Partial<Tenant> = {}): void {
    this.tenants.set(id, {
      id: tenantId(id),
      name: id,
      tier: 'free',
      state: 'active',
      isolation: 'pooled',
      overrides: {},
      createdAtMs: 0,
      ...fields,
    });
  }

  async find(id: TenantId): Promise<Tenant | undefined> {
    this.lookups++;
    return this.tenants.get(id);
  }

  async findApiKey(keyId: string): Promise<ApiKeyRecord | undefined> {
    this.lookups++;
    return this.keys.get(keyId);
  }

  async subjectNotBeforeMs(id: TenantId, subject: string): Promise<number | undefined> {
    return this.epochs.get(`${id} ${subject}`) ?? this.epochs.get(`${id} `);
  }

  async changesSince(sequence: number): Promise<readonly DirectoryChange[]> {
    return this.changes.filter((change) => change.sequence > sequence);
  }

  async latestSequence(): Promise<number> {
    return this.changes.length;
  }
}
