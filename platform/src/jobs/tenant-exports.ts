/**
 * Exports and imports of tenants, one at a time. An archive is a file of the data directory, one for each tenant, until a later export replaces it, it is
 * deleted, or the tenant is erased.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Tenant } from '../tenancy/tenant.ts';
import type { ArchiveManifest, ArchiveSink, ArchiveSource, TenantExporter, TenantImporter } from '../tenancy/tenant-archive.ts';
import type { ErasureSurface } from '../tenancy/tenant-erasure.ts';

/** Port: where archives are kept. */
export interface ArchiveShelf extends ErasureSurface {
  create(tenantId: TenantId): Promise<ArchiveBeingWritten>;
  /** Verified whole. Throws `invalid_archive`. `file` is a name, never a path. */
  open(file: string, trustedPublicKey: string | undefined): Promise<ArchiveSource>;
  /** Undefined: there is none. */
  read(tenantId: TenantId): Promise<StoredArchive | undefined>;
}

export interface ArchiveBeingWritten extends ArchiveSink, AsyncDisposable {
  finish(facts: Omit<ArchiveManifest, 'members' | 'version'>): Promise<void>;
}

export interface StoredArchive {
  /** Its name in the data directory's `exports`. */
  readonly file: string;
  readonly bytes: number;
  readonly createdAtMs: number;
  readonly parts: AsyncIterable<Uint8Array>;
}

export interface TenantExportsParts {
  readonly exporter: TenantExporter;
  readonly importer: TenantImporter;
  readonly shelf: ArchiveShelf;
  readonly nowMs: () => number;
  readonly logger: Logger;
}

export interface ImportOrder {
  readonly file: string;
  /** Undefined: under the id it had. */
  readonly as: TenantId | undefined;
  /** PEM of the installation that exported; undefined: this one. */
  readonly publicKey: string | undefined;
}

export class TenantExports implements AsyncDisposable {
  readonly #parts: TenantExportsParts;
  readonly #stop = new AbortController();
  #running: { readonly tenantId: TenantId | undefined; readonly ended: Promise<void> } | undefined;
  readonly #failures = new Map<TenantId, string>();

  constructor(parts: TenantExportsParts) {
    this.#parts = parts;
  }

  isExporting(tenantId: TenantId): boolean {
    return this.#running?.tenantId === tenantId;
  }

  /** Why the last export of the tenant by this process failed. */
  failureOf(tenantId: TenantId): string | undefined {
    return this.#failures.get(tenantId);
  }

  archiveOf(tenantId: TenantId): Promise<StoredArchive | undefined> {
    return this.#parts.shelf.read(tenantId);
  }

  /** Begins one in the background. Throws `capacity_unavailable` while another export or import runs. */
  start(operator: OperatorScope, tenant: Tenant): void {
    this.#refuseWhileBusy();
    this.#failures.delete(tenant.id);
    const exporting = this.#export(operator, tenant).catch((error: unknown) => {
      if (this.#failures.size > 1_000) this.#failures.clear();
      this.#failures.set(
        tenant.id,
        error instanceof BulkheadError ? error.message : 'The export failed; the log of the server says where.',
      );
      const code = error instanceof BulkheadError ? error.code : undefined;
      this.#parts.logger.error({ component: 'export', tenantId: tenant.id, code }, 'a tenant was not exported');
    });
    this.#occupy(tenant.id, exporting);
  }

  /** Resolves when the tenant is there and served. */
  async import(operator: OperatorScope, { file, as, publicKey }: ImportOrder, idOf: (text: string) => TenantId): Promise<TenantId> {
    this.#refuseWhileBusy();
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    this.#occupy(undefined, ended);
    try {
      const source = await this.#parts.shelf.open(file, publicKey);
      const tenantId = as ?? idOf(source.manifest.tenant.id);
      await this.#parts.importer.import(operator, principalOf(tenantId), { source, signal: this.#stop.signal });
      return tenantId;
    } finally {
      resolve();
    }
  }

  /** At the start: removes what an import that was cut off left. */
  recover(operator: OperatorScope): Promise<void> {
    return this.#parts.importer.recover(operator, principalOf);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new BulkheadError('shutting_down', 'the server is shutting down'));
    await this.#running?.ended;
  }

  async #export(operator: OperatorScope, { id, name, tier, overrides }: Tenant): Promise<void> {
    const { exporter, shelf, nowMs } = this.#parts;
    await using archive = await shelf.create(id);
    const exportedAt = new Date(nowMs()).toISOString();
    const rows = await exporter.export(operator, principalOf(id), { sink: archive, signal: this.#stop.signal });
    await archive.finish({ tenant: { id, name, tier, overrides }, exportedAt, rows });
  }

  #refuseWhileBusy(): void {
    if (this.#running === undefined) return;
    throw new BulkheadError('capacity_unavailable', 'Another export or import runs; try again later.', { retryAfterMs: 5_000 });
  }

  #occupy(tenantId: TenantId | undefined, work: Promise<void>): void {
    const ended = work.finally(() => {
      this.#running = undefined;
    });
    this.#running = { tenantId, ended };
  }
}

function principalOf(tenantId: TenantId) {
  return mintPrincipal({ tenantId, kind: 'job', user: 'export', keyId: 'job:export' });
}
