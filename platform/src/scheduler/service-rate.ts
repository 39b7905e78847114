/** A sample takes at least this long, and as many ended requests as there are permits: a whole answer is charged when it ends, all at once. */
const windowMs = 1_000;
const endedMin = 8;
const smoothing = 0.3;

/** How fast a pool serves while it is saturated, learned from what is charged. Unsaturated time says nothing about capacity and is left out. */
export class ServiceRate {
  #unitsPerMs: number | undefined;
  #servedUnits = 0;
  #ended = 0;
  #windowStartMs: number | undefined;

  /** Negative for a refund. */
  add(units: number): void {
    this.#servedUnits += units;
  }

  /** A request has returned its permit. */
  countEnd(): void {
    this.#ended++;
  }

  observe(nowMs: number, pool: { readonly isSaturated: boolean; readonly capacity: number }): void {
    if (!pool.isSaturated) {
      this.#windowStartMs = undefined;
      return;
    }
    if (this.#windowStartMs === undefined) {
      this.#openWindow(nowMs);
      return;
    }
    const elapsedMs = nowMs - this.#windowStartMs;
    if (elapsedMs < windowMs || this.#ended < Math.max(endedMin, pool.capacity)) return;
    const sample = Math.max(0, this.#servedUnits) / elapsedMs;
    this.#unitsPerMs = this.#unitsPerMs === undefined ? sample : this.#unitsPerMs + smoothing * (sample - this.#unitsPerMs);
    this.#openWindow(nowMs);
  }

  /** The pool has grown or shrunk to `factor` of its permits. */
  scale(factor: number): void {
    if (this.#unitsPerMs !== undefined) this.#unitsPerMs *= factor;
  }

  /** Milliseconds for `units` at `share` of the rate; undefined until a sample was taken. */
  timeForMs(units: number, share: number): number | undefined {
    if (units === 0) return 0;
    return this.#unitsPerMs ? units / (this.#unitsPerMs * share) : undefined;
  }

  #openWindow(nowMs: number): void {
    this.#windowStartMs = nowMs;
    this.#servedUnits = 0;
    this.#ended = 0;
  }
}
