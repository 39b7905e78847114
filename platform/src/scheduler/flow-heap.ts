/** Something that waits its turn by virtual time. The heap keeps `heapIndex`; -1 while it is not in one. */
export interface HeapItem {
  heapIndex: number;
  /** Decides ties: who came first. */
  readonly order: number;
  virtualTime(): number;
}

/** Binary min-heap by virtual time whose items can move when they are charged. All operations O(log n). */
export class FlowHeap<Item extends HeapItem> {
  readonly #items: Item[] = [];

  get size(): number {
    return this.#items.length;
  }

  peek(): Item | undefined {
    return this.#items[0];
  }

  items(): readonly Item[] {
    return this.#items;
  }

  add(item: Item): void {
    if (item.heapIndex >= 0) return;
    item.heapIndex = this.#items.length;
    this.#items.push(item);
    this.#rise(item);
  }

  remove(item: Item): void {
    const index = item.heapIndex;
    if (index < 0) return;
    item.heapIndex = -1;
    const last = this.#items.pop();
    if (last === undefined || last === item) return;
    this.#put(last, index);
    this.update(last);
  }

  /** The item's virtual time changed. */
  update(item: Item): void {
    if (item.heapIndex < 0) return;
    this.#rise(item);
    this.#sink(item);
  }

  #rise(item: Item): void {
    while (item.heapIndex > 0) {
      const parent = this.#items[(item.heapIndex - 1) >> 1];
      if (parent === undefined || !isBefore(item, parent)) return;
      this.#swap(item, parent);
    }
  }

  #sink(item: Item): void {
    for (;;) {
      const left = this.#items[item.heapIndex * 2 + 1];
      const right = this.#items[item.heapIndex * 2 + 2];
      const smaller = right !== undefined && left !== undefined && isBefore(right, left) ? right : left;
      if (smaller === undefined || !isBefore(smaller, item)) return;
      this.#swap(item, smaller);
    }
  }

  #swap(one: Item, other: Item): void {
    const index = one.heapIndex;
    this.#put(one, other.heapIndex);
    this.#put(other, index);
  }

  #put(item: Item, index: number): void {
    item.heapIndex = index;
    this.#items[index] = item;
  }
}

function isBefore(one: HeapItem, other: HeapItem): boolean {
  const difference = one.virtualTime() - other.virtualTime();
  return difference < 0 || (difference === 0 && one.order < other.order);
}
