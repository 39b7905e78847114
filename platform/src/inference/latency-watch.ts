/**
 * Whether a provider has begun to queue: its time to the first event, for the size of the prompt, against the best it has shown in ten minutes. Never the
 * time of whole answers, which is the length of what was asked for.
 */
const samplesPerWindow = 16;
/** The best is kept for one to two of these. */
const halfLifeMs = 300_000;
const slowTimes = 2;
/** One slow window is chance. */
const windowsMin = 3;
/** So many input tokens take as long to read as an empty prompt to answer. A rule of thumb; the ratio of a provider to itself is what counts. */
const tokensPerBase = 2_000;

export class LatencyWatch {
  #sum = 0;
  #samples = 0;
  #slowWindows = 0;
  #best = Number.POSITIVE_INFINITY;
  #bestBefore = Number.POSITIVE_INFINITY;
  #turnedAtMs = 0;

  /** One first event, while much was asked of the provider. True: it has been slow for three windows on end. */
  observe(firstEventMs: number, inputTokens: number, nowMs: number): boolean {
    this.#sum += firstEventMs / (1 + inputTokens / tokensPerBase);
    this.#samples++;
    if (this.#samples < samplesPerWindow) return false;
    const mean = this.#sum / this.#samples;
    this.#sum = 0;
    this.#samples = 0;
    if (nowMs - this.#turnedAtMs > halfLifeMs) {
      this.#turnedAtMs = nowMs;
      this.#bestBefore = this.#best;
      this.#best = Number.POSITIVE_INFINITY;
    }
    this.#best = Math.min(this.#best, mean);
    this.#slowWindows = mean > slowTimes * Math.min(this.#best, this.#bestBefore) ? this.#slowWindows + 1 : 0;
    if (this.#slowWindows < windowsMin) return false;
    this.#slowWindows = 0;
    return true;
  }
}
