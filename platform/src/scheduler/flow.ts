/**
 * Who waits: tenants, and inside a tenant its users. Virtual time is `origin + work / weight`, with work a whole number, so a charge that is
 * undone restores it exactly.
 */
import type { TenantId } from '../primitives/ids.ts';
import type { Ticket } from './fair-queue.ts';
import { FlowHeap, type HeapItem } from './flow-heap.ts';

let created = 0;

abstract class Flow implements HeapItem {
  heapIndex = -1;
  readonly order = created++;
  queued = 0;
  inFlight = 0;
  #origin = 0;
  #work = 0;

  protected abstract get weightNow(): number;

  virtualTime(): number {
    return this.#origin + this.#work / this.weightNow;
  }

  charge(work: number): void {
    this.#work += work;
  }

  /** Becoming active: whatever share was not used is gone, whatever was overdrawn is still owed. */
  liftTo(virtualTime: number): void {
    const behind = virtualTime - this.virtualTime();
    if (behind > 0) this.#origin += behind;
  }

  /** Keeps the virtual time where it is while the weight changes. */
  protected reweigh(change: () => void): void {
    const before = this.virtualTime();
    change();
    this.#origin += before - this.virtualTime();
  }

  get isIdle(): boolean {
    return this.queued === 0 && this.inFlight === 0;
  }
}

export class TenantFlow extends Flow {
  readonly tenantId: TenantId;
  readonly users = new Map<string, UserFlow>();
  readonly waitingUsers = new FlowHeap<UserFlow>();
  /** Virtual time of the users' level. */
  userClock = 0;
  /** Work that waits, in charge units. */
  backlog = 0;
  #weight: number;

  constructor(tenantId: TenantId, weight: number) {
    super();
    this.tenantId = tenantId;
    this.#weight = weight;
  }

  get weight(): number {
    return this.#weight;
  }

  set weight(weight: number) {
    if (weight === this.#weight) return;
    this.reweigh(() => {
      this.#weight = weight;
    });
  }

  protected get weightNow(): number {
    return this.#weight;
  }
}

export class UserFlow extends Flow {
  readonly name: string;
  readonly waiting: Waiter[] = [];
  #head = 0;

  constructor(name: string) {
    super();
    this.name = name;
  }

  protected get weightNow(): number {
    return 1;
  }

  push(waiter: Waiter): void {
    this.waiting.push(waiter);
  }

  /** The oldest that still waits. Amortised O(1): what left early is skipped here. */
  shift(): Waiter | undefined {
    while (this.#head < this.waiting.length) {
      const waiter = this.waiting[this.#head++];
      this.#compact();
      if (waiter?.mode === 'waiting') return waiter;
    }
    return undefined;
  }

  /** The newest that still waits. */
  newest(): Waiter | undefined {
    for (let index = this.waiting.length - 1; index >= this.#head; index--) {
      const waiter = this.waiting[index];
      if (waiter?.mode === 'waiting') return waiter;
    }
    return undefined;
  }

  #compact(): void {
    if (this.#head < 64 || this.#head * 2 < this.waiting.length) return;
    this.waiting.splice(0, this.#head);
    this.#head = 0;
  }
}

export interface Waiter {
  mode: 'waiting' | 'granted' | 'gone';
  readonly ticket: Ticket;
  readonly tenant: TenantFlow;
  readonly user: UserFlow;
  readonly dispatchWork: number;
  readonly enqueuedAtMs: number;
  readonly deadlineMs: number;
  grant(): void;
  refuse(error: unknown): void;
}
