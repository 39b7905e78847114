/**
 * Sees to it that every vector store is embedded by the configured model: looks through the tenants' stores when any of them may be embedded by
 * another, and begins what there is to do, as the tenant whose store it is. The work itself is jobs (`rag/reembed.ts`).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { EmbeddedStores, EmbeddingSetting, ReembeddingShelf } from '../rag/reembed.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Principal } from '../tenancy/principal.ts';
import type { TenantRegistry } from '../tenancy/tenant-directory.ts';

export interface ReembeddingPlanParts {
  readonly operator: OperatorScope;
  readonly registry: Pick<TenantRegistry, 'list'>;
  readonly register: EmbeddingModels;
  readonly shelfOf: (principal: Principal) => Pick<ReembeddingShelf, 'begin' | 'survey'>;
  /** What the configuration says. */
  readonly target: EmbeddingSetting;
  readonly canEmbed: (setting: EmbeddingSetting) => boolean;
  /** Called when there may be jobs. */
  readonly onBegun: () => void;
  readonly logger: Logger;
  /** Between two looks through all tenants, while other models than the configured one are in use. */
  readonly intervalMs: number;
}

/** Port: every model that stores may be embedded by. */
export interface EmbeddingModels {
  add(setting: EmbeddingSetting): Promise<void>;
  list(): Promise<readonly EmbeddingSetting[]>;
  remove(setting: EmbeddingSetting): Promise<void>;
}

type LookWork = (shelf: Pick<ReembeddingShelf, 'begin' | 'survey'>) => Promise<void>;

const tenantsAtOnce = 100;
const component = 'reembedding';

export class Reembedding implements AsyncDisposable {
  readonly #parts: ReembeddingPlanParts;
  readonly #stop = new AbortController();
  #others: readonly EmbeddingSetting[] = [];
  #running: Promise<void> = Promise.resolve();

  private constructor(parts: ReembeddingPlanParts) {
    this.#parts = parts;
  }

  /** Throws `schema_mismatch` when a store is embedded by a model that the configuration does not have: it could neither be searched nor filled. */
  static async open(parts: ReembeddingPlanParts): Promise<Reembedding> {
    const reembedding = new Reembedding(parts);
    await parts.register.add(parts.target);
    await reembedding.#readRegister();
    if (reembedding.#others.every(parts.canEmbed)) return reembedding;
    const { stores } = await reembedding.#lookThrough();
    const lost = stores.find((setting) => !parts.canEmbed(setting));
    if (lost !== undefined) throw unservable(lost);
    return reembedding;
  }

  /** Whether a store may be embedded by another model than the configured one. */
  get hasOtherModels(): boolean {
    return this.#others.length > 0;
  }

  start(): void {
    this.#running = this.#run();
  }

  /** How one tenant's stores are embedded. */
  survey(operator: OperatorScope, tenantId: TenantId): Promise<readonly EmbeddedStores[]> {
    assert(OperatorScope.is(operator), 'another tenant is seen by operators alone');
    return this.#parts.shelfOf(principalOf(tenantId)).survey();
  }

  /** Begins what there is to do, and forgets models that no store has any more. */
  async begin(): Promise<void> {
    const { target, register, onBegun, logger } = this.#parts;
    const { stores, isComplete } = await this.#lookThrough((shelf) => shelf.begin(target));
    onBegun();
    for (const setting of isComplete ? this.#others : []) {
      if (!stores.some((used) => isSame(used, setting))) await register.remove(setting);
    }
    await this.#readRegister();
    const count = stores.filter((used) => !isSame(used, target)).reduce((sum, used) => sum + used.stores, 0);
    if (count > 0) logger.info({ component, model: target.model, count }, 'vector stores are being embedded anew');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new BulkheadError('shutting_down', 'the server is shutting down'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted && this.#others.length > 0) {
      try {
        await this.begin();
      } catch (error) {
        if (signal.aborted) return;
        this.#parts.logger.warn(
          { component, code: codeOf(error) },
          'the tenants could not be looked through; their vector stores serve as they are',
        );
      }
      await sleep(this.#parts.intervalMs, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  async #readRegister(): Promise<void> {
    const known = await this.#parts.register.list();
    this.#others = known.filter((setting) => !isSame(setting, this.#parts.target));
  }

  /** Over all tenants, one after the other; how their stores are embedded. */
  async #lookThrough(work: LookWork = async () => {}) {
    const { operator, registry } = this.#parts;
    const stores: EmbeddedStores[] = [];
    let isComplete = true;
    let after: string | undefined;
    for (;;) {
      const page = await registry.list(operator, { limit: tenantsAtOnce, after });
      for (const tenant of page.items) {
        this.#stop.signal.throwIfAborted();
        if (tenant.state === 'deleting') continue;
        const found = await this.#lookAt(tenant.id, work);
        isComplete &&= found !== undefined;
        stores.push(...(found ?? []));
      }
      after = page.items.at(-1)?.id;
      if (!page.hasMore || after === undefined) return { stores, isComplete };
    }
  }

  /** Undefined: the tenant's database could not be reached; the others' turn must come all the same. */
  async #lookAt(tenantId: TenantId, work: LookWork): Promise<readonly EmbeddedStores[] | undefined> {
    const shelf = this.#parts.shelfOf(principalOf(tenantId));
    try {
      await work(shelf);
      return await shelf.survey();
    } catch (error) {
      const { logger } = this.#parts;
      logger.warn({ component, tenantId, code: codeOf(error) }, "a tenant's vector stores could not be looked at and serve as they are");
      return undefined;
    }
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof BulkheadError ? error.code : undefined;
}

function isSame(left: EmbeddingSetting, right: EmbeddingSetting): boolean {
  return left.model === right.model && left.dimensions === right.dimensions;
}

function unservable({ model, dimensions }: EmbeddingSetting): BulkheadError {
  return new BulkheadError(
    'schema_mismatch',
    `Vector stores of this database are embedded by ${model} with ${dimensions} dimensions, which the configuration does not have. Name it under ` +
      'models (kind: embedding) again until they are embedded by embedding.model, or start with another database.',
  );
}

function principalOf(tenantId: TenantId): Principal {
  return mintPrincipal({ tenantId, kind: 'job', user: 'reembedding', keyId: 'job:reembedding' });
}
