import type { Clock } from '../../primitives/clock.ts';

/** Waits end on this grid, so that thousands of streams share at most 200 timers a second instead of one timer for each token. */
const gridMs = 5;

interface Tick {
  readonly timer: NodeJS.Timeout;
  readonly waiters: Set<() => void>;
}

/** Timers shared by all who wait for about the same moment. */
export class Pacer {
  readonly #clock: Clock;
  readonly #ticks = new Map<number, Tick>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Timers running now. */
  get timerCount(): number {
    return this.#ticks.size;
  }

  /** Resolves at `deadlineMs` (monotonic) or up to 5 ms later; undefined, with no timer and no promise, when that has passed. Rejects with the signal's reason. */
  until(deadlineMs: number, signal: AbortSignal): Promise<void> | undefined {
    if (deadlineMs <= this.#clock.monotonicMs()) return undefined;
    const moment = Math.ceil(deadlineMs / gridMs) * gridMs;
    const tick = this.#tickAt(moment);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#leave(moment, wake);
        reject(signal.reason);
      };
      const wake = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      tick.waiters.add(wake);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  #tickAt(moment: number): Tick {
    const known = this.#ticks.get(moment);
    if (known !== undefined) return known;
    const timer = setTimeout(() => this.#ring(moment), Math.max(1, moment - this.#clock.monotonicMs()));
    const tick = { timer, waiters: new Set<() => void>() };
    this.#ticks.set(moment, tick);
    return tick;
  }

  #ring(moment: number): void {
    const waiters = this.#ticks.get(moment)?.waiters ?? [];
    this.#ticks.delete(moment);
    for (const wake of waiters) wake();
  }

  #leave(moment: number, wake: () => void): void {
    const tick = this.#ticks.get(moment);
    tick?.waiters.delete(wake);
    if (tick === undefined || tick.waiters.size > 0) return;
    clearTimeout(tick.timer);
    this.#ticks.delete(moment);
  }
}
