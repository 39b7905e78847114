/** Moves of tenants in the background, as the tenant that moves: an operator asked, and the identity is minted here. */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import { mintPrincipal } from '../tenancy/mint-principal.ts';
import type { OperatorScope } from '../tenancy/operator-scope.ts';
import type { Principal } from '../tenancy/principal.ts';
import type { TenantIsolation } from '../tenancy/tenant.ts';
import type { MoveOrder, TenantMove, TenantMover } from '../tenancy/tenant-move.ts';

/** Each copies as fast as it can; more at once would slow everybody's requests. */
const movesMax = 2;

export class TenantMoves implements AsyncDisposable {
  readonly #mover: TenantMover;
  readonly #logger: Logger;
  readonly #stop = new AbortController();
  readonly #running = new Map<TenantId, Promise<void>>();

  constructor(mover: TenantMover, logger: Logger) {
    this.#mover = mover;
    this.#logger = logger;
  }

  /** Resolves when the tenant lives there. Throws `capacity_unavailable` while too many tenants move, and whatever ended the move. */
  move(operator: OperatorScope, tenantId: TenantId, destination: TenantIsolation): Promise<void> {
    return this.#run(operator, tenantId, { destination });
  }

  async #run(operator: OperatorScope, tenantId: TenantId, order: Omit<MoveOrder, 'signal'>): Promise<void> {
    if (this.#running.size >= movesMax) {
      throw new BulkheadError('capacity_unavailable', `${movesMax} tenants are being moved; try again later.`, { retryAfterMs: 5_000 });
    }
    if (this.#running.has(tenantId)) throw new BulkheadError('not_ready', 'This tenant is being moved already.');
    const moving = this.#mover.move(operator, principalOf(tenantId), { ...order, signal: this.#stop.signal });
    this.#running.set(
      tenantId,
      moving.then(
        () => {},
        () => {},
      ),
    );
    try {
      await moving;
    } finally {
      this.#running.delete(tenantId);
    }
  }

  /** The same, waiting only until it is on record; `find` tells how it goes on. */
  start(operator: OperatorScope, tenantId: TenantId, destination: TenantIsolation): Promise<void> {
    const { promise: begun, resolve: onBegun } = Promise.withResolvers<void>();
    const moved = this.#run(operator, tenantId, { destination, onBegun }).catch((error: unknown) => {
      const code = error instanceof BulkheadError ? error.code : undefined;
      this.#logger.error({ component: 'moves', tenantId, code }, 'a tenant was not moved and stays where it was');
    });
    return Promise.race([begun, moved]);
  }

  isMoving(tenantId: TenantId): boolean {
    return this.#running.has(tenantId);
  }

  get isFull(): boolean {
    return this.#running.size >= movesMax;
  }

  find(operator: OperatorScope, tenantId: TenantId): Promise<TenantMove | undefined> {
    return this.#mover.find(operator, principalOf(tenantId));
  }

  /** At the start: ends what a process that died left half done. */
  recover(operator: OperatorScope): Promise<void> {
    return this.#mover.recover(operator, principalOf);
  }

  /** Moves under way are taken back, unless they have switched. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new BulkheadError('shutting_down', 'the server is shutting down'));
    await Promise.all(this.#running.values());
  }
}

function principalOf(tenantId: TenantId): Principal {
  return mintPrincipal({ tenantId, kind: 'job', user: 'move', keyId: 'job:move' });
}
