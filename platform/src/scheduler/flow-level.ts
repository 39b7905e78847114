/**
 * One level of the fair queue: its flows, who of them waits, and the level's virtual time, which is the start tag of the latest dispatch
 * and never falls (SFQ, Goyal et al. 1997). Rules:
 *
 * - A flow that begins to wait is lifted to the level's time: a share not used is gone. Debt survives, the maximum never lowers.
 * - A refund takes nobody further below the level's time than twice what the refunded request had been charged.
 * - A flow with nothing waiting and nothing running is forgotten once the level's time has passed its own, because a new flow would start
 *   at the same place. Those still ahead owe; they are remembered, up to `debtorsMax`.
 * - A flow may wait ahead of its virtual time. That is a place in the order and no service: it ends with the dispatch.
 * - Flows may join in file: each behind what those that joined before it ask for. So all newcomers together have the share of one.
 */
import { FlowHeap, type HeapMember } from './flow-heap.ts';
import { FlowTable } from './flow-table.ts';

/** One member of a level: a tenant in a pool, a user in a tenant, a session of a user. Its virtual time is service received per weight, in whole units. */
export interface Flow<Key extends string = string> extends HeapMember {
  readonly key: Key;
  queued: number;
  inFlight: number;
  /** Units by which it waits ahead; taken off its virtual time for so long. Written by the level alone. */
  aheadUnits: number;
}

/** Beyond 2^53 whole units would not stay exact; the flow furthest ahead of the level has the rest for its debt. */
const virtualTimeMax = 2 ** 50;

export class FlowLevel<Member extends Flow<Key>, Key extends string = string> {
  readonly waiting = new FlowHeap<Member>();
  readonly #flows = new FlowTable<Key, Member>();
  /** Made when the first one owes: most levels are a user's and live for a request. */
  #debtors: Set<Member> | undefined;
  readonly #debtorsMax: number;
  readonly #open: (key: Key) => Member;
  #virtualTime = 0;
  /** Where the next that joins in file begins, unless the level's time has passed it. */
  #fileTime = 0;
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
      this.#debtors?.delete(known);
      return known;
    }
    const flow = this.#open(key);
    this.#flows.add(flow);
    return flow;
  }

  /** For a flow with nothing waiting, before a request of it waits or runs. */
  lift(flow: Member): void {
    if (flow.virtualTime < this.#virtualTime) flow.virtualTime = this.#virtualTime;
  }

  /** `again`: what it waits with was dispatched already and came back; then it keeps its tag and goes before its equals. */
  startWaiting(flow: Member, time: 'first' | 'again' = 'first', aheadUnits = 0): void {
    if (time === 'first') this.lift(flow);
    flow.aheadUnits = aheadUnits;
    flow.virtualTime -= aheadUnits;
    flow.turn = time === 'first' ? ++this.#turns : 0;
    this.waiting.push(flow);
  }

  /** A new flow begins behind those that joined before it; `units` is what its first request is expected to be charged. */
  joinFile(flow: Member, units: number): void {
    flow.virtualTime = Math.max(this.#virtualTime, this.#fileTime);
    this.#fileTime = flow.virtualTime + units;
  }

  /** A flow that joined with `units` leaves without having started: it owes nothing, and those that come after need not stand behind it. */
  leaveFile(flow: Member, units: number): void {
    flow.virtualTime = this.#virtualTime;
    this.#fileTime -= units;
  }

  /** Its last waiting request left without having started. */
  stopWaiting(flow: Member): void {
    this.waiting.remove(flow);
    this.#fallBack(flow);
  }

  /** A request of `flow` starts: the level's time follows, the flow is charged and goes behind its equals, or out when nothing of it waits. */
  dispatch(flow: Member, units: number): void {
    if (flow.virtualTime > this.#virtualTime) this.#virtualTime = flow.virtualTime;
    flow.turn = ++this.#turns;
    this.#fallBack(flow);
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
    const floor = Math.min(flow.virtualTime, this.#virtualTime - creditMax - flow.aheadUnits);
    flow.virtualTime = Math.max(charged, floor);
    if (flow.heapIndex >= 0) this.waiting.moved(flow);
  }

  /** Takes over what replicas have counted together. */
  adopt(flow: Member, virtualTime: number): void {
    if (flow.virtualTime === virtualTime) return;
    flow.virtualTime = virtualTime;
    if (flow.heapIndex >= 0) this.waiting.moved(flow);
  }

  adoptTime(virtualTime: number): void {
    this.#virtualTime = Math.max(this.#virtualTime, virtualTime);
  }

  /** All flows start equal at this time. */
  startEqual(virtualTime: number): void {
    this.#virtualTime = virtualTime;
    for (const flow of this.#flows.values()) this.adopt(flow, virtualTime);
  }

  /** To be called when a request of the flow has left, in whatever way. */
  forgetIfIdle(flow: Member): void {
    if (flow.queued > 0 || flow.inFlight > 0) return;
    if (flow.virtualTime <= this.#virtualTime) this.#flows.delete(flow.key);
    else this.#owe(flow);
    if (this.#debtors !== undefined) this.#sweepDebtors(this.#debtors);
  }

  /** What an idle flow owes halves in each `halfLifeMs`. */
  decay(flow: Member, idleMs: number, halfLifeMs: number): void {
    const owedUnits = flow.virtualTime - this.#virtualTime;
    if (owedUnits > 0) flow.virtualTime = this.#virtualTime + Math.floor(owedUnits * 2 ** (-idleMs / halfLifeMs));
  }

  /** The end of a busy period: with nobody left to be compared with, all start equal again. */
  reset(): void {
    this.#flows.clear();
    this.#debtors = undefined;
    this.#virtualTime = 0;
    this.#fileTime = 0;
  }

  #fallBack(flow: Member): void {
    flow.virtualTime += flow.aheadUnits;
    flow.aheadUnits = 0;
  }

  #owe(flow: Member): void {
    this.#debtors ??= new Set();
    this.#debtors.add(flow);
  }

  /** Looks at the two that have owed longest. Two for each that comes, so what the level has passed is dropped faster than it can pile up. */
  #sweepDebtors(debtors: Set<Member>): void {
    let looked = 0;
    for (const debtor of debtors) {
      if (looked++ === 2) return;
      const isDropped = debtor.virtualTime <= this.#virtualTime || debtors.size > this.#debtorsMax;
      debtors.delete(debtor);
      if (isDropped) this.#flows.delete(debtor.key);
      else debtors.add(debtor);
    }
  }

  #rebase(): void {
    const base = this.#virtualTime;
    for (const flow of this.#flows.values()) flow.virtualTime -= base;
    this.#fileTime -= base;
    this.#virtualTime = 0;
  }
}
