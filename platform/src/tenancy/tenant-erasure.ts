/** Port: erases one tenant on every surface, physically, and signs what it found. */
import type { TenantId } from '../primitives/ids.ts';
import type { SignedDocument } from '../primitives/signed-document.ts';
import type { OperatorScope } from './operator-scope.ts';
import type { Principal } from './principal.ts';
import type { TenantIsolation } from './tenant.ts';

/**
 * `refusing`: calls are refused, what runs is waited for. `planted`: canaries are in and were found by the search. `counted`: nobody may enter any more.
 * `deleted`: no row is left. `purged`: no page is left that held one. `done`: the receipt is signed.
 */
export type ErasureStep = 'refusing' | 'planted' | 'counted' | 'deleted' | 'purged' | 'done';

export interface TenantErasure {
  readonly step: ErasureStep;
  readonly startedAtMs: number;
  readonly finishedAtMs?: number | undefined;
  /** Why the receipt was refused the last time; erasing again carries on. */
  readonly refusal?: string | undefined;
  readonly receipt?: SignedDocument<DeletionReceipt> | undefined;
}

export interface DeletionReceipt {
  readonly version: 1;
  readonly tenant: TenantId;
  readonly isolation: TenantIsolation;
  readonly startedAt: string;
  readonly finishedAt: string;
  readonly engine: 'embedded' | 'server';
  /** Every table with a tenant in it, and every other place. `after` is 0, or `kept` says why not. */
  readonly surfaces: readonly ReceiptSurface[];
  /** What was looked for: found before, not found afterwards. `sha256` of the bytes searched for, so that the receipt does not hold them. */
  readonly canaries: readonly {
    readonly surface: string;
    readonly sha256: string;
    readonly foundBefore: number;
    readonly foundAfter: number;
  }[];
  readonly search: ReceiptSearch;
  readonly rewritten: readonly { readonly relation: string; readonly bytesBefore: number; readonly bytesAfter: number }[];
  readonly writeAheadLog: 'removed' | 'left to the server';
  readonly notCovered: readonly string[];
}

export interface ReceiptSurface {
  readonly name: string;
  readonly before: number;
  readonly after: number;
  readonly kept?: string | undefined;
}

export interface ReceiptSearch {
  /** `files`: every byte of the data directory, or of the database's relation files. `rows`: the tenant's rows alone, because the files may not be read. */
  readonly method: 'files' | 'rows';
  readonly files: number;
  readonly bytes: number;
}

export interface TenantEraser {
  /** Carries on where an earlier attempt stopped. Resolves with the receipt, at once when there is one. Rejects with `erasure_incomplete` when anything is left or unknown. */
  erase(operator: OperatorScope, tenant: Principal, order: ErasureOrder): Promise<SignedDocument<DeletionReceipt>>;
  find(operator: OperatorScope, tenantId: TenantId): Promise<TenantErasure | undefined>;
  /** Receipts there are, the latest first. */
  receipts(operator: OperatorScope, limit: number): Promise<readonly SignedDocument<DeletionReceipt>[]>;
  /** Tenants whose erasure no process carries on. */
  unfinished(operator: OperatorScope): Promise<readonly TenantId[]>;
}

export interface ErasureOrder {
  /** Aborting stops between two batches; erasing again carries on. */
  readonly signal: AbortSignal;
  /** Called when the erasure is on record and calls are refused. */
  readonly onBegun?: (() => void) | undefined;
}

/** Port: a place outside the tables that may hold something of a tenant. A count that cannot be told rejects. */
export interface ErasureSurface {
  readonly name: string;
  count(tenantId: TenantId): Promise<number>;
  erase(tenantId: TenantId): Promise<void>;
}

/** Port: puts recognisable content into the tenant, by the code that puts all content there. */
export interface CanaryPlanter {
  plant(tenant: Principal): Promise<PlantedCanaries>;
}

export interface PlantedCanaries {
  readonly tokens: readonly string[];
  /** Ids of what was made: a file, a store, a response. */
  readonly ids: readonly string[];
}
