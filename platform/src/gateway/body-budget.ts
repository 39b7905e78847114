/**
 * The bodies that are in memory now (or, in a second budget, the uploads that are on disk), all of them together: limits on one body and on connections alone would let a few hundred
 * uploads take the process's memory. A body counts from its bytes' arrival until its exchange was served, because its handler holds it so long.
 * One tenant alone gets half: its uploads never refuse another's.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';

const retryAfterMs = 1_000;

export class BodyBudget {
  readonly #bytesMax: number;
  readonly #place: 'memory' | 'disk';
  readonly #ofTenants = new Map<string, number>();
  #bytes = 0;

  constructor(bytesMax: number, place: 'memory' | 'disk' = 'memory') {
    this.#bytesMax = bytesMax;
    this.#place = place;
  }

  /** Bytes held now. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Throws `capacity_unavailable` when `bytes` more would be too many; takes nothing. `tenantId` undefined: a caller that is no tenant. */
  assertRoom(tenantId: string | undefined, bytes: number): void {
    if (this.#bytes + bytes > this.#bytesMax) throw this.#refusal('gateway', this.#bytesMax);
    const tenantMax = this.#bytesMax / 2;
    if (tenantId !== undefined && (this.#ofTenants.get(tenantId) ?? 0) + bytes > tenantMax) throw this.#refusal('tenant', tenantMax);
  }

  /** What was taken must be given back, the same bytes for the same tenant. */
  take(tenantId: string | undefined, bytes: number): void {
    this.assertRoom(tenantId, bytes);
    this.#bytes += bytes;
    if (tenantId !== undefined) this.#ofTenants.set(tenantId, (this.#ofTenants.get(tenantId) ?? 0) + bytes);
  }

  give(tenantId: string | undefined, bytes: number): void {
    this.#bytes -= bytes;
    if (tenantId === undefined) return;
    const left = (this.#ofTenants.get(tenantId) ?? 0) - bytes;
    if (left === 0) this.#ofTenants.delete(tenantId);
    else this.#ofTenants.set(tenantId, left);
  }

  #refusal(scope: 'gateway' | 'tenant', limitBytes: number): BulkheadError {
    const limit = this.#place === 'memory' ? `${scope}.body_bytes` : `${scope}.spool_bytes`;
    return new BulkheadError(
      'capacity_unavailable',
      `Too many request bodies are ${this.#place === 'memory' ? 'in memory' : 'on disk'}. Try again in a moment.`,
      {
        retryAfterMs,
        details: { limit, scope, limit_value: limitBytes },
      },
    );
  }
}
