/** Ports of the isolation audit towards the database: kept reports, and rows as one tenant's own transaction sees them. */
import type { OperatorScope } from './operator-scope.ts';
import type { Principal } from './principal.ts';

export type AuditVerdict = 'PASS' | 'LEAK' | 'INCONCLUSIVE';

/** A kept report: what lists show, and the text as it was signed. */
export interface AuditRecord {
  /** Position in the chain, from 1. */
  readonly number: number;
  readonly id: string;
  readonly kind: 'full' | 'smoke';
  readonly verdict: AuditVerdict;
  readonly startedAtMs: number;
  /** Hash that the next report takes in. */
  readonly head: string;
  readonly text: string;
}

export interface AuditRecords {
  /** False while another run holds it. The same run renews it. */
  claim(operator: OperatorScope, runId: string, leaseMs: number): Promise<boolean>;
  release(operator: OperatorScope, runId: string): Promise<void>;
  /** Gives the next place in the chain and keeps what is made for it; drops what is beyond the bounds. */
  keep(
    operator: OperatorScope,
    make: (place: { readonly number: number; readonly previous: string | null }) => AuditRecord,
  ): Promise<AuditRecord>;
  find(operator: OperatorScope, id: string): Promise<AuditRecord | undefined>;
  /** Newest first, without their texts. */
  list(
    operator: OperatorScope,
    page: { readonly limit: number; readonly beforeNumber?: number | undefined },
  ): Promise<readonly Omit<AuditRecord, 'text'>[]>;
  /** Tenants that the audit made for itself. */
  ownTenants(operator: OperatorScope): Promise<ReadonlySet<string>>;
  /** Before the tenant is made. */
  claimTenant(operator: OperatorScope, tenantId: string): Promise<void>;
}

/** What one table shows to a tenant's own transaction. */
export interface TableTruth {
  readonly table: string;
  /** At most the reader's bound. */
  readonly rows: number;
  /** Rows of other tenants. Must be 0. */
  readonly foreignRows: number;
  /** Readable text of the rows, bounded; sealed columns are opened as the tenant. */
  readonly text: string;
}

/** A wall that is leaned on: it must hold. */
export interface Tripwire {
  readonly name: string;
  readonly held: boolean;
  /** What the database said, without content. */
  readonly got: string;
}

export interface RowInspector {
  /** Tables of tenant data in the live catalogue. */
  tables(): Promise<readonly string[]>;
  scan(tenant: Principal): Promise<readonly TableTruth[]>;
  tripwires(attacker: Principal, victimId: string): Promise<readonly Tripwire[]>;
  /** SHA-256 over tables, columns, policies and grants of tenant data. */
  schemaHash(): Promise<string>;
  /** Engine and version. */
  describe(): Promise<string>;
}

/** The queue as somebody sees it who can write there without having been asked. */
export interface JobDesk {
  /** As the tenant's own transaction would. */
  insert(
    tenant: Principal,
    job: { readonly id: string; readonly kind: string; readonly payload: unknown; readonly envelope: string },
  ): Promise<void>;
  stateOf(jobId: string): Promise<'gone' | 'buried' | 'there'>;
  remove(jobId: string): Promise<void>;
}
