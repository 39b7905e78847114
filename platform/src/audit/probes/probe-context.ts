/** What every family of probes works with. */
import type { AuditBook, CallerParts, SeenAnswer } from '../attempt.ts';
import type { AuditGround, AuditTarget, JobForger, SurfaceRegistry, TruthReader } from '../audit-ports.ts';
import type { CanaryTenant } from '../canary-tenant.ts';
import type { AddressedIds } from '../surface-cases.ts';

export interface ProbeContext {
  readonly kind: 'full' | 'smoke';
  readonly tenants: readonly CanaryTenant[];
  readonly pairs: readonly Pair[];
  readonly book: AuditBook;
  readonly calling: CallerParts;
  readonly ground: AuditGround;
  readonly target: AuditTarget;
  readonly registry: SurfaceRegistry;
  readonly truth: TruthReader;
  readonly forger: JobForger;
  readonly chatModel: string | undefined;
  readonly embeddingModel: string;
}

export interface Pair {
  readonly attacker: CanaryTenant;
  readonly victim: CanaryTenant;
}

/** Every ordered pair. */
export function pairsOf(tenants: readonly CanaryTenant[]): readonly Pair[] {
  return tenants.flatMap((attacker) => tenants.flatMap((victim) => (victim === attacker ? [] : [{ attacker, victim }])));
}

/** Ids of the right form that nobody has. */
export const absentIds: AddressedIds = {
  storeId: `vs_${'0'.repeat(26)}`,
  fileId: `file-${'0'.repeat(26)}`,
  batchFileId: `file-${'0'.repeat(26)}`,
  batchId: `vsfb_${'0'.repeat(26)}`,
  responseId: `resp_${'0'.repeat(26)}`,
  tenantId: 'canary-0-absent',
  keyId: '00000000',
};

/** Ids and the request's own id have one length each; without them, equal answers are equal. */
export function outlineOf({ status, headers, body }: SeenAnswer): string {
  const masked = body.replaceAll(/(vs_|file-|vsfb_|resp_|req_)[0-9a-z]{26}/g, '$1');
  return JSON.stringify([status, Object.keys(headers).toSorted(), headers['content-length'] ?? null, masked]);
}

export function shown({ status, foreign }: SeenAnswer): string {
  return foreign.length === 0 ? `status ${status}` : `status ${status} with ${foreign.length} foreign canaries`;
}

export function parsed(answer: SeenAnswer): Record<string, unknown> {
  try {
    return JSON.parse(answer.body) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/** The items of a list answer. */
export function itemsOf(answer: SeenAnswer): readonly Readonly<Record<string, unknown>>[] {
  const { data } = parsed(answer);
  return Array.isArray(data) ? (data as Readonly<Record<string, unknown>>[]) : [];
}
