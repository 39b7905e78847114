import { assert } from '../primitives/assert.ts';
import type { Permit, Ticket } from './fair-queue.ts';
import type { Linked, SessionFlow } from './flow.ts';
import { type ActualTokens, saneTokens, saneWeight } from './service-cost.ts';

/** Told once, synchronously, how the waiting ended, unless the request was withdrawn. */
export interface Waiter {
  granted(permit: Permit): void;
  refused(error: Error): void;
}

/** The pool, as its requests see it. */
export interface RequestOwner {
  /** Cost expected of a request, in units at weight 1. */
  expectedUnits(ticket: Ticket): number;
  reportOutput(request: FairRequest): void;
  /** `actual` undefined: nothing was delivered. */
  end(request: FairRequest, actual: ActualTokens | undefined): void;
  withdraw(request: FairRequest): void;
}

export interface RequestPlace {
  readonly owner: RequestOwner;
  readonly session: SessionFlow<FairRequest>;
  readonly arrivedAtMs: number;
}

/** Output is charged when it passes a multiple of this many tokens: each charge moves a heap entry at each level. */
const reportedTokensStep = 32;

/** One request through the queue, and its permit afterwards: one object, because thousands of them wait. */
export class FairRequest implements Permit, Linked<FairRequest> {
  readonly ticket: Ticket;
  readonly owner: RequestOwner;
  /** The levels above are its `user`, that one's `tenant`, that one's `work`. */
  readonly session: SessionFlow<FairRequest>;
  mode: 'waiting' | 'running' | 'ended' = 'waiting';
  waiter: Waiter | undefined = undefined;
  before: FairRequest | undefined = undefined;
  behind: FairRequest | undefined = undefined;
  older: FairRequest | undefined = undefined;
  newer: FairRequest | undefined = undefined;
  outputTokens = 0;
  /** Tenths of a millisecond, whole: a number with a fraction takes 16 bytes more. */
  readonly #arrivedTenths: number;
  #waitedTenths = 0;
  /** What it has been charged for so far. */
  chargedCost = 0;

  constructor(ticket: Ticket, place: RequestPlace) {
    this.ticket = ticket;
    this.owner = place.owner;
    this.session = place.session;
    this.#arrivedTenths = Math.round(place.arrivedAtMs * 10);
  }

  get arrivedAtMs(): number {
    return this.#arrivedTenths / 10;
  }

  /** Not kept, because thousands wait. */
  get expectedUnits(): number {
    return this.owner.expectedUnits(this.ticket);
  }

  get weight(): number {
    return saneWeight(this.ticket.weight);
  }

  get queueMs(): number {
    assert(this.mode !== 'waiting', 'a waiting request does not know how long it will wait');
    return this.#waitedTenths / 10;
  }

  start(nowMs: number): void {
    assert(this.mode === 'waiting', 'a request starts once');
    this.#waitedTenths = Math.round(nowMs * 10) - this.#arrivedTenths;
    this.mode = 'running';
  }

  waitAgain(): void {
    assert(this.mode === 'running', 'what runs can wait again');
    this.mode = 'waiting';
    this.outputTokens = 0;
  }

  reportOutput(tokens: number): void {
    if (this.mode !== 'running') return;
    const steps = Math.floor(this.outputTokens / reportedTokensStep);
    this.outputTokens += saneTokens(tokens);
    if (Math.floor(this.outputTokens / reportedTokensStep) > steps) this.owner.reportOutput(this);
  }

  finish(actual: ActualTokens): void {
    this.#end(actual);
  }

  cancel(): void {
    this.#end(undefined);
  }

  #end(actual: ActualTokens | undefined): void {
    if (this.mode !== 'running') return;
    this.mode = 'ended';
    this.owner.end(this, actual);
  }
}
