/** Long enough that single requests do not show, short enough to follow an upstream that slows down. */
const windowMs = 1_000;
const smoothing = 0.3;

/** How fast a pool serves while it is saturated, learned from what is charged. Unsaturated time says nothing about capacity and is left out. */
export class ServiceRate {
  #unitsPerMs: number | undefined;
  #servedUnits = 0;
  #windowStartMs: number | undefined;

  /** Negative for a refund. */
  add(units: number): void {
    this.#servedUnits += units;
  }

  observe(nowMs: number, isSaturated: boolean): void {
    if (!isSaturated) {
      this.#windowStartMs = undefined;
      return;
    }
    if (this.#windowStartMs === undefined) {
      this.#openWindow(nowMs);
      return;
    }
    const elapsedMs = nowMs - this.#windowStartMs;
    if (elapsedMs < windowMs) return;
    const sample = Math.max(0, this.#servedUnits) / elapsedMs;
    this.#unitsPerMs = this.#unitsPerMs === undefined ? sample : this.#unitsPerMs + smoothing * (sample - this.#unitsPerMs);
    this.#openWindow(nowMs);
  }

  /** The pool has grown or shrunk to `factor` of its permits. */
  scale(factor: number): void {
    if (this.#unitsPerMs !== undefined) this.#unitsPerMs *= factor;
  }

  /** Milliseconds for `units` at `share` of the rate; undefined until a saturated second was seen. */
  timeForMs(units: number, share: number): number | undefined {
    if (this.#unitsPerMs === undefined) return undefined;
    return units === 0 ? 0 : units / (this.#unitsPerMs * share);
  }

  #openWindow(nowMs: number): void {
    this.#windowStartMs = nowMs;
    this.#servedUnits = 0;
  }
}
