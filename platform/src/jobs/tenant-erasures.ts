/** Erasures of tenants in the background, one after the other: each reads and writes as much as it can. */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { SignedDocument } from '../primitives/signed-document.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { DeletionReceipt, TenantEraser, TenantErasure } from '../tenancy/tenant-erasure.ts';

export class TenantErasures implements AsyncDisposable {
  readonly #eraser: TenantEraser;
  readonly #logger: Logger;
  readonly #stop = new AbortController();
  #running: { readonly tenantId: TenantId; readonly ended: Promise<void> } | undefined;

  constructor(eraser: TenantEraser, logger: Logger) {
    this.#eraser = eraser;
    this.#logger = logger;
  }

  isErasing(tenantId: TenantId): boolean {
    return this.#running?.tenantId === tenantId;
  }

  /** Resolves when calls are refused and the erasure is on record; `find` tells how it goes on. Throws `capacity_unavailable` while another runs. */
  async start(operator: OperatorScope, tenantId: TenantId): Promise<void> {
    if (this.#running !== undefined) {
      throw new BulkheadError('capacity_unavailable', 'Another tenant is being erased; try again later.', { retryAfterMs: 5_000 });
    }
    const { promise: begun, resolve: onBegun } = Promise.withResolvers<void>();
    const tenant = mintPrincipal({ tenantId, kind: 'job', user: 'erasure', keyId: 'job:erasure' });
    const erasing = this.#eraser.erase(operator, tenant, { signal: this.#stop.signal, onBegun });
    const ended = erasing.then(
      () => this.#logger.info({ component: 'erasure', tenantId }, 'a tenant was erased and its receipt signed'),
      () => {},
    );
    this.#running = {
      tenantId,
      ended: ended.finally(() => {
        this.#running = undefined;
      }),
    };
    await Promise.race([begun, erasing]);
  }

  find(operator: OperatorScope, tenantId: TenantId): Promise<TenantErasure | undefined> {
    return this.#eraser.find(operator, tenantId);
  }

  receipts(operator: OperatorScope, limit: number): Promise<readonly SignedDocument<DeletionReceipt>[]> {
    return this.#eraser.receipts(operator, limit);
  }

  /** At the start: carries on what a process that died left, in the background. */
  resume(operator: OperatorScope): void {
    void this.#resume(operator).catch(() => {
      this.#logger.warn({ component: 'erasure' }, 'erasures that were cut off could not be carried on; the next start tries again');
    });
  }

  async #resume(operator: OperatorScope): Promise<void> {
    for (const tenantId of await this.#eraser.unfinished(operator)) {
      while (this.#running !== undefined) await this.#running.ended;
      if (this.#stop.signal.aborted) return;
      this.#logger.warn({ component: 'erasure', tenantId }, 'carrying on an erasure that was cut off');
      await this.start(operator, tenantId).catch(() => {});
    }
  }

  /** What runs stops between two batches and is carried on by the next start. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new BulkheadError('shutting_down', 'the server is shutting down'));
    await this.#running?.ended;
  }
}
