/**
 * Stage 6: the weighted fair queue, in this process. Before it admission has reserved; after it inference holds a slot. Work-conserving: after
 * every step, nobody waits while a slot of the pool is free. Bounded in requests per tenant, in bytes over all, and in time.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { FairQueue, Permit, PoolSnapshot, Ticket } from './fair-queue.ts';
import type { TenantFlow, UserFlow, Waiter } from './flow.ts';
import { type ChargeRates, Pool } from './pool.ts';

export interface FairQueueOptions {
  readonly clock: Clock;
  readonly requestsPerTenantMax: number;
  /** Bodies of everything that waits, over all pools. */
  readonly bytesMax: number;
  readonly waitMaxMs: number;
  /** Default 0.25; see docs/rfd/0003-fair-queue.md. */
  readonly theta?: number;
  /** Charge units per token, whole; the default is the price ratio of most models. */
  readonly weights?: { readonly input: number; readonly output: number };
}

const capacityDefault = 64;
const thetaDefault = 0.25;
/** Units are scaled so that a part of a token's charge is still a whole number. */
const unit = 1_000;
const sweepEveryMs = 250;
const retryMinMs = 1_000;
const retryMaxMs = 60_000;

export class MemoryFairQueue implements FairQueue {
  readonly #options: FairQueueOptions;
  readonly #rates: ChargeRates;
  readonly #pools = new Map<string, Pool>();
  readonly #waiting = new Set<Waiter & { readonly pool: Pool }>();
  #bytes = 0;
  #sweeper: NodeJS.Timeout | undefined;
  #mode: 'open' | 'closed' = 'open';

  constructor(options: FairQueueOptions) {
    const { input, output } = options.weights ?? { input: 1, output: 4 };
    this.#options = options;
    this.#rates = { input: input * unit, output: output * unit, theta: options.theta ?? thetaDefault };
  }

  async acquire(ticket: Ticket, signal: AbortSignal): Promise<Permit> {
    signal.throwIfAborted();
    if (this.#mode === 'closed') throw new BulkheadError('shutting_down', 'The server is shutting down.', { retryAfterMs: retryMinMs });
    const pool = this.#poolOf(ticket.poolId);
    const { tenant, user } = pool.flowsOf(ticket);
    const work = pool.dispatchWork(ticket);
    if (pool.hasFreeSlot && pool.queued === 0) return this.#open({ pool, tenant, user, work, ticket, queueMs: 0 });
    this.#makeRoom(pool, { tenant, user, work, ticket });
    return this.#wait(pool, { tenant, user, work, ticket, signal });
  }

  setCapacity(poolId: string, permits: number): void {
    const pool = this.#poolOf(poolId);
    pool.capacity = permits;
    this.#dispatch(pool);
  }

  snapshot(): readonly PoolSnapshot[] {
    return [...this.#pools.values()].map((pool) => ({
      poolId: pool.id,
      capacity: pool.capacity,
      inFlight: pool.inFlight,
      queued: pool.queued,
      tenants: [...pool.tenants.values()].map((tenant) => ({
        tenantId: tenant.tenantId,
        queued: tenant.queued,
        inFlight: tenant.inFlight,
        weight: tenant.weight,
        virtualTime: tenant.virtualTime(),
      })),
    }));
  }

  close(): void {
    this.#mode = 'closed';
    for (const waiter of [...this.#waiting])
      this.#drop(waiter, new BulkheadError('shutting_down', 'The server is shutting down.', { retryAfterMs: retryMinMs }));
  }

  /** Refuses everything that has waited too long. Called by a timer while anything waits; public for clocks that are moved by hand. */
  sweep(): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const waiter of this.#waiting) {
      // In the order of arrival, which is the order of the deadlines.
      if (waiter.deadlineMs > nowMs) break;
      const waitedMs = Math.round(nowMs - waiter.enqueuedAtMs);
      this.#drop(
        waiter,
        new BulkheadError('queue_timeout', `No slot became free within ${waitedMs} ms.`, {
          retryAfterMs: this.#retryAfterMs(waiter.pool, waiter.tenant),
        }),
      );
    }
  }

  #poolOf(poolId: string): Pool {
    const known = this.#pools.get(poolId);
    if (known !== undefined) return known;
    const pool = new Pool(poolId, capacityDefault, this.#rates);
    this.#pools.set(poolId, pool);
    return pool;
  }

  /** Makes room for an arrival, or throws `queue_full`. Never at the cost of somebody with less waiting than the one who arrives. */
  #makeRoom(pool: Pool, arrival: Arrival): void {
    const { tenant, user, work, ticket } = arrival;
    const { requestsPerTenantMax, bytesMax, waitMaxMs } = this.#options;
    const waitMs = pool.estimatedWaitMs(tenant, work);
    if (tenant.queued > 0 && waitMs > waitMaxMs) throw this.#full(pool, tenant, `it would wait about ${Math.round(waitMs / 1_000)} s`);
    if (tenant.queued >= requestsPerTenantMax) {
      const largest = [...tenant.users.values()].reduce((most, other) => (other.queued > most.queued ? other : most), user);
      const newest = largest === user ? undefined : largest.newest();
      if (newest === undefined) throw this.#full(pool, tenant, `${tenant.queued} of its requests wait already`);
      this.#drop(newest, this.#full(pool, tenant, 'another user of the tenant needs the place'));
    }
    while (this.#bytes + ticket.bytes > bytesMax) {
      const heaviest = pool.waitingTenants.items().reduce<TenantFlow>((most, other) => (load(other) > load(most) ? other : most), tenant);
      const newest = heaviest === tenant ? undefined : newestOf(heaviest);
      if (newest === undefined) throw this.#full(pool, tenant, 'the queue holds as many bytes as it may');
      this.#drop(newest, this.#full(pool, heaviest, 'the queue holds as many bytes as it may'));
    }
  }

  #wait(pool: Pool, arrival: Arrival & { readonly signal: AbortSignal }): Promise<Permit> {
    const { tenant, user, work, ticket, signal } = arrival;
    const nowMs = this.#options.clock.monotonicMs();
    return new Promise<Permit>((resolve, reject) => {
      const leave = () => this.#drop(waiter, signal.reason);
      const waiter: Waiter & { readonly pool: Pool } = {
        mode: 'waiting',
        pool,
        ticket,
        tenant,
        user,
        dispatchWork: work,
        enqueuedAtMs: nowMs,
        deadlineMs: nowMs + this.#options.waitMaxMs,
        grant: () => {
          signal.removeEventListener('abort', leave);
          resolve(this.#open({ pool, tenant, user, work, ticket, queueMs: this.#options.clock.monotonicMs() - nowMs }));
        },
        refuse: (error) => {
          signal.removeEventListener('abort', leave);
          reject(error as Error);
        },
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#bytes += ticket.bytes;
      this.#waiting.add(waiter);
      pool.enqueue(waiter);
      this.#sweeper ??= setInterval(() => this.sweep(), sweepEveryMs).unref();
      this.#dispatch(pool);
    });
  }

  #dispatch(pool: Pool): void {
    while (pool.hasFreeSlot && pool.queued > 0) {
      const waiter = pool.next() as (Waiter & { readonly pool: Pool }) | undefined;
      if (waiter === undefined) return;
      waiter.mode = 'granted';
      this.#takeOut(waiter);
      waiter.grant();
    }
  }

  #drop(waiter: Waiter, error: unknown): void {
    if (waiter.mode !== 'waiting') return;
    waiter.mode = 'gone';
    this.#takeOut(waiter as Waiter & { readonly pool: Pool });
    waiter.refuse(error);
  }

  #takeOut(waiter: Waiter & { readonly pool: Pool }): void {
    this.#waiting.delete(waiter);
    this.#bytes -= waiter.ticket.bytes;
    waiter.pool.leave(waiter);
    if (this.#waiting.size > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  #open(grant: Arrival & { readonly pool: Pool; readonly queueMs: number }): Permit {
    const { pool, tenant, user, work } = grant;
    pool.dispatch(tenant, user, work);
    return new HeldPermit(grant, this.#rates, this.#options.clock, () => this.#dispatch(pool));
  }

  #full(pool: Pool, tenant: TenantFlow, reason: string): BulkheadError {
    return new BulkheadError('queue_full', `The request was not queued: ${reason}.`, { retryAfterMs: this.#retryAfterMs(pool, tenant) });
  }

  #retryAfterMs(pool: Pool, tenant: TenantFlow): number {
    return Math.min(retryMaxMs, Math.max(retryMinMs, Math.ceil(pool.estimatedWaitMs(tenant, 0))));
  }
}

interface Arrival {
  readonly tenant: TenantFlow;
  readonly user: UserFlow;
  readonly work: number;
  readonly ticket: Ticket;
}

function load(tenant: TenantFlow): number {
  return tenant.backlog / tenant.weight;
}

function newestOf(tenant: TenantFlow): Waiter | undefined {
  const largest = tenant.waitingUsers
    .items()
    .reduce<UserFlow | undefined>((most, user) => (most === undefined || user.queued > most.queued ? user : most), undefined);
  return largest?.newest();
}

class HeldPermit implements Permit {
  readonly queueMs: number;
  readonly #grant: Arrival & { readonly pool: Pool };
  readonly #rates: ChargeRates;
  readonly #clock: Clock;
  readonly #onFree: () => void;
  readonly #grantedAtMs: number;
  #charged: number;
  #reported = 0;
  #mode: 'held' | 'ended' = 'held';

  constructor(grant: Arrival & { readonly pool: Pool; readonly queueMs: number }, rates: ChargeRates, clock: Clock, onFree: () => void) {
    this.queueMs = grant.queueMs;
    this.#grant = grant;
    this.#rates = rates;
    this.#clock = clock;
    this.#onFree = onFree;
    this.#grantedAtMs = clock.monotonicMs();
    this.#charged = grant.work;
  }

  reportOutput(tokens: number): void {
    if (this.#mode === 'ended' || tokens <= 0) return;
    const { output, theta } = this.#rates;
    const inside = Math.max(0, Math.min(tokens, this.#grant.ticket.predictedOutputTokens - this.#reported));
    this.#reported += tokens;
    this.#charge(Math.round((1 - theta) * output * inside + output * (tokens - inside)));
  }

  finish(actual: { readonly inputTokens: number; readonly outputTokens: number }): void {
    if (this.#mode === 'ended') return;
    const { pool, tenant } = this.#grant;
    const total = this.#rates.input * actual.inputTokens + this.#rates.output * actual.outputTokens;
    const difference = total - this.#charged;
    this.#charge(difference);
    if (difference < 0) pool.capCredit(tenant);
    pool.learnSpeed(total, this.#clock.monotonicMs() - this.#grantedAtMs);
    this.#end();
  }

  cancel(): void {
    if (this.#mode === 'ended') return;
    this.#charge(-this.#charged);
    this.#end();
  }

  #charge(work: number): void {
    this.#charged += work;
    this.#grant.pool.charge(this.#grant.tenant, this.#grant.user, work);
  }

  #end(): void {
    this.#mode = 'ended';
    this.#grant.pool.release(this.#grant.tenant, this.#grant.user);
    this.#onFree();
  }
}
