/** Port: moves one tenant between the shared database and one of its own, while it is served. */
import type { TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from './operator-scope.ts';
import type { Principal } from './principal.ts';
import type { TenantIsolation } from './tenant.ts';

export interface TenantMove {
  readonly destination: TenantIsolation;
  /** Until `switched` the tenant lives where it lived; from then on at its destination. */
  readonly step: 'copying' | 'switched' | 'done' | 'rolled_back';
  readonly startedAtMs: number;
  readonly finishedAtMs?: number | undefined;
  /** Rows of each table, equal on both sides when the move switched. */
  readonly report: readonly { readonly table: string; readonly rows: number }[];
}

export interface TenantMover {
  /**
   * Moves the tenant of `tenant` and resolves when nothing of it is left where it was. Resolves at once when it lives there already. Rejects with
   * `not_ready` while another move of it runs, and with whatever ended the move, which is then taken back.
   */
  move(operator: OperatorScope, tenant: Principal, order: MoveOrder): Promise<TenantMove | undefined>;
  /** The latest move of the tenant. */
  find(operator: OperatorScope, tenant: Principal): Promise<TenantMove | undefined>;
  /** At the start: carries on or takes back what a process that died left. `principalOf` mints the identity to act as. */
  recover(operator: OperatorScope, principalOf: (tenantId: TenantId) => Principal): Promise<void>;
}

export interface MoveOrder {
  readonly destination: TenantIsolation;
  /** Aborting takes the move back, unless it has switched. */
  readonly signal: AbortSignal;
  /** Called when the move is on record, before anything is copied. */
  readonly onBegun?: (() => void) | undefined;
}
