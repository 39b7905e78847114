/**
 * Verified credentials, keyed by the SHA-256 of the WHOLE credential (a shared prefix must never be enough: CVE-2026-35030). Bounded; a hit is
 * good for 30 s and never beyond the credential's own end; a refusal is remembered for 5 s in a cache of its own, so that garbage cannot push
 * out what is good.
 */
import { hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';

export interface CachedCredential {
  readonly scope: TenantScope;
  readonly expiresAtMs: number;
}

/** When a verification began: its answer is as old as that, and stale if anything was forgotten since. */
export interface VerificationStart {
  readonly generation: number;
  readonly atMs: number;
}

const goodForMs = 30_000;
const refusedForMs = 5_000;
const refusalsMax = 10_000;

export class CredentialCache {
  readonly #clock: Clock;
  readonly #verified: LRUCache<string, CachedCredential & { readonly checkedAtMs: number }>;
  readonly #refused = new LRUCache<string, { readonly error: BulkheadError; readonly atMs: number }>({ max: refusalsMax });
  /** Slots by tenant, so that forgetting one costs nothing for the others. */
  readonly #slotsOf = new Map<TenantId, Set<string>>();
  #generation = 0;

  constructor(clock: Clock, entriesMax: number) {
    this.#clock = clock;
    this.#verified = new LRUCache({ max: entriesMax, dispose: ({ scope }, slot) => this.#unlist(scope.tenantId, slot) });
  }

  get(slot: string): TenantScope | undefined {
    const entry = this.#verified.get(slot);
    if (entry === undefined) return undefined;
    const isGood = this.#clock.monotonicMs() - entry.checkedAtMs < goodForMs && this.#clock.nowMs() < entry.expiresAtMs;
    if (isGood) return entry.scope;
    this.#verified.delete(slot);
    return undefined;
  }

  refusal(slot: string): BulkheadError | undefined {
    const entry = this.#refused.get(slot);
    return entry !== undefined && this.#clock.monotonicMs() - entry.atMs < refusedForMs ? entry.error : undefined;
  }

  begin(): VerificationStart {
    return { generation: this.#generation, atMs: this.#clock.monotonicMs() };
  }

  put(slot: string, credential: CachedCredential, { generation, atMs }: VerificationStart): void {
    if (generation !== this.#generation) return;
    this.#verified.set(slot, { ...credential, checkedAtMs: atMs });
    const { tenantId } = credential.scope;
    const listed = this.#slotsOf.get(tenantId);
    if (listed === undefined) this.#slotsOf.set(tenantId, new Set([slot]));
    else listed.add(slot);
  }

  refuse(slot: string, error: BulkheadError, { generation, atMs }: VerificationStart): void {
    if (generation === this.#generation) this.#refused.set(slot, { error, atMs });
  }

  /** Forgets every credential of a tenant, and every refusal: what was wrong may be right now. */
  forgetTenant(tenantId: TenantId): void {
    this.#generation++;
    for (const slot of this.#slotsOf.get(tenantId) ?? []) this.#verified.delete(slot);
    this.#refused.clear();
  }

  forgetAll(): void {
    this.#generation++;
    this.#verified.clear();
    this.#refused.clear();
  }

  get size(): number {
    return this.#verified.size;
  }

  get refusals(): number {
    return this.#refused.size;
  }

  /** Tenants with a credential in the cache. */
  get tenants(): number {
    return this.#slotsOf.size;
  }

  #unlist(tenantId: TenantId, slot: string): void {
    const listed = this.#slotsOf.get(tenantId);
    listed?.delete(slot);
    if (listed?.size === 0) this.#slotsOf.delete(tenantId);
  }
}

/** The cache slot of a credential. */
export function slotOf(credential: string): string {
  return hash('sha256', credential, 'base64');
}
