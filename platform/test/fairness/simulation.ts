/**
 * A pool in simulated time around a real `MemoryFairQueue`: requests arrive, wait, stream and end on a clock that moves from event to event.
 * Deterministic: the same jobs give the same history. Cost is what the VTC paper calls service: input tokens + 4 x output tokens.
 */
import { setImmediate } from 'node:timers/promises';
import { ManualClock } from '../../src/primitives/clock.ts';
import { parseTenantId, type TenantId } from '../../src/primitives/ids.ts';
import { seededRandom } from '../../src/primitives/random.ts';
import type { WorkClass } from '../../src/primitives/work-class.ts';
import type { FairQueue, Permit, PoolSnapshot, Ticket } from '../../src/scheduler/fair-queue.ts';
import { FairnessRecord } from '../../src/scheduler/fairness-record.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import { EventHeap } from '../support/event-heap.ts';

export interface Job {
  readonly tenant: string;
  readonly user?: string;
  readonly session?: string | undefined;
  readonly weight?: number;
  readonly workClass?: WorkClass;
  readonly input: number;
  readonly output: number;
  /** What the queue is told to expect; the true output by default. */
  readonly predicted?: number;
  readonly bytes?: number;
  /** The client leaves after this long, waiting or running. */
  readonly leavesAfterMs?: number;
  /** The upstream fails before the first byte; the permit is cancelled after this long. */
  readonly failsAfterMs?: number;
}

export interface Started {
  readonly job: Job;
  readonly arrivedAtMs: number;
  readonly atMs: number;
  readonly queueMs: number;
  /** Order of arrival over the whole simulation. */
  readonly number: number;
}

export interface Served {
  readonly atMs: number;
  readonly job: Job;
  readonly cost: number;
}

export interface SimulationOptions {
  readonly capacity: number;
  readonly theta?: number;
  readonly requestsPerTenantMax?: number;
  readonly bytesMax?: number;
  readonly waitMaxMs?: number;
  /** Tokens between two reports of a running request. */
  readonly chunkTokens?: number;
  /** Where a job goes; the simulation's one queue by default. */
  readonly queueOf?: (job: Job) => FairQueue;
  /** Runs after each event, when everything that follows from it has happened. */
  readonly afterEach?: (simulation: Simulation) => void;
}

interface Turn {
  readonly job: Job;
  readonly permit: Permit;
  readonly signal: AbortSignal;
  readonly onEnd: () => void;
}

export const outputTokenCost = 4;
const prefillMs = 50;
const tokenMs = 10;
/** What a closed loop waits after a refusal. */
const retryMs = 1_000;

export function costOf(job: Pick<Job, 'input' | 'output'>): number {
  return job.input + outputTokenCost * job.output;
}

/** How long a permit is busy for each unit of cost. */
export function msPerCost(job: Pick<Job, 'input' | 'output'>): number {
  return (prefillMs + tokenMs * job.output) / costOf(job);
}

export function tenantNamed(name: string): TenantId {
  const id = parseTenantId(name);
  if (id === undefined) throw new Error(`${name} is no tenant id`);
  return id;
}

export class Simulation {
  readonly clock = new ManualClock();
  readonly queue: MemoryFairQueue;
  readonly record: FairnessRecord;
  readonly started: Started[] = [];
  readonly refused: { readonly job: Job; readonly error: unknown; readonly atMs: number; readonly number: number }[] = [];
  readonly served: Served[] = [];
  waiting = 0;
  waitingBytes = 0;
  readonly #options: SimulationOptions;
  readonly #events = new EventHeap();
  #arrivals = 0;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.record = new FairnessRecord(this.clock, () => this.queue.snapshot());
    this.queue = new MemoryFairQueue({
      clock: this.clock,
      watcher: this.record,
      requestsPerTenantMax: options.requestsPerTenantMax ?? 1_000_000,
      bytesMax: options.bytesMax ?? 1e12,
      waitMaxMs: options.waitMaxMs ?? 1e9,
      random: seededRandom(1),
      ...(options.theta !== undefined && { theta: options.theta }),
    });
    this.queue.setCapacity('pool', options.capacity);
  }

  get pool(): PoolSnapshot {
    const [pool] = this.queue.snapshot();
    if (pool === undefined) throw new Error('the pool has no capacity');
    return pool;
  }

  at(atMs: number, act: () => void): void {
    this.#events.push(atMs, act);
  }

  arrive(atMs: number, job: Job): void {
    this.at(atMs, () => this.#acquire(job));
  }

  /** Keeps `depth` requests of this shape in the queue or running until `untilMs`: a closed loop, backlogged all the time. */
  flood(span: { readonly fromMs: number; readonly untilMs: number; readonly depth: number }, next: (index: number) => Job): void {
    let index = 0;
    const again = () => {
      if (this.clock.monotonicMs() < span.untilMs) this.#acquire(next(index++), again);
    };
    for (let count = 0; count < span.depth; count++) this.at(span.fromMs, again);
  }

  /** Runs everything up to and including `untilMs`, then nothing is left to happen before it. */
  async run(untilMs: number): Promise<void> {
    for (;;) {
      const next = this.#events.peek();
      if (next === undefined || next.atMs > untilMs) break;
      this.#events.pop();
      this.clock.advance(Math.max(0, next.atMs - this.clock.monotonicMs()));
      next.act();
      await setImmediate();
      this.#options.afterEach?.(this);
    }
    this.clock.advance(Math.max(0, untilMs - this.clock.monotonicMs()));
  }

  /** Service of each tenant between two moments. */
  serviceBetween(fromMs: number, untilMs: number): ReadonlyMap<string, number> {
    const service = new Map<string, number>();
    for (const { atMs, job, cost } of this.served) {
      if (atMs > fromMs && atMs <= untilMs) service.set(job.tenant, (service.get(job.tenant) ?? 0) + cost);
    }
    return service;
  }

  #acquire(job: Job, onEnd: () => void = () => {}): void {
    const retry = () => this.at(this.clock.monotonicMs() + retryMs, onEnd);
    const leaving = new AbortController();
    const number = this.#arrivals++;
    const arrivedAtMs = this.clock.monotonicMs();
    if (job.leavesAfterMs !== undefined) this.at(arrivedAtMs + job.leavesAfterMs, () => leaving.abort(new Error('left')));
    this.#countWaiting(job, 1);
    const queue = this.#options.queueOf?.(job) ?? this.queue;
    queue.acquire(ticketOf(job), leaving.signal).then(
      (permit) => {
        this.#countWaiting(job, -1);
        this.started.push({ job, arrivedAtMs, atMs: this.clock.monotonicMs(), queueMs: permit.queueMs, number });
        this.#serve({ job, permit, signal: leaving.signal, onEnd });
      },
      (error: unknown) => {
        this.#countWaiting(job, -1);
        this.refused.push({ job, error, atMs: this.clock.monotonicMs(), number });
        retry();
      },
    );
  }

  #serve(turn: Turn): void {
    const { job, permit, onEnd } = turn;
    const nowMs = this.clock.monotonicMs();
    if (job.failsAfterMs !== undefined) {
      this.at(nowMs + job.failsAfterMs, () => {
        permit.cancel();
        onEnd();
      });
      return;
    }
    this.#count(job, job.input);
    this.#produce({ ...turn, produced: 0, startsAtMs: nowMs + prefillMs });
  }

  /** The next chunk arrives when its tokens are made. */
  #produce(turn: Turn & { readonly produced: number; readonly startsAtMs: number }): void {
    const { job, permit, signal, onEnd } = turn;
    const tokens = Math.min(this.#options.chunkTokens ?? 16, job.output - turn.produced);
    const produced = turn.produced + tokens;
    this.at(turn.startsAtMs + tokens * tokenMs, () => {
      this.#count(job, outputTokenCost * tokens);
      permit.reportOutput(tokens);
      if (produced < job.output && !signal.aborted) {
        this.#produce({ ...turn, produced, startsAtMs: this.clock.monotonicMs() });
        return;
      }
      permit.finish({ inputTokens: job.input, outputTokens: produced });
      onEnd();
    });
  }

  #countWaiting(job: Job, requests: 1 | -1): void {
    this.waiting += requests;
    this.waitingBytes += requests * ticketOf(job).bytes;
  }

  #count(job: Job, cost: number): void {
    this.served.push({ atMs: this.clock.monotonicMs(), job, cost });
  }
}

export function ticketOf(job: Job): Ticket {
  return {
    poolId: 'pool',
    tenantId: tenantNamed(job.tenant),
    user: job.user ?? 'user',
    session: job.session,
    weight: job.weight ?? 1,
    inputTokens: job.input,
    workClass: job.workClass ?? 'interactive',
    predictedOutputTokens: job.predicted ?? job.output,
    bytes: job.bytes ?? 1_000,
  };
}
