/**
 * A saturated pool in a closed loop: every user of every tenant has a session with requests waiting; one cycle ends a running request, which picks, charges and
 * starts the next, and queues another one in its place.
 */
import { systemClock } from '../../src/primitives/clock.ts';
import { parseTenantId, type TenantId } from '../../src/primitives/ids.ts';
import type { Permit, Ticket } from '../../src/scheduler/fair-queue.ts';
import type { Waiter } from '../../src/scheduler/fair-request.ts';
import { FairnessRecord } from '../../src/scheduler/fairness-record.ts';
import { MemoryFairQueue } from '../../src/scheduler/memory-fair-queue.ts';
import { WeightedFairQueue } from '../../src/scheduler/weighted-fair-queue.ts';
import { liveHeapBytes, type Pace, paceOf, summary } from './stopwatch.ts';

const permits = 64;
const usersPerTenant = 4;
const bounds = { clock: systemClock, requestsPerTenantMax: 1_000_000, bytesMax: Number.MAX_SAFE_INTEGER, waitMaxMs: 2 ** 31 };
const actual = { inputTokens: 130, outputTokens: 180 };

function ticketsOf(tenants: number): readonly Ticket[] {
  return Array.from({ length: tenants * usersPerTenant }, (_, index) => ({
    poolId: 'pool',
    tenantId: tenantNamed(`tenant-${index % tenants}`),
    user: `user-${Math.floor(index / tenants)}`,
    session: `session-${Math.floor(index / tenants)}`,
    weight: [1, 4, 8][index % 3] ?? 1,
    inputTokens: 100 + (index % 50),
    workClass: 'interactive',
    predictedOutputTokens: 200,
    bytes: 500,
  }));
}

function tenantNamed(name: string): TenantId {
  const id = parseTenantId(name);
  if (id === undefined) throw new Error(`${name} is no tenant id`);
  return id;
}

/** Cycles between two samples of the record; more than four a second. */
const sampleCycles = 50_000;

/** The algorithm alone, with its record: no promises, no abort signals. */
export function measureAlgorithm(tenants: number, durationMs: number): Pace {
  using record: FairnessRecord = new FairnessRecord(systemClock, () => queue.snapshot());
  const queue: WeightedFairQueue = new WeightedFairQueue({ ...bounds, watcher: record });
  queue.setCapacity('pool', permits);
  const running: Permit[] = [];
  let next = 0;
  const waiter: Waiter = {
    granted: (permit) => {
      running[next] = permit;
    },
    refused: (error) => {
      throw error;
    },
  };
  const tickets = ticketsOf(tenants);
  const submit = (ticket: Ticket) => {
    const request = queue.submit(ticket);
    if (request.mode === 'running') running.push(request);
    else request.waiter = waiter;
  };
  for (let count = 0; count < permits; count++) submit(at(tickets, count % tickets.length));
  for (const ticket of tickets) submit(ticket);
  let arrived = 0;
  return paceOf(() => {
    next = (next + 1) % permits;
    submit(at(tickets, arrived++ % tickets.length));
    if (arrived % sampleCycles === 0) record.sample();
    at(running, next).finish(actual);
  }, durationMs);
}

/** Through the port, as it is wired in a server: a promise, an abort signal and the deadline timer for each request that waits, and the record. */
export async function measureDoor(tenants: number, durationMs: number): Promise<Pace> {
  using record: FairnessRecord = new FairnessRecord(systemClock, () => queue.snapshot());
  const queue: MemoryFairQueue = new MemoryFairQueue({ ...bounds, watcher: record });
  queue.setCapacity('pool', permits);
  const tickets = ticketsOf(tenants);
  const untilMs = performance.now() + durationMs;
  let cycles = 0;
  const caller = async (ticket: Ticket) => {
    const { signal } = new AbortController();
    while (performance.now() < untilMs) {
      const permit = await queue.acquire(ticket, signal);
      cycles++;
      permit.finish(actual);
    }
  };
  const startMs = performance.now();
  const callers = Array.from({ length: Math.max(tickets.length, 4 * permits) }, (_, index) => at(tickets, index % tickets.length));
  await Promise.all(callers.map(caller));
  const perSecond = (cycles / (performance.now() - startMs)) * 1_000;
  return summary(new Float64Array(0), perSecond);
}

/** One caller, permits free: what the queue costs while it is not needed. */
export async function measureFreePermit(durationMs: number): Promise<Pace> {
  const queue = new MemoryFairQueue(bounds);
  queue.setCapacity('pool', permits);
  const ticket = at(ticketsOf(1), 0);
  const { signal } = new AbortController();
  const untilMs = performance.now() + durationMs;
  const startMs = performance.now();
  let cycles = 0;
  while (performance.now() < untilMs) {
    const permit = await queue.acquire(ticket, signal);
    permit.finish(actual);
    cycles++;
  }
  return summary(new Float64Array(0), (cycles / (performance.now() - startMs)) * 1_000);
}

/** Heap per waiting request: ticket, links, its share of the flows; at the door also promise and listener. */
export async function measureBytesPerRequest(requests: number, isDoor: boolean): Promise<number> {
  const rounds = 25;
  const freshTickets = () => ticketsOf(requests / usersPerTenant / rounds);
  if (!isDoor) {
    const idle: Waiter = { granted: () => {}, refused: () => {} };
    const queue = new WeightedFairQueue(bounds);
    queue.setCapacity('pool', 0);
    const beforeBytes = liveHeapBytes();
    for (let round = 0; round < rounds; round++) for (const ticket of freshTickets()) queue.submit(ticket).waiter = idle;
    const bytes = liveHeapBytes() - beforeBytes;
    queue.close();
    return bytes / requests;
  }
  const door = new MemoryFairQueue(bounds);
  door.setCapacity('pool', 0);
  // Every request has a signal, whether it waits or not: not counted.
  const signals = Array.from({ length: requests }, () => new AbortController().signal);
  const waiting: Promise<unknown>[] = [];
  const beforeBytes = liveHeapBytes();
  for (let round = 0; round < rounds; round++) {
    for (const ticket of freshTickets()) waiting.push(door.acquire(ticket, at(signals, waiting.length)));
  }
  const bytes = liveHeapBytes() - beforeBytes;
  door.close();
  await Promise.allSettled(waiting);
  return bytes / requests;
}

function at<Item>(items: readonly Item[], index: number): Item {
  const item = items[index];
  if (item === undefined) throw new Error('out of range');
  return item;
}
