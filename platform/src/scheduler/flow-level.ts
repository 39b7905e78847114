/**
 * One level of the fair queue: its flows, who of them waits, and the level's virtual time, which is the start tag of the latest dispatch
 * and never falls (SFQ, Goyal et al. 1997). Rules:
 *
 * - A flow that begins to wait is lifted to the level's time: a share not used is gone. Debt survives, the maximum never lowers.
 * - A refund takes nobody further below the level's time than twice what the refunded request had been charged.
 * - A flow with nothing waiting and nothing running is forgotten once the level's time has passed its own, because a new flow would start
 *   at the same place. Those still ahead owe; they are remembered, up to `debtorsMax`.
 */
import { FlowHeap, type HeapMember } from './flow-heap.ts';

/** One member of a level: a tenant in a pool, or a user in a tenant. Its virtual time is service received per weight, in whole units. */
export interface Flow<Key extends string = string> extends HeapMember {
  readonly key: Key;
  queued: number;
  inFlight: number;
}

/** Beyond 2^53 whole units would not stay exact; the flow furthest ahead of the level has the rest for its debt. */
const virtualTimeMax = 2 ** 50;

export class FlowLevel<Member extends Flow<Key>, Key extends string = string> {
  readonly waiting = new FlowHeap<Member>();
  readonly #flows = new Map<Key, Member>();
  readonly #debtors = new Set<Member>();
  readonly #debtorsMax: number;
  readonly #open: (key: Key) => Member;
  #virtualTime = 0;
  #turns = 0;

  constructor(open: (key: Key) => Member, debtorsMax: number) {
    this.#open = open;
    this.#debtorsMax = debtorsMax;
  }

  get virtualTime(): number {
    return this.#virtualTime;
  }

  /** Every flow remembered: waiting, running or in debt. */
  flows(): Iterable<Member> {
    return this.#flows.values();
  }

  get flowCount(): number {
    return this.#flows.size;
  }

  find(key: Key): Member | undefined {
    return this.#flows.get(key);
  }

  obtain(key: Key): Member {
    const known = this.#flows.get(key);
    if (known !== undefined) {
      this.#debtors.delete(known);
      return known;
    }
    const flow = this.#open(key);
    this.#flows.set(key, flow);
    return flow;
  }

  /** For a flow with nothing waiting, before a request of it waits or runs. */
  lift(flow: Member): void {
    if (flow.virtualTime < this.#virtualTime) flow.virtualTime = this.#virtualTime;
  }

  /** `again`: what it waits with was dispatched already and came back; then it keeps its tag and goes before its equals. */
  startWaiting(flow: Member, time: 'first' | 'again' = 'first'): void {
    if (time === 'first') this.lift(flow);
    flow.turn = time === 'first' ? ++this.#turns : 0;
    this.waiting.push(flow);
  }

  /** A request of `flow` starts: the level's time follows, the flow is charged and goes behind its equals, or out when nothing of it waits. */
  dispatch(flow: Member, units: number): void {
    if (flow.virtualTime > this.#virtualTime) this.#virtualTime = flow.virtualTime;
    flow.turn = ++this.#turns;
    flow.virtualTime += units;
    if (flow.heapIndex >= 0) {
      if (flow.queued > 0) this.waiting.moved(flow);
      else this.waiting.remove(flow);
    }
    if (this.#virtualTime > virtualTimeMax) this.#rebase();
  }

  /** `units` may be negative; then `creditMax` bounds how far below the level's time the refund can lead. */
  charge(flow: Member, units: number, creditMax: number): void {
    if (units === 0) return;
    const charged = flow.virtualTime + units;
    const floor = Math.min(flow.virtualTime, this.#virtualTime - creditMax);
    flow.virtualTime = Math.max(charged, floor);
    if (flow.heapIndex >= 0) this.waiting.moved(flow);
  }

  /** To be called when a request of the flow has left, in whatever way. */
  forgetIfIdle(flow: Member): void {
    if (flow.queued > 0 || flow.inFlight > 0) return;
    if (flow.virtualTime <= this.#virtualTime) this.#flows.delete(flow.key);
    else this.#debtors.add(flow);
    this.#sweepDebtors();
  }

  /** The end of a busy period: with nobody left to be compared with, all start equal again. */
  reset(): void {
    this.#flows.clear();
    this.#debtors.clear();
    this.#virtualTime = 0;
  }

  /** Looks at the two that have owed longest. Two for each that comes, so what the level has passed is dropped faster than it can pile up. */
  #sweepDebtors(): void {
    let looked = 0;
    for (const debtor of this.#debtors) {
      if (looked++ === 2) return;
      const isDropped = debtor.virtualTime <= this.#virtualTime || this.#debtors.size > this.#debtorsMax;
      this.#debtors.delete(debtor);
      if (isDropped) this.#flows.delete(debtor.key);
      else this.#debtors.add(debtor);
    }
  }

  #rebase(): void {
    const base = this.#virtualTime;
    for (const flow of this.#flows.values()) flow.virtualTime -= base;
    this.#virtualTime = 0;
  }
}
