import { assert } from '../primitives/assert.ts';
import type { Permit, Ticket } from './fair-queue.ts';
import type { ClassFlow, Linked, TenantFlow, UserFlow } from './flow.ts';
import { type ActualTokens, saneTokens, saneWeight } from './service-cost.ts';

/** Told once, synchronously, how the waiting ended, unless the request was withdrawn. */
export interface Waiter {
  granted(permit: Permit): void;
  refused(error: Error): void;
}

/** The pool, as its requests see it. */
export interface RequestOwner {
  reportOutput(request: FairRequest): void;
  /** `actual` undefined: nothing was delivered. */
  end(request: FairRequest, actual: ActualTokens | undefined): void;
  withdraw(request: FairRequest): void;
}

export interface RequestPlace {
  readonly owner: RequestOwner;
  readonly work: ClassFlow<FairRequest>;
  readonly tenant: TenantFlow<FairRequest>;
  readonly user: UserFlow<FairRequest>;
  readonly arrivedAtMs: number;
  readonly expectedUnits: number;
}

/** Output is charged in steps of this many tokens: each charge moves two heap entries. */
const reportedTokensStep = 32;

/** One request through the queue, and its permit afterwards: one object, because thousands of them wait. */
export class FairRequest implements Permit, Linked<FairRequest> {
  readonly ticket: Ticket;
  readonly owner: RequestOwner;
  readonly work: ClassFlow<FairRequest>;
  readonly tenant: TenantFlow<FairRequest>;
  readonly user: UserFlow<FairRequest>;
  readonly weight: number;
  readonly expectedUnits: number;
  readonly arrivedAtMs: number;
  mode: 'waiting' | 'running' | 'ended' = 'waiting';
  waiter: Waiter | undefined = undefined;
  before: FairRequest | undefined = undefined;
  behind: FairRequest | undefined = undefined;
  older: FairRequest | undefined = undefined;
  newer: FairRequest | undefined = undefined;
  queueMs = 0;
  outputTokens = 0;
  #uncharged = 0;
  /** What each level has been charged for this request so far. */
  workUnits = 0;
  tenantUnits = 0;
  userUnits = 0;

  constructor(ticket: Ticket, place: RequestPlace) {
    this.ticket = ticket;
    this.owner = place.owner;
    this.work = place.work;
    this.tenant = place.tenant;
    this.user = place.user;
    this.arrivedAtMs = place.arrivedAtMs;
    this.expectedUnits = place.expectedUnits;
    this.weight = saneWeight(ticket.weight);
  }

  start(nowMs: number): void {
    assert(this.mode === 'waiting', 'a request starts once');
    this.mode = 'running';
    this.queueMs = nowMs - this.arrivedAtMs;
  }

  waitAgain(): void {
    assert(this.mode === 'running', 'what runs can wait again');
    this.mode = 'waiting';
    this.outputTokens = 0;
    this.#uncharged = 0;
  }

  reportOutput(tokens: number): void {
    if (this.mode !== 'running') return;
    this.#uncharged += saneTokens(tokens);
    if (this.#uncharged < reportedTokensStep) return;
    this.outputTokens += this.#uncharged;
    this.#uncharged = 0;
    this.owner.reportOutput(this);
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
