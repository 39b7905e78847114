/**
 * Work behind the requests lets them go first. The embedded engine runs one transaction at a time, first come first served, so a search of several statements
 * would wait for an ingestion's transaction before each; a server runs them side by side, on the same processors and disks. Background transactions
 * therefore come one after the other, wait until no request is about, and never wait for longer than a bound, so that they go on however busy requests are.
 *
 * One search at a time beside a tenant that ingests at full speed, embedded, p50 / p99 in ms: first come first served 35 / 82, with turns 5 / 40, alone 4 / 20
 * (docs/rfd/0016-requests-before-ingestion.md).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Clock, systemClock } from '../../primitives/clock.ts';

/** A request's next statement follows its last one within this time. */
const lingerMs = 3;
const pollMs = 1;

export interface TurnsParts {
  readonly waitMaxMs: number;
  readonly clock?: Pick<Clock, 'monotonicMs'>;
  readonly wait?: (ms: number) => Promise<unknown>;
}

export class TransactionTurns {
  #interactive = 0;
  #background = 0;
  #lastInteractiveAtMs = Number.NEGATIVE_INFINITY;
  readonly #waitMaxMs: number;
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #wait: (ms: number) => Promise<unknown>;

  constructor({ waitMaxMs, clock = systemClock, wait = sleep }: TurnsParts) {
    this.#waitMaxMs = waitMaxMs;
    this.#clock = clock;
    this.#wait = wait;
  }

  /** Requests never wait here. */
  async interactive<T>(work: () => Promise<T>): Promise<T> {
    this.#interactive++;
    try {
      return await work();
    } finally {
      this.#interactive--;
      this.#lastInteractiveAtMs = this.#clock.monotonicMs();
    }
  }

  /** Waits until no request is about and no other background work runs, at most `waitMaxMs`. */
  async background<T>(work: () => Promise<T>): Promise<T> {
    const untilMs = this.#clock.monotonicMs() + this.#waitMaxMs;
    while (!this.#isFree() && this.#clock.monotonicMs() < untilMs) await this.#wait(pollMs);
    this.#background++;
    try {
      return await work();
    } finally {
      this.#background--;
    }
  }

  #isFree(): boolean {
    return this.#interactive === 0 && this.#background === 0 && this.#clock.monotonicMs() - this.#lastInteractiveAtMs >= lingerMs;
  }
}
