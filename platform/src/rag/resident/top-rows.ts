/** The best rows of a scan: a heap of bounded size whose root is the worst that is kept. */
export class TopRows {
  readonly #capacity: number;
  readonly #precedes: (left: number, right: number) => boolean;
  readonly #scores: number[] = [];
  readonly #rows: number[] = [];

  /** `precedes`: which of two rows of equal score is better. */
  constructor(capacity: number, precedes: (left: number, right: number) => boolean) {
    this.#capacity = capacity;
    this.#precedes = precedes;
  }

  /** A row that scores less need not be offered. */
  get floor(): number {
    return this.#rows.length < this.#capacity ? Number.NEGATIVE_INFINITY : (this.#scores[0] as number);
  }

  offer(row: number, score: number): void {
    if (this.#rows.length < this.#capacity) {
      this.#rows.push(row);
      this.#scores.push(score);
      this.#rise(this.#rows.length - 1);
    } else if (this.#isBetter(row, score, 0)) {
      this.#rows[0] = row;
      this.#scores[0] = score;
      this.#sink();
    }
  }

  /** Best first. */
  ranked(): number[] {
    return this.#rows
      .map((row, index) => ({ row, score: this.#scores[index] as number }))
      .sort((left, right) => right.score - left.score || (this.#precedes(left.row, right.row) ? -1 : 1))
      .map(({ row }) => row);
  }

  #isBetter(row: number, score: number, at: number): boolean {
    const other = this.#scores[at] as number;
    return score > other || (score === other && this.#precedes(row, this.#rows[at] as number));
  }

  #rise(from: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#isBetter(this.#rows[at] as number, this.#scores[at] as number, parent)) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  #sink(): void {
    for (let at = 0; ; ) {
      let worst = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < this.#rows.length && !this.#isBetter(this.#rows[child] as number, this.#scores[child] as number, worst)) worst = child;
      }
      if (worst === at) return;
      this.#swap(at, worst);
      at = worst;
    }
  }

  #swap(left: number, right: number): void {
    const row = this.#rows[left] as number;
    const score = this.#scores[left] as number;
    this.#rows[left] = this.#rows[right] as number;
    this.#scores[left] = this.#scores[right] as number;
    this.#rows[right] = row;
    this.#scores[right] = score;
  }
}
