/**
 * A circuit breaker (Nygard, Release It!, 2007): after failures on end nothing is sent for a while, then one call tries. What breaks the calls of one tenant
 * must not shut the model for all: one source alone needs four times as many failures, and any answer to anybody starts the count anew.
 */
const failuresMin = 5;
const failuresOfOneMin = 20;
const openMs = 2_000;
const openMsMax = 60_000;
const sourcesMax = 2;

export class Circuit {
  #failures = 0;
  readonly #sources = new Set<string>();
  /** How often it has opened without an answer in between. */
  #opened = 0;
  #opensAgainAtMs = Number.NEGATIVE_INFINITY;
  #mode: 'closed' | 'open' = 'closed';

  /** `closed`: calls go through. `half-open`: one may try. */
  state(nowMs: number): 'closed' | 'open' | 'half-open' {
    if (this.#mode === 'closed') return 'closed';
    return nowMs < this.#opensAgainAtMs ? 'open' : 'half-open';
  }

  /** Monotonic milliseconds when it lets one call try; meaningful while open. */
  get retryAtMs(): number {
    return this.#opensAgainAtMs;
  }

  answered(): void {
    this.#failures = 0;
    this.#sources.clear();
    this.#opened = 0;
    this.#mode = 'closed';
  }

  /** `source`: an opaque name of who asked. */
  failed(nowMs: number, source: string): void {
    if (this.#mode === 'open') {
      if (nowMs >= this.#opensAgainAtMs) this.open(nowMs);
      return;
    }
    this.#failures++;
    if (this.#sources.size < sourcesMax) this.#sources.add(source);
    if (this.#failures >= (this.#sources.size < sourcesMax ? failuresOfOneMin : failuresMin)) this.open(nowMs);
  }

  /** For at least `forMs`; twice as long each time until an answer comes. */
  open(nowMs: number, forMs = 0): void {
    const waitMs = Math.min(openMsMax, openMs * 2 ** this.#opened);
    this.#opened = Math.min(this.#opened + 1, 16);
    this.#mode = 'open';
    this.#opensAgainAtMs = nowMs + Math.max(forMs, waitMs);
  }
}
