/** Events by time, at the same time in order of creation. */
export class EventHeap {
  readonly #events: { readonly atMs: number; readonly order: number; readonly act: () => void }[] = [];
  #order = 0;

  peek() {
    return this.#events[0];
  }

  push(atMs: number, act: () => void): void {
    const events = this.#events;
    let index = events.length;
    const event = { atMs, order: this.#order++, act };
    events.push(event);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!this.#isBefore(index, parent)) break;
      this.#swap(index, parent);
      index = parent;
    }
  }

  pop(): void {
    const events = this.#events;
    const last = events.pop();
    if (last === undefined || events.length === 0) return;
    events[0] = last;
    for (let index = 0; ; ) {
      let least = index;
      for (const child of [2 * index + 1, 2 * index + 2]) if (child < events.length && this.#isBefore(child, least)) least = child;
      if (least === index) return;
      this.#swap(index, least);
      index = least;
    }
  }

  #isBefore(one: number, other: number): boolean {
    const left = this.#events[one];
    const right = this.#events[other];
    if (left === undefined || right === undefined) return false;
    return left.atMs < right.atMs || (left.atMs === right.atMs && left.order < right.order);
  }

  #swap(one: number, other: number): void {
    const left = this.#events[one];
    const right = this.#events[other];
    if (left === undefined || right === undefined) return;
    this.#events[one] = right;
    this.#events[other] = left;
  }
}
