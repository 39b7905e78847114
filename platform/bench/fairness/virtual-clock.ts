import type { Clock } from '../../src/primitives/clock.ts';

/** Set, not advanced: the same moment is the same number however many events came before. */
export class VirtualClock implements Clock {
  #atMs = 0;

  nowMs(): number {
    return this.#atMs;
  }

  monotonicMs(): number {
    return this.#atMs;
  }

  moveTo(atMs: number): void {
    if (atMs > this.#atMs) this.#atMs = atMs;
  }
}
