/**
 * Tenants and keys as the directory last said, kept until the change feed says otherwise. Verified credentials run out after 30 s; without this each
 * of them would then cost the database two look-ups, so that 10,000 active tenants would keep it busy with nothing new. What is absent is
 * never kept, and when the feed cannot be read everything is forgotten.
 */
import { LRUCache } from 'lru-cache';
import type { TenantId } from '../primitives/ids.ts';
import type { Tenant } from '../tenancy/tenant.ts';
import type { ApiKeyRecord, DirectoryChange, TenantDirectory } from '../tenancy/tenant-directory.ts';

export class DirectoryCache implements TenantDirectory {
  readonly #directory: TenantDirectory;
  readonly #tenants: LRUCache<string, Tenant>;
  readonly #keys: LRUCache<string, ApiKeyRecord>;
  /** Counts invalidations: what was read across one may be old and is not kept. */
  #generation = 0;

  constructor(directory: TenantDirectory, entriesMax: number) {
    this.#directory = directory;
    this.#tenants = new LRUCache({ max: entriesMax });
    this.#keys = new LRUCache({ max: entriesMax });
  }

  find(tenantId: TenantId): Promise<Tenant | undefined> {
    return this.#through(this.#tenants, tenantId, () => this.#directory.find(tenantId));
  }

  findApiKey(keyId: string): Promise<ApiKeyRecord | undefined> {
    return this.#through(this.#keys, keyId, () => this.#directory.findApiKey(keyId));
  }

  subjectNotBeforeMs(tenantId: TenantId, subject: string): Promise<number | undefined> {
    return this.#directory.subjectNotBeforeMs(tenantId, subject);
  }

  changesSince(sequence: number): Promise<readonly DirectoryChange[]> {
    return this.#directory.changesSince(sequence);
  }

  latestSequence(): Promise<number> {
    return this.#directory.latestSequence();
  }

  apply(change: DirectoryChange): void {
    this.#generation++;
    this.#tenants.delete(change.tenantId);
    if (change.kind === 'api-key' && change.subjectId !== undefined) this.#keys.delete(change.subjectId);
  }

  forgetAll(): void {
    this.#generation++;
    this.#tenants.clear();
    this.#keys.clear();
  }

  async #through<Value extends object>(
    cache: LRUCache<string, Value>,
    id: string,
    read: () => Promise<Value | undefined>,
  ): Promise<Value | undefined> {
    const known = cache.get(id);
    if (known !== undefined) return known;
    const generation = this.#generation;
    const value = await read();
    if (value !== undefined && generation === this.#generation) cache.set(id, value);
    return value;
  }
}
