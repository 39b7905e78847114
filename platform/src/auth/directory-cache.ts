/**
 * Tenants and keys as the directory last said, kept until the change feed says otherwise. Verified credentials run out after 30 s; without this each
 * of them would then cost the database two look-ups, so that 10,000 active tenants would keep it busy with nothing new. What is absent is
 * never kept, and when the feed cannot be read everything is forgotten. Ten minutes bound what a change that never reached the feed (a hand in
 * the database) can leave behind.
 */
import { LRUCache } from 'lru-cache';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { Tenant } from '../tenancy/tenant.ts';
import type { ApiKeyRecord, DirectoryChange, TenantDirectory } from '../tenancy/tenant-directory.ts';

const keptForMs = 10 * 60_000;

interface Kept<Value> {
  readonly value: Value;
  readonly readAtMs: number;
}

export class DirectoryCache implements TenantDirectory {
  readonly #directory: TenantDirectory;
  readonly #clock: Clock;
  readonly #tenants: LRUCache<string, Kept<Tenant>>;
  readonly #keys: LRUCache<string, Kept<ApiKeyRecord>>;
  /** Counts invalidations: what was read across one may be old and is not kept. */
  #generation = 0;

  constructor(directory: TenantDirectory, { entriesMax, clock }: { readonly entriesMax: number; readonly clock: Clock }) {
    this.#directory = directory;
    this.#clock = clock;
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
    cache: LRUCache<string, Kept<Value>>,
    id: string,
    read: () => Promise<Value | undefined>,
  ): Promise<Value | undefined> {
    const known = cache.get(id);
    const readAtMs = this.#clock.monotonicMs();
    if (known !== undefined && readAtMs - known.readAtMs < keptForMs) return known.value;
    const generation = this.#generation;
    const value = await read();
    if (value !== undefined && generation === this.#generation) cache.set(id, { value, readAtMs });
    return value;
  }
}
