/** Where a tenant's large vector stores are on a real server, as operators see it: in a shard of the tenant's own, or among the others. */
import type { TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from './operator-scope.ts';
import type { Principal } from './principal.ts';

export type Placement = 'dedicated' | 'pooled';

export interface StorePlacement {
  readonly storeId: string;
  readonly chunks: number;
  readonly placement: Placement;
  readonly isMoving: boolean;
  /** `approximate`: through an index of the store's own, whose recall was measured. */
  readonly search: 'exact' | 'approximate';
  /** recall@10 of the index as it was measured last; undefined: there is none. */
  readonly recall: number | undefined;
  readonly measuredAtMs: number | undefined;
}

export interface TenantPlacement {
  /** What an operator asked for; undefined: size decides. */
  readonly wish: Placement | undefined;
  readonly stores: readonly StorePlacement[];
}

/** Port: puts stores in their place, one at a time. Only where the database is a server and the login that owns its schema is known. */
export interface PlacementKeeper {
  /** Looks at every tenant once and brings what is out of place to its place. Returns how many stores changed; 0 also while another process is at it. */
  sweep(operator: OperatorScope, principalOf: (tenantId: TenantId) => Principal, signal: AbortSignal): Promise<number>;
  find(operator: OperatorScope, tenantId: TenantId): Promise<TenantPlacement>;
  /** Undefined: size decides again. Done by the next sweep. */
  wish(operator: OperatorScope, tenantId: TenantId, placement: Placement | undefined): Promise<void>;
}
