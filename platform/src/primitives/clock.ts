/** Time through a port, so that tests own it. */
export interface Clock {
  /** Wall clock, milliseconds since the Unix epoch. May step; use it for dates, never for durations. */
  nowMs(): number;
  /** Monotonic clock in milliseconds with a fraction. Use it for durations, deadlines and token buckets. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};

/** A clock that moves only when told to; both faces move together. */
export class ManualClock implements Clock {
  #wallMs: number;
  #monotonicMs = 0;

  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#wallMs = startMs;
  }

  nowMs(): number {
    return this.#wallMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  advance(ms: number): void {
    this.#wallMs += ms;
    this.#monotonicMs += ms;
  }

  /** Steps the wall clock alone, as NTP or an operator would. */
  stepWallClock(ms: number): void {
    this.#wallMs += ms;
  }
}
