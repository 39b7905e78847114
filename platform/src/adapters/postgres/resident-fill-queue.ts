/** Fills that run now and those that wait: both bounded, in the order they came, ended together. */
export class FillQueue implements AsyncDisposable {
  readonly #runningMax: number;
  readonly #waiting: ((signal: AbortSignal) => Promise<void>)[] = [];
  readonly #running = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  constructor(runningMax: number) {
    this.#runningMax = runningMax;
  }

  /** False: too many wait. */
  add(fill: (signal: AbortSignal) => Promise<void>): boolean {
    if (this.#stop.signal.aborted || this.#waiting.length >= waitingMax) return false;
    this.#waiting.push(fill);
    this.#pump();
    return true;
  }

  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#waiting.length = 0;
    await this.idle();
  }

  #pump(): void {
    while (this.#running.size < this.#runningMax) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      const running = next(this.#stop.signal).finally(() => {
        this.#running.delete(running);
        this.#pump();
      });
      this.#running.add(running);
    }
  }
}

const waitingMax = 64;
