/**
 * The permits of all pools, shared by replicas ("move permits, not decisions"; docs/rfd/0019-shared-permits.md). Below saturation each replica keeps some that nobody uses and
 * asks nobody; once requests wait anywhere, a permit that comes free goes to the replica whose next request is entitled to it.
 */
import type { Clock } from '../primitives/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { PermitExchange, PermitMessages, PoolGrant } from './permit-exchange.ts';
import type { PoolShare, SharedFairPool } from './pool-share.ts';
import { type Place, SharedPool } from './shared-pool.ts';

export interface SharedPermitsParts {
  readonly exchange: PermitExchange;
  readonly clock: Clock;
  readonly place: () => Place;
  readonly batchMaxOf: (capacity: number) => number;
  readonly logger: Logger;
}

const everyMs = 100;
const component = 'scheduler';

export class SharedPermits implements PermitMessages, AsyncDisposable {
  readonly #parts: SharedPermitsParts;
  readonly #pools = new Map<string, SharedPool>();
  #timer: NodeJS.Timeout | undefined;
  #isAlone = false;

  constructor(parts: SharedPermitsParts) {
    this.#parts = parts;
    parts.exchange.listen(this);
  }

  start(): this {
    this.#timer ??= setInterval(() => this.tick(), everyMs);
    this.#timer.unref();
    return this;
  }

  share(poolId: string, pool: SharedFairPool): PoolShare {
    const { exchange, clock, place, batchMaxOf } = this.#parts;
    const shared = new SharedPool({
      poolId,
      pool,
      exchange,
      clock,
      place,
      batchMaxOf,
      onAlone: (isAlone, error) => this.#report(isAlone, error),
    });
    this.#pools.set(poolId, shared);
    return shared;
  }

  granted(poolId: string, grant: PoolGrant): void {
    this.#pools.get(poolId)?.granted(grant);
  }

  wanted(poolId: string): void {
    this.#pools.get(poolId)?.wanted();
  }

  /** Ten times a second. The timer does it; public for clocks that are moved by hand. */
  tick(): void {
    for (const shared of this.#pools.values()) shared.tick();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    for (const shared of this.#pools.values()) shared.close();
    await Promise.allSettled([...this.#pools.keys()].map((poolId) => this.#parts.exchange.leave(poolId)));
  }

  /** Once for all pools: they have one store. */
  #report(isAlone: boolean, error: unknown): void {
    if (isAlone === this.#isAlone) return;
    this.#isAlone = isAlone;
    const { logger } = this.#parts;
    const reason = error instanceof Error ? error.message : undefined;
    if (isAlone) logger.warn({ component, reason }, 'permits cannot be shared: this replica holds its part of each pool');
    else logger.info({ component }, 'permits are shared again');
  }
}
