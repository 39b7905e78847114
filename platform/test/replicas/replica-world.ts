/**
 * Replicas that share a pool in simulated time: real queues and real sharing around the model of the store, with messages that take time, a store that fails and replicas that are
 * killed. Deterministic.
 */
import { seededRandom } from '../../src/primitives/random.ts';
import { permitsMaxOf } from '../../src/scheduler/flow.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import type { PermitExchange } from '../../src/scheduler/permit-exchange.ts';
import { SharedPermits } from '../../src/scheduler/shared-permits.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { type Job, Simulation } from '../fairness/simulation.ts';
import { MemoryPermits } from '../support/memory-permits.ts';

export interface WorldOptions {
  readonly replicas: number;
  readonly capacity: number;
  /** By which replica a job comes. */
  readonly entrance: (job: Job) => number;
  /** There and back; messages take half. */
  readonly roundTripMs?: number;
  /** Every so many messages is lost. */
  readonly isLost?: () => boolean;
  readonly theta?: number;
  readonly waitMaxMs?: number;
  readonly afterEach?: (world: ReplicaWorld) => void;
}

export interface Replica {
  readonly name: string;
  readonly queue: MemoryFairQueue;
  readonly permits: SharedPermits;
  isDead: boolean;
  /** The store answers this replica no more. */
  isCutOff: boolean;
  calls: number;
}

/** What a real connection gives up after. */
export const commandTimeoutMs = 25;

export class ReplicaWorld {
  readonly simulation: Simulation;
  readonly store: MemoryPermits;
  readonly replicas: Replica[] = [];
  /** The store is there: `hanging` takes calls and never answers, `late` acts on them and does not answer in time. */
  storeMode: 'up' | 'down' | 'hanging' | 'late' = 'up';
  readonly #options: WorldOptions;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.simulation = new Simulation({
      capacity: 0,
      queueOf: (job) => (this.replicas[options.entrance(job)] as Replica).queue,
      afterEach: () => options.afterEach?.(this),
    });
    const { clock } = this.simulation;
    this.store = new MemoryPermits(() => clock.monotonicMs());
    for (let index = 0; index < options.replicas; index++) this.replicas.push(this.#open(`r${index}`, index));
    for (const { queue } of this.replicas) queue.setCapacity('pool', options.capacity);
    this.#tick();
  }

  get alive(): readonly Replica[] {
    return this.replicas.filter(({ isDead }) => !isDead);
  }

  get running(): number {
    return this.alive.reduce((sum, replica) => sum + poolOf(replica).inFlight, 0);
  }

  get queued(): number {
    return this.alive.reduce((sum, replica) => sum + poolOf(replica).queued, 0);
  }

  get calls(): number {
    return this.replicas.reduce((sum, { calls }) => sum + calls, 0);
  }

  kill(index: number): void {
    const replica = this.replicas[index] as Replica;
    replica.isDead = true;
    this.store.silence(replica.name);
  }

  #open(name: string, rank: number): Replica {
    const { capacity, replicas: count, theta, waitMaxMs } = this.#options;
    const { clock } = this.simulation;
    const exchange = this.#through(
      name,
      this.store.replica(name, (send) => this.#deliver(send)),
    );
    const permits = new SharedPermits({
      exchange,
      clock,
      place: () => ({ rank, count }),
      batchMaxOf: (capacity) => permitsMaxOf('batch', capacity),
      logger: silentLogger,
    });
    const queue = new MemoryFairQueue({
      clock,
      watcher: this.simulation.record,
      requestsPerTenantMax: 1_000_000,
      bytesMax: 1e12,
      waitMaxMs: waitMaxMs ?? 1e9,
      random: seededRandom(1),
      share: (poolId, pool) => permits.share(poolId, pool),
      ...(theta !== undefined && { theta }),
    });
    return { name, queue, permits, isDead: capacity < 0, isCutOff: false, calls: 0 };
  }

  #through(name: string, exchange: PermitExchange): PermitExchange {
    const halfMs = (this.#options.roundTripMs ?? 0) / 2;
    return {
      ...exchange,
      exchange: async (statement) => {
        const replica = this.replicas.find((each) => each.name === name) as Replica;
        replica.calls++;
        if (replica.isDead) return new Promise(() => {});
        if (this.storeMode === 'down' || replica.isCutOff) throw new Error('there is no connection');
        if (this.storeMode === 'late') await exchange.exchange(statement);
        if (this.storeMode !== 'up') return this.#timesOut();
        await this.#after(halfMs);
        const answer = await exchange.exchange(statement);
        await this.#after(halfMs);
        return answer;
      },
    };
  }

  async #timesOut(): Promise<never> {
    await this.#after(commandTimeoutMs);
    throw new Error('no answer in time');
  }

  #deliver(send: () => void): void {
    if (this.#options.isLost?.() === true) return;
    this.simulation.at(this.simulation.clock.monotonicMs() + (this.#options.roundTripMs ?? 0) / 2, send);
  }

  #after(ms: number): Promise<void> {
    if (ms === 0) return Promise.resolve();
    return new Promise((resolve) => this.simulation.at(this.simulation.clock.monotonicMs() + ms, resolve));
  }

  #tick(): void {
    for (const { permits } of this.alive) permits.tick();
    this.simulation.at(this.simulation.clock.monotonicMs() + 100, () => this.#tick());
  }
}

export function poolOf({ queue }: Replica) {
  const [pool] = queue.snapshot();
  if (pool === undefined) throw new Error('the pool has no capacity');
  return pool;
}
