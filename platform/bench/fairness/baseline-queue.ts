/**
 * What the product's queue is compared with: one pool, a line a tenant, and an `Order` that says whose oldest request goes next. Bounds are the same for
 * every order: a deadline and a number of waiting requests in all. With `requestsPerMinute` a tenant's further requests in any 60 s are refused.
 */
import type { Clock } from '../../src/primitives/clock.ts';
import type { TenantId } from '../../src/primitives/ids.ts';
import { systemRandom } from '../../src/primitives/random.ts';
import type { Permit, PoolSnapshot, Ticket } from '../../src/scheduler/fair-queue.ts';
import type { Waiter } from '../../src/scheduler/fair-request.ts';
import type { QueueWatcher } from '../../src/scheduler/fairness-record.ts';
import { QueueRefusal, QueueRefusals } from '../../src/scheduler/refusals.ts';
import { type ActualTokens, unitsOf } from '../../src/scheduler/service-cost.ts';

export interface BaselineOptions {
  readonly clock: Clock;
  readonly order: Order;
  readonly outputTokenCost: number;
  readonly waitMaxMs: number;
  /** Waiting requests of everybody together. */
  readonly requestsMax: number;
  readonly requestsPerMinute?: number | undefined;
  readonly watcher?: QueueWatcher | undefined;
}

/** Said no by the number of requests a minute, which the product's queue does not know. */
export class RateRefusal extends Error {}

const minuteMs = 60_000;

export class Line {
  readonly tenantId: TenantId;
  readonly waiting = new Fifo();
  weight = 1;
  queued = 0;
  inFlight = 0;
  /** What it may still take in its turn, in whatever its order counts; a debt is negative. */
  balance = 0;
  /** When its requests of the last minute were accepted. */
  readonly acceptedAtMs: number[] = [];

  constructor(tenantId: TenantId) {
    this.tenantId = tenantId;
  }
}

export interface Order {
  /** The line whose oldest request goes next: the same until something starts or is charged. `oldest` is the oldest of all. */
  next(lines: readonly Line[], oldest: BaselineRequest): Line;
  /** Cost may be negative: a refund. */
  charge(line: Line, amount: { readonly requests: number; readonly cost: number }): void;
}

export class BaselineQueue {
  readonly #options: BaselineOptions;
  readonly #refusals = new QueueRefusals(systemRandom);
  readonly #lines: Line[] = [];
  readonly #byTenant = new Map<TenantId, Line>();
  readonly #all = new Fifo();
  #capacity = 0;
  #running = 0;
  #queued = 0;
  #isDispatching = false;

  constructor(options: BaselineOptions) {
    this.#options = options;
  }

  /** The waiter is told at once when a permit is free or the request is refused. */
  submit(ticket: Ticket, waiter: Waiter): BaselineRequest {
    const { clock, requestsMax } = this.#options;
    this.expire();
    const line = this.#lineOf(ticket);
    const request = new BaselineRequest({ owner: this, ticket, line, waiter, arrivedAtMs: clock.monotonicMs() });
    if (!this.#isWithinRate(line)) this.#refuseNew(request, new RateRefusal('too many requests in a minute'));
    else if (this.#queued >= requestsMax) this.#refuseNew(request, this.#refusals.bytesFull(requestsMax, undefined));
    else {
      line.waiting.push(request);
      this.#all.push(request);
      line.queued++;
      this.#queued++;
      this.#dispatch();
    }
    return request;
  }

  setCapacity(permits: number): void {
    this.#capacity = permits;
    this.#dispatch();
  }

  /** Whose request would go next. */
  next(): TenantId | undefined {
    const { oldest } = this.#all;
    return oldest === undefined ? undefined : this.#options.order.next(this.#lines, oldest).tenantId;
  }

  expire(): void {
    const { clock, waitMaxMs } = this.#options;
    const nowMs = clock.monotonicMs();
    for (let due = this.#all.oldest; due !== undefined && due.arrivedAtMs + waitMaxMs <= nowMs; due = this.#all.oldest) {
      this.withdraw(due);
      this.#tell(due, this.#refusals.waitedTooLong(waitMaxMs, undefined));
    }
  }

  nextDeadlineMs(): number | undefined {
    const { oldest } = this.#all;
    return oldest === undefined ? undefined : oldest.arrivedAtMs + this.#options.waitMaxMs;
  }

  withdraw(request: BaselineRequest): void {
    if (request.mode !== 'waiting') return;
    request.mode = 'ended';
    request.line.queued--;
    this.#queued--;
  }

  close(): void {
    for (let last = this.#all.oldest; last !== undefined; last = this.#all.oldest) {
      this.withdraw(last);
      this.#tell(last, this.#refusals.shuttingDown());
    }
  }

  /** `requests` counts starts; cost is in tokens of input. */
  charge(request: BaselineRequest, requests: number, cost: number): void {
    this.#options.order.charge(request.line, { requests, cost });
    this.#watcherOf(request)?.charged(unitsOf(cost, 1));
  }

  costOf(tokens: Pick<ActualTokens, 'inputTokens' | 'outputTokens'>): number {
    return tokens.inputTokens + this.#options.outputTokenCost * tokens.outputTokens;
  }

  returned(request: BaselineRequest): void {
    this.#running--;
    request.line.inFlight--;
    this.#dispatch();
  }

  snapshot(poolId: string): PoolSnapshot {
    const tenants = this.#lines.map(({ tenantId, queued, inFlight, weight }) => {
      return { tenantId, workClass: 'interactive' as const, queued, inFlight, weight, virtualTime: 0, lagCost: 0 };
    });
    return { poolId, capacity: this.#capacity, permits: this.#capacity, inFlight: this.#running, queued: this.#queued, tenants };
  }

  #dispatch(): void {
    if (this.#isDispatching) return;
    this.#isDispatching = true;
    try {
      this.expire();
      while (this.#running < this.#capacity && this.#grantNext()) {}
    } finally {
      this.#isDispatching = false;
    }
  }

  #grantNext(): boolean {
    const { oldest } = this.#all;
    if (oldest === undefined) return false;
    const request = this.#options.order.next(this.#lines, oldest).waiting.oldest;
    if (request === undefined) throw new Error('an order chose a line without requests');
    this.withdraw(request);
    this.#running++;
    request.line.inFlight++;
    request.start(this.#options.clock.monotonicMs());
    this.#watcherOf(request)?.started(request.ticket.weight, request.queueMs);
    request.waiter.granted(request);
    return true;
  }

  #watcherOf({ ticket }: BaselineRequest) {
    return this.#options.watcher?.tenant(ticket.poolId, ticket.tenantId);
  }

  #lineOf({ tenantId, weight }: Ticket): Line {
    const known = this.#byTenant.get(tenantId);
    const line = known ?? new Line(tenantId);
    line.weight = weight;
    if (known !== undefined) return known;
    this.#byTenant.set(tenantId, line);
    this.#lines.push(line);
    return line;
  }

  #isWithinRate({ acceptedAtMs }: Line): boolean {
    const { requestsPerMinute, clock } = this.#options;
    if (requestsPerMinute === undefined) return true;
    const nowMs = clock.monotonicMs();
    while (acceptedAtMs[0] !== undefined && nowMs - acceptedAtMs[0] > minuteMs) acceptedAtMs.shift();
    if (acceptedAtMs.length >= requestsPerMinute) return false;
    acceptedAtMs.push(nowMs);
    return true;
  }

  #refuseNew(request: BaselineRequest, error: Error): void {
    request.mode = 'ended';
    this.#tell(request, error);
  }

  #tell({ ticket, waiter }: BaselineRequest, error: Error): void {
    if (error instanceof QueueRefusal) this.#options.watcher?.shed(ticket, error.shedCause);
    waiter.refused(error);
  }
}

interface RequestParts {
  readonly owner: BaselineQueue;
  readonly ticket: Ticket;
  readonly line: Line;
  readonly waiter: Waiter;
  readonly arrivedAtMs: number;
}

export class BaselineRequest implements Permit {
  readonly #owner: BaselineQueue;
  readonly ticket: Ticket;
  readonly line: Line;
  readonly waiter: Waiter;
  readonly arrivedAtMs: number;
  mode: 'waiting' | 'running' | 'ended' = 'waiting';
  queueMs = 0;
  #charged = 0;

  constructor({ owner, ticket, line, waiter, arrivedAtMs }: RequestParts) {
    this.#owner = owner;
    this.ticket = ticket;
    this.line = line;
    this.waiter = waiter;
    this.arrivedAtMs = arrivedAtMs;
  }

  start(nowMs: number): void {
    this.mode = 'running';
    this.queueMs = nowMs - this.arrivedAtMs;
    this.#charge(1, this.ticket.inputTokens);
  }

  reportOutput(tokens: number): void {
    if (this.mode === 'running') this.#charge(0, this.#owner.costOf({ inputTokens: 0, outputTokens: tokens }));
  }

  finish(actual: ActualTokens): void {
    this.#end(this.#owner.costOf(actual));
  }

  cancel(): void {
    this.#end(0);
  }

  #end(cost: number): void {
    if (this.mode !== 'running') return;
    this.mode = 'ended';
    this.#charge(0, cost - this.#charged);
    this.#owner.returned(this);
  }

  #charge(requests: number, cost: number): void {
    this.#charged += cost;
    this.#owner.charge(this, requests, cost);
  }
}

const compactFrom = 1_024;

/** Requests in order of arrival; those that do not wait any more are passed over. */
class Fifo {
  #items: BaselineRequest[] = [];
  #head = 0;

  push(request: BaselineRequest): void {
    this.#items.push(request);
  }

  get oldest(): BaselineRequest | undefined {
    for (let first = this.#items[this.#head]; first !== undefined && first.mode !== 'waiting'; first = this.#items[this.#head])
      this.#head++;
    if (this.#head > compactFrom && 2 * this.#head > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return this.#items[this.#head];
  }
}

/** First come, first served. */
export class FirstCome implements Order {
  next(_lines: readonly Line[], oldest: BaselineRequest): Line {
    return oldest.line;
  }

  charge(): void {}
}

/**
 * Turns. By requests: weighted round robin, `quantum` x weight requests a turn (Katevenis et al., IEEE JSAC 1991). By cost: deficit round robin
 * (Shreedhar and Varghese, SIGCOMM'95) as the VTC artifact has it for output nobody knows in advance (`mdrr_fair`): input is taken from the balance at the
 * start, output as it streams, debts are allowed, and the quantum is a twentieth of the pool of tokens.
 */
export class Turns implements Order {
  readonly #counts: 'requests' | 'cost';
  readonly #quantum: number;
  #turn = 0;

  constructor(counts: 'requests' | 'cost', quantum: number) {
    this.#counts = counts;
    this.#quantum = quantum;
  }

  next(lines: readonly Line[]): Line {
    for (;;) {
      const line = lines[this.#turn % lines.length];
      if (line !== undefined && line.queued > 0 && line.balance > 0) return line;
      // An unused balance is not kept.
      if (line !== undefined && line.queued === 0) line.balance = Math.min(0, line.balance);
      this.#turn = (this.#turn + 1) % lines.length;
      const next = lines[this.#turn];
      if (next !== undefined && next.queued > 0) next.balance += this.#quantum * next.weight;
    }
  }

  charge(line: Line, amount: { readonly requests: number; readonly cost: number }): void {
    line.balance -= amount[this.#counts];
  }
}
