/** A sample takes at least this long, and as many ended requests as there are permits: a request counts when it ends, all at once. */
const windowMs = 1_000;
const endedMin = 8;
const smoothing = 0.3;

export interface PoolLoad {
  readonly isSaturated: boolean;
  readonly capacity: number;
  readonly running: number;
}

/**
 * How much expected work one permit gets done, learned while the pool is saturated; other time says nothing about it. Measured is what the requests
 * were expected to cost, because the backlog it is applied to is measured so as well: wrong predictions and failures cancel out. Per permit and over
 * the time permits were in use, so that a pool that grows, shrinks or pauses keeps what it has learned.
 */
export class ServiceRate {
  #unitsPerPermitMs: number | undefined;
  #endedUnits = 0;
  #ended = 0;
  #permitMs = 0;
  #running = 0;
  #windowStartMs: number | undefined;
  #observedAtMs = 0;

  /** A request has returned its permit, in whatever way. */
  countEnd(expectedUnits: number): void {
    this.#endedUnits += expectedUnits;
    this.#ended++;
  }

  /** To be called whenever the number of running requests has changed while some wait. */
  observe(nowMs: number, { isSaturated, capacity, running }: PoolLoad): void {
    if (!isSaturated) {
      this.#windowStartMs = undefined;
      return;
    }
    if (this.#windowStartMs === undefined) this.#openWindow(nowMs);
    this.#permitMs += this.#running * (nowMs - this.#observedAtMs);
    this.#observedAtMs = nowMs;
    this.#running = running;
    const elapsedMs = nowMs - (this.#windowStartMs ?? nowMs);
    if (elapsedMs < windowMs || this.#ended < Math.max(endedMin, capacity)) return;
    if (this.#permitMs > 0) this.#learn(this.#endedUnits / this.#permitMs);
    this.#openWindow(nowMs);
  }

  /** Milliseconds in which `permits` (a part of one, too) get `units` of expected work done; undefined until a sample was taken. */
  timeForMs(units: number, permits: number): number | undefined {
    if (units === 0) return 0;
    const unitsPerMs = (this.#unitsPerPermitMs ?? 0) * permits;
    return unitsPerMs > 0 ? units / unitsPerMs : undefined;
  }

  #learn(sample: number): void {
    const known = this.#unitsPerPermitMs;
    this.#unitsPerPermitMs = known === undefined ? sample : known + smoothing * (sample - known);
  }

  #openWindow(nowMs: number): void {
    this.#windowStartMs = nowMs;
    this.#observedAtMs = nowMs;
    this.#endedUnits = 0;
    this.#ended = 0;
    this.#permitMs = 0;
  }
}
