/**
 * A circuit breaker (Nygard, Release It!, 2007): after failures on end nothing is sent for a while, then one call tries. What breaks the calls of one tenant
 * must not shut the model for all: one source alone needs four times as many failures, and any answer to anybody starts the count anew. Streams that break in the
 * middle count by themselves, because each of them has begun with an answer: until one comes to its end.
 */
const failuresMin = 5;
const failuresOfOneMin = 20;
const openMs = 2_000;
const openMsMax = 60_000;
const sourcesMax = 2;

/** Failures on end, and whose. */
class Failures {
  #count = 0;
  readonly #sources = new Set<string>();

  /** Whether that was one too many. */
  add(source: string): boolean {
    this.#count++;
    if (this.#sources.size < sourcesMax) this.#sources.add(source);
    return this.#count >= (this.#sources.size < sourcesMax ? failuresOfOneMin : failuresMin);
  }

  clear(): void {
    this.#count = 0;
    this.#sources.clear();
  }
}

export class Circuit {
  readonly #failures = new Failures();
  readonly #breaks = new Failures();
  /** How often it has opened without a whole answer in between. */
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

  /** A whole answer, or a stream that has come to its end. */
  answered(): void {
    this.began();
    this.#breaks.clear();
    this.#opened = 0;
  }

  /** A stream has shown its first events. */
  began(): void {
    this.#failures.clear();
    this.#mode = 'closed';
  }

  /** Before its first byte. `source`: an opaque name of who asked. */
  failed(nowMs: number, source: string): void {
    if (this.#mode === 'open') {
      if (nowMs >= this.#opensAgainAtMs) this.open(nowMs);
    } else if (this.#failures.add(source)) this.open(nowMs);
  }

  /** A stream, after it had begun. */
  broke(nowMs: number, source: string): void {
    if (this.#breaks.add(source) && this.#mode === 'closed') this.open(nowMs);
  }

  /** For at least `forMs`; twice as long each time until an answer comes. */
  open(nowMs: number, forMs = 0): void {
    const waitMs = Math.min(openMsMax, openMs * 2 ** this.#opened);
    this.#opened = Math.min(this.#opened + 1, 16);
    this.#mode = 'open';
    this.#opensAgainAtMs = nowMs + Math.max(forMs, waitMs);
  }
}
