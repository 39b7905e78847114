/**
 * How many calls a provider takes at once, found out by additive increase and multiplicative decrease (Chiu and Jain, 1989; as TCP): a refusal for load cuts
 * the limit to seven tenths, a limit's worth of answers while it was used up raises it by one. It starts at the ceiling, which the operator configured.
 */
const lossFactor = 0.7;
const slowFactor = 0.9;
/** Refusals come in bursts and tell one thing: the limit is cut once for all of a burst. */
const epochMs = 1_000;
/** Slowness is a hint and no refusal; it never takes more than three quarters. */
const slowFloorShare = 0.25;

export class ConcurrencyLimit {
  readonly ceiling: number;
  #limit: number;
  #answers = 0;
  #cutAtMs = Number.NEGATIVE_INFINITY;

  constructor(ceiling: number) {
    this.ceiling = ceiling;
    this.#limit = ceiling;
  }

  /** Calls at once, a whole number of at least 1. */
  get value(): number {
    return this.#limit;
  }

  /** An answer; `wasFull`: all of the limit was in use meanwhile, so more might fit. */
  answered(wasFull: boolean): void {
    if (!wasFull || this.#limit >= this.ceiling) return;
    this.#answers++;
    if (this.#answers < this.#limit) return;
    this.#answers = 0;
    this.#limit++;
  }

  /** The provider refused a call for load. */
  refused(nowMs: number): void {
    this.#cut(nowMs, Math.max(1, Math.floor(this.#limit * lossFactor)));
  }

  /** Answers take longer than they did when little was asked. */
  slowed(nowMs: number): void {
    const floor = Math.max(1, Math.ceil(this.ceiling * slowFloorShare));
    if (this.#limit > floor) this.#cut(nowMs, Math.max(floor, Math.floor(this.#limit * slowFactor)));
  }

  #cut(nowMs: number, limit: number): void {
    if (nowMs - this.#cutAtMs < epochMs) return;
    this.#cutAtMs = nowMs;
    this.#answers = 0;
    this.#limit = limit;
  }
}
