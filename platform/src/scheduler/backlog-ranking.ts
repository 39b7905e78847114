import type { FairRequest } from './fair-request.ts';
import type { TenantFlow } from './flow.ts';

type Tenant = TenantFlow<FairRequest>;

/** Ranks -32 to 63 as powers of two of bytes per weight; 0 is the lowest index. */
const rankOffset = 32;
const ranks = 96;
/** Members of the highest rank that are compared exactly. */
const comparedMax = 16;

/**
 * Which tenant has the longest queue for its weight, in bytes. Alternatives: 1. a second heap (two more moves per request, for a question
 * asked only when memory is short), 2. a scan (a flood then costs each arrival a pass over all tenants), 3. sets by power of two (this:
 * a tenant moves only when its queue doubles or falls to a quarter, so one that swings around a power of two stays; the answer is at least a quarter as long as the longest).
 */
export class BacklogRanking {
  readonly #byRank: readonly Set<Tenant>[] = Array.from({ length: ranks }, () => new Set<Tenant>());

  update(tenant: Tenant): void {
    if (tenant.backlogIn !== this) enter(tenant, this);
    const size = bytesPerWeight(tenant);
    if (size >= tenant.backlogFrom && size < tenant.backlogTo) return;
    const rank = size === 0 ? -1 : rankOf(size);
    tenant.backlogFrom = rank === -1 ? 0 : 2 ** (rank - rankOffset - 1);
    tenant.backlogTo = rank === -1 ? Number.MIN_VALUE : 2 ** (rank - rankOffset + 1);
    if (rank === tenant.backlogRank) return;
    this.#byRank[tenant.backlogRank]?.delete(tenant);
    this.#byRank[rank]?.add(tenant);
    tenant.backlogRank = rank;
  }

  longest(): Tenant | undefined {
    for (let rank = ranks - 1; rank >= 0; rank--) {
      const tenants = this.#byRank[rank];
      if (tenants !== undefined && tenants.size > 0) return longestOf(tenants);
    }
    return undefined;
  }
}

/** What an earlier ranking has made of it counts no more. */
function enter(tenant: Tenant, ranking: BacklogRanking): void {
  tenant.backlogIn = ranking;
  tenant.backlogRank = -1;
  tenant.backlogFrom = 0;
  tenant.backlogTo = Number.MIN_VALUE;
}

function longestOf(tenants: Set<Tenant>): Tenant | undefined {
  let longest: Tenant | undefined;
  let compared = 0;
  for (const tenant of tenants) {
    if (compared++ === comparedMax) break;
    if (longest === undefined || bytesPerWeight(tenant) > bytesPerWeight(longest)) longest = tenant;
  }
  return longest;
}

function rankOf(size: number): number {
  return Math.min(ranks - 1, Math.max(0, Math.floor(Math.log2(size)) + rankOffset));
}

function bytesPerWeight(tenant: Tenant): number {
  return tenant.queuedBytes / tenant.weight;
}
