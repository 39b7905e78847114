/** Ports: everything a tenant owns, out into an archive and in under another id. */
import type { TenantId } from '../primitives/ids.ts';
import type { OperatorScope } from './operator-scope.ts';
import type { Principal } from './principal.ts';
import type { TenantOverrides } from './tenant.ts';

export interface ArchiveManifest {
  readonly version: 1;
  readonly tenant: { readonly id: string; readonly name: string; readonly tier: string; readonly overrides: TenantOverrides };
  readonly exportedAt: string;
  /** In their order in the archive. */
  readonly members: readonly { readonly name: string; readonly bytes: number; readonly sha256: string }[];
  /** Table -> rows. */
  readonly rows: Readonly<Record<string, number>>;
}

/** Takes members one after the other; each is in memory once. */
export interface ArchiveSink {
  add(name: string, body: Uint8Array): Promise<void>;
}

/** An archive that was verified whole. */
export interface ArchiveSource {
  readonly manifest: ArchiveManifest;
  members(): AsyncIterable<{ readonly name: string; readonly body: Uint8Array }>;
}

export interface TenantExporter {
  /** Writes a consistent state. Returns rows by table. Throws `not_ready` where that takes a tenant that is suspended. */
  export(
    operator: OperatorScope,
    tenant: Principal,
    writing: { readonly sink: ArchiveSink; readonly signal: AbortSignal },
  ): Promise<Readonly<Record<string, number>>>;
}

export interface TenantImporter {
  /**
   * Makes the tenant and everything it owned, or nothing. `tenant` is the identity to act as, of an id that is free. Throws `already_exists`,
   * `invalid_archive` for tables or columns that this schema does not have.
   */
  import(
    operator: OperatorScope,
    tenant: Principal,
    reading: { readonly source: ArchiveSource; readonly signal: AbortSignal },
  ): Promise<void>;
  /** At the start: removes what an import that was cut off left. */
  recover(operator: OperatorScope, principalOf: (tenantId: TenantId) => Principal): Promise<void>;
}
