import type { TenantId } from '../../primitives/ids.ts';
import type { Database } from './database.ts';

/** A tenant's own database while it is open. */
export interface OpenSilo extends AsyncDisposable {
  readonly database: Database;
}

/** Makes, opens and destroys databases that hold one tenant each. All three may be repeated after a crash. */
export interface SiloSource {
  /** Where a database for the tenant would be made now, without secrets. One that is there is found in the register. */
  placeFor(tenantId: TenantId): Promise<string>;
  /** Makes what the first `create` would wait for. Nothing depends on it having been called, or having succeeded. */
  prepare(): Promise<void>;
  /** An empty database with the current schema. Replaces what a crash left half made. */
  create(place: string): Promise<void>;
  /** Throws `SiloGone` when there is none: opening must never make one. Else `database_unavailable`, `schema_mismatch` or `unsafe_catalogue`. */
  open(place: string): Promise<OpenSilo>;
  /** One that is not ours to remove is emptied by `empty` and left to its operator. */
  destroy(place: string, empty: (database: Database) => Promise<void>): Promise<void>;
}

/** There is no such database any more: the tenant lives elsewhere. */
export class SiloGone extends Error {}
