import type { TenantId } from '../../primitives/ids.ts';
import type { Database } from './database.ts';

/** A tenant's own database while it is open. */
export interface OpenSilo extends AsyncDisposable {
  readonly database: Database;
}

/** Makes, opens and destroys databases that hold one tenant each. All three may be repeated after a crash. */
export interface SiloSource {
  /** Where the tenant's database is or will be: the same at every call, without secrets. */
  placeOf(tenantId: TenantId): string;
  /** An empty database with the current schema. Replaces what a crash left half made. */
  create(place: string): Promise<void>;
  /** Throws `SiloGone` when there is none: opening must never make one. Else `database_unavailable`, `schema_mismatch` or `unsafe_catalogue`. */
  open(place: string): Promise<OpenSilo>;
  destroy(place: string): Promise<void>;
}

/** There is no such database any more: the tenant lives elsewhere. */
export class SiloGone extends Error {}
