/**
 * What the queue has done in the last minute, tenant by tenant: the share each was entitled to and the one it received, how long its requests waited and for
 * whose, and what it was refused. The queue tells of each charge, start and refusal as it happens; who waits for whom is sampled.
 */
import type { Clock } from '../primitives/clock.ts';
import type { TenantId } from '../primitives/ids.ts';
import type { PoolSnapshot, Ticket } from './fair-queue.ts';
import { unitsPerCost } from './service-cost.ts';

export type ShedCause =
  | 'tenant_queue_full'
  | 'memory_full'
  | 'would_wait_too_long'
  | 'waited_too_long'
  | 'pool_unavailable'
  | 'shutting_down';

/** Told by the queue. Nothing here may be slow or throw. */
export interface QueueWatcher {
  /** Asked once for each flow, which keeps what it gets: telling of a charge costs no look-up. */
  tenant(poolId: string, tenantId: TenantId): TenantWatcher;
  shed(ticket: Ticket, cause: ShedCause): void;
}

export interface TenantWatcher {
  /** Units of cost at weight 1; negative for what is given back. */
  charged(units: number): void;
  started(weight: number, queueMs: number): void;
}

export interface TenantFairness {
  readonly tenantId: TenantId;
  readonly weight: number;
  readonly queued: number;
  readonly inFlight: number;
  /** Of the pool, while it was saturated: weights over those who wanted something then. 0 to 1; undefined when the pool was never saturated. */
  readonly entitledShare: number | undefined;
  /** Of all service in the window. */
  readonly receivedShare: number;
  /** Cost it has received. */
  readonly servedCost: number;
  /** Cost that it may receive before others come first (negative: it is ahead). Only while it waits. */
  readonly lagCost: number;
  readonly startedRequests: number;
  readonly waitP50Ms: number;
  readonly waitP99Ms: number;
  readonly shed: Readonly<Partial<Record<ShedCause, number>>>;
  /** Milliseconds its requests waited while requests of these held the permits, most first. */
  readonly waitedFor: readonly { readonly tenantId: TenantId; readonly ms: number }[];
}

export interface PoolFairness {
  readonly poolId: string;
  readonly capacity: number;
  readonly permits: number;
  readonly elsewhere: PoolSnapshot['elsewhere'];
  readonly inFlight: number;
  readonly queued: number;
  /** Part of this process's permits that was in use while requests waited here; undefined when none did. */
  readonly utilisation: number | undefined;
  /** Of shares received per share entitled, over tenants that waited (Jain, Chiu and Hawe 1984); 1 is even. */
  readonly evenness: number | undefined;
  readonly tenants: readonly TenantFairness[];
}

const windowMs = 60_000;
const sampleMs = 250;
/** Steps of the window. */
const slots = 60;
/** Starts of a tenant that are remembered for the percentiles. */
const waitsMax = 256;
/** Tenants whose waiting is attributed, and to whom, in one sample: the largest of each. */
const comparedMax = 16;
const tenantsPerPoolMax = 10_000;

export class FairnessRecord implements QueueWatcher, Disposable {
  readonly #clock: Clock;
  readonly #snapshot: () => readonly PoolSnapshot[];
  /** Never more than the queue has pools. */
  readonly #pools = new Map<string, PoolRecord>();
  readonly #now: RecordTime = { slot: 0 };
  readonly #timer: NodeJS.Timeout;

  constructor(clock: Clock, snapshot: () => readonly PoolSnapshot[]) {
    this.#clock = clock;
    this.#snapshot = snapshot;
    this.#timer = setInterval(() => this.sample(), sampleMs);
    this.#timer.unref();
  }

  tenant(poolId: string, tenantId: TenantId): TenantWatcher {
    return this.#pool(poolId).tenant(tenantId);
  }

  shed({ poolId, tenantId }: Ticket, cause: ShedCause): void {
    const { shed } = this.#pool(poolId).tenant(tenantId);
    const counted = shed.get(cause) ?? new Window();
    shed.set(cause, counted);
    counted.add(this.#now.slot, 1);
  }

  /** Looks who waits and who holds the permits. The timer does it; public for clocks that are moved by hand. */
  sample(): void {
    const slot = this.#readClock();
    for (const pool of this.#snapshot()) this.#pool(pool.poolId).sample(pool, slot);
  }

  report(): readonly PoolFairness[] {
    const slot = this.#readClock();
    return this.#snapshot().map((pool) => this.#pool(pool.poolId).report(pool, slot));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #readClock(): number {
    this.#now.slot = Math.floor(this.#clock.monotonicMs() / (windowMs / slots));
    return this.#now.slot;
  }

  #pool(poolId: string): PoolRecord {
    const known = this.#pools.get(poolId);
    if (known !== undefined) return known;
    const pool = new PoolRecord(this.#now);
    this.#pools.set(poolId, pool);
    return pool;
  }
}

/** The step of the window that is now. Read off the clock with every sample, so what happens in between reads no clock. */
interface RecordTime {
  slot: number;
}

/** A sum over the last minute, in steps of a second. */
class Window {
  readonly #sums = new Float64Array(slots);
  #latest = Number.NEGATIVE_INFINITY;

  add(slot: number, amount: number): void {
    if (slot !== this.#latest) this.#advance(slot);
    const at = slot % slots;
    this.#sums[at] = (this.#sums[at] as number) + amount;
  }

  sum(slot: number): number {
    this.#advance(slot);
    return this.#sums.reduce((sum, each) => sum + each, 0);
  }

  isOver(slot: number): boolean {
    return slot - this.#latest >= slots;
  }

  #advance(slot: number): void {
    if (slot - this.#latest >= slots) this.#sums.fill(0);
    else for (let next = this.#latest + 1; next <= slot; next++) this.#sums[next % slots] = 0;
    this.#latest = Math.max(this.#latest, slot);
  }
}

class TenantRecord implements TenantWatcher {
  readonly tenantId: TenantId;
  /** In units. */
  readonly served = new Window();
  readonly starts = new Window();
  readonly entitled = new Window();
  readonly shed = new Map<ShedCause, Window>();
  readonly waitedFor = new Map<TenantId, Window>();
  /** Of its latest request. */
  weight = 1;
  /** Written by its pool alone. A flow that runs for long may speak again after its record was forgotten. */
  isKept = false;
  readonly #pool: PoolRecord;
  readonly #now: RecordTime;
  /** Rings: of each of the latest starts how long it waited, and in which step it was. */
  readonly #waitsMs: number[] = [];
  readonly #waitSlots: number[] = [];
  #waitsCount = 0;

  constructor(tenantId: TenantId, pool: PoolRecord, now: RecordTime) {
    this.tenantId = tenantId;
    this.#pool = pool;
    this.#now = now;
  }

  charged(units: number): void {
    const record = this.isKept ? this : this.#pool.keptFor(this);
    record.served.add(this.#now.slot, units);
  }

  started(weight: number, queueMs: number): void {
    if (this.isKept) this.#start(weight, queueMs);
    else this.#pool.keptFor(this).#start(weight, queueMs);
  }

  #start(weight: number, queueMs: number): void {
    const { slot } = this.#now;
    this.weight = weight;
    this.starts.add(slot, 1);
    const at = this.#waitsCount++ % waitsMax;
    this.#waitsMs[at] = queueMs;
    this.#waitSlots[at] = slot;
  }

  /** Of the starts of the last minute, shortest first. */
  waitsMs(slot: number): readonly number[] {
    return this.#waitsMs.filter((_, at) => slot - (this.#waitSlots[at] ?? 0) < slots).toSorted((left, right) => left - right);
  }

  isForgotten(slot: number): boolean {
    if (!this.served.isOver(slot) || !this.starts.isOver(slot) || !this.entitled.isOver(slot)) return false;
    return [...this.shed.values(), ...this.waitedFor.values()].every((window) => window.isOver(slot));
  }
}

type PoolTenant = PoolSnapshot['tenants'][number];

class PoolRecord {
  readonly #now: RecordTime;
  readonly #tenants = new Map<TenantId, TenantRecord>();
  /** Samples in which somebody waited, and the part of the permits in use in them. */
  readonly #saturated = new Window();
  readonly #busy = new Window();

  constructor(now: RecordTime) {
    this.#now = now;
  }

  tenant(tenantId: TenantId): TenantRecord {
    const known = this.#tenants.get(tenantId);
    if (known !== undefined) return known;
    const tenant = new TenantRecord(tenantId, this, this.#now);
    this.#keep(tenant);
    return tenant;
  }

  /** The record to write to in the place of one that was forgotten: another of its tenant, or itself again. */
  keptFor(tenant: TenantRecord): TenantRecord {
    const other = this.#tenants.get(tenant.tenantId);
    if (other === undefined) this.#keep(tenant);
    return other ?? tenant;
  }

  sample(pool: PoolSnapshot, slot: number): void {
    for (const tenant of this.#tenants.values()) if (tenant.isForgotten(slot)) this.#forget(tenant);
    if (pool.queued === 0 || pool.capacity === 0) return;
    this.#saturated.add(slot, 1);
    this.#busy.add(slot, pool.permits === 0 ? 1 : Math.min(1, pool.inFlight / pool.permits));
    const wanting = pool.tenants.filter(({ queued, inFlight }) => queued > 0 || inFlight > 0);
    const weights = wanting.reduce((sum, { weight }) => sum + weight, 0);
    for (const { tenantId, weight } of wanting) this.tenant(tenantId).entitled.add(slot, weight / weights);
    const waiting = largest(pool.tenants, ({ queued }) => queued);
    const running = largest(pool.tenants, ({ inFlight }) => inFlight);
    for (const { tenantId, queued } of waiting) {
      const { waitedFor } = this.tenant(tenantId);
      for (const other of running) {
        const window = waitedFor.get(other.tenantId) ?? new Window();
        waitedFor.set(other.tenantId, window);
        window.add(slot, (queued * sampleMs * other.inFlight) / pool.inFlight);
      }
      for (const [other, window] of waitedFor) if (window.isOver(slot)) waitedFor.delete(other);
    }
  }

  report(pool: PoolSnapshot, slot: number): PoolFairness {
    const samples = this.#saturated.sum(slot);
    const served = new Map([...this.#tenants].map(([tenantId, tenant]) => [tenantId, tenant.served.sum(slot) / unitsPerCost]));
    const total = served.values().reduce((sum, each) => sum + Math.max(0, each), 0);
    const now = Map.groupBy(pool.tenants, ({ tenantId }) => tenantId);
    const ids = new Set([...this.#tenants.keys(), ...now.keys()]);
    const tenants = [...ids].map((tenantId): TenantFairness => {
      const record = this.tenant(tenantId);
      const flows = now.get(tenantId) ?? [];
      const waitsMs = record.waitsMs(slot);
      return {
        tenantId,
        weight: flows[0]?.weight ?? record.weight,
        queued: sumOf(flows, ({ queued }) => queued),
        inFlight: sumOf(flows, ({ inFlight }) => inFlight),
        entitledShare: samples === 0 ? undefined : record.entitled.sum(slot) / samples,
        receivedShare: total === 0 ? 0 : Math.max(0, served.get(tenantId) ?? 0) / total,
        servedCost: Math.max(0, served.get(tenantId) ?? 0),
        lagCost: sumOf(flows, ({ lagCost }) => lagCost),
        startedRequests: record.starts.sum(slot),
        waitP50Ms: waitsMs[Math.floor(waitsMs.length * 0.5)] ?? 0,
        waitP99Ms: waitsMs[Math.floor(waitsMs.length * 0.99)] ?? 0,
        shed: Object.fromEntries([...record.shed].map(([cause, window]) => [cause, window.sum(slot)]).filter(([, count]) => count !== 0)),
        waitedFor: [...record.waitedFor]
          .map(([other, window]) => ({ tenantId: other, ms: Math.round(window.sum(slot)) }))
          .filter(({ ms }) => ms > 0)
          .toSorted((left, right) => right.ms - left.ms),
      };
    });
    return {
      poolId: pool.poolId,
      capacity: pool.capacity,
      permits: pool.permits,
      elsewhere: pool.elsewhere,
      inFlight: pool.inFlight,
      queued: pool.queued,
      utilisation: samples === 0 ? undefined : this.#busy.sum(slot) / samples,
      evenness: evennessOf(tenants),
      tenants: tenants.toSorted((left, right) => right.servedCost - left.servedCost || (left.tenantId < right.tenantId ? -1 : 1)),
    };
  }

  #keep(tenant: TenantRecord): void {
    if (this.#tenants.size >= tenantsPerPoolMax) this.#forgetOldest();
    this.#tenants.set(tenant.tenantId, tenant);
    tenant.isKept = true;
  }

  #forgetOldest(): void {
    const [oldest] = this.#tenants.values();
    if (oldest !== undefined) this.#forget(oldest);
  }

  #forget(tenant: TenantRecord): void {
    this.#tenants.delete(tenant.tenantId);
    tenant.isKept = false;
  }
}

/** Over those that were entitled to something while others waited and could not have got more than they asked for: those that wait now. */
function evennessOf(tenants: readonly TenantFairness[]): number | undefined {
  const ratios = tenants
    .filter(({ queued, entitledShare }) => queued > 0 && entitledShare !== undefined && entitledShare > 0)
    .map(({ receivedShare, entitledShare }) => receivedShare / (entitledShare ?? 1));
  if (ratios.length < 2) return undefined;
  const sum = ratios.reduce((total, each) => total + each, 0);
  const squares = ratios.reduce((total, each) => total + each * each, 0);
  return squares === 0 ? undefined : (sum * sum) / (ratios.length * squares);
}

function largest(tenants: readonly PoolTenant[], sizeOf: (tenant: PoolTenant) => number): readonly PoolTenant[] {
  const some = tenants.filter((tenant) => sizeOf(tenant) > 0);
  return some.length <= comparedMax ? some : some.toSorted((left, right) => sizeOf(right) - sizeOf(left)).slice(0, comparedMax);
}

function sumOf<Item>(items: readonly Item[], amountOf: (item: Item) => number): number {
  return items.reduce((sum, item) => sum + amountOf(item), 0);
}
