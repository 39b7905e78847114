/** One event of a stream. False when the stream has no more. */
type Emit = () => boolean;

interface Turn {
  dueMs: number;
  readonly periodMs: number;
  readonly emit: Emit;
}

const slotMs = 4;
const slotCount = 1_024;

/**
 * Paces thousands of streams with one timer (a hashed timing wheel: Varghese and Lauck, 1987). A stream that fell behind emits every
 * event it owes, so the offered rate is kept as long as the process keeps up at all.
 */
export class StreamWheel {
  readonly #slots: Turn[][] = Array.from({ length: slotCount }, () => []);
  #slot = Math.floor(performance.now() / slotMs);
  #streams = 0;
  #timer: NodeJS.Timeout | undefined;

  /** Emits the first event at once, then one every `periodMs`. */
  add(periodMs: number, emit: Emit): void {
    if (!emit()) return;
    this.#streams++;
    this.#place({ dueMs: performance.now() + periodMs, periodMs, emit });
    if (this.#timer) return;
    this.#slot = Math.floor(performance.now() / slotMs);
    this.#timer = setInterval(() => this.#turn(), slotMs);
  }

  #turn(): void {
    const now = Math.floor(performance.now() / slotMs);
    while (this.#slot < now) this.#runSlot(++this.#slot);
    if (this.#streams > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #runSlot(slot: number): void {
    const index = slot % slotCount;
    const due = this.#slots[index] ?? [];
    this.#slots[index] = [];
    for (const turn of due) this.#emitOwed(turn, slot * slotMs);
  }

  #emitOwed(turn: Turn, nowMs: number): void {
    while (turn.dueMs <= nowMs) {
      if (!turn.emit()) {
        this.#streams--;
        return;
      }
      turn.dueMs += turn.periodMs;
    }
    this.#place(turn);
  }

  #place(turn: Turn): void {
    // Never the slot being run: what is due later than one turn of the wheel waits there for another turn.
    const slot = Math.max(this.#slot + 1, Math.ceil(turn.dueMs / slotMs));
    this.#slots[slot % slotCount]?.push(turn);
  }
}
