/**
 * Keeps measuring, at a small share of real questions, what the approximate indexes find, and stops using one that finds too little: at once in this process,
 * and everywhere when the next sweep has written it down. Holds counts alone.
 */
import type { TenantId } from '../../primitives/ids.ts';
import type { Logger } from '../../telemetry/logger.ts';

export interface WatchedIndex {
  readonly tenantId: TenantId;
  readonly storeNo: number;
  readonly spaceNo: number;
}

export interface FailedIndex extends WatchedIndex {
  readonly recall: number;
}

interface Tally {
  asked: number;
  recallSum: number;
}

/** Fewer answers say little: at a true recall of 0.99 the mean of so many is below 0.98 once in a hundred times. */
const judgedFrom = 64;
/** Old answers count half from here on. */
const halvedAt = 256;
const indexesMax = 10_000;
/** Of sums of shares. */
const rounding = 1e-9;

export class RecallWatch {
  readonly #recallMin: number;
  readonly #logger: Logger;
  readonly #tallies = new Map<string, Tally>();
  readonly #failed = new Map<string, FailedIndex>();

  constructor(recallMin: number, logger: Logger) {
    this.#recallMin = recallMin;
    this.#logger = logger;
  }

  isTrusted(index: WatchedIndex): boolean {
    return !this.#failed.has(keyOf(index));
  }

  note(index: WatchedIndex, recall: number): void {
    const key = keyOf(index);
    const tally = this.#tallies.get(key) ?? this.#newTally(key);
    tally.asked++;
    tally.recallSum += recall;
    const mean = tally.recallSum / tally.asked;
    if (tally.asked >= judgedFrom && mean < this.#recallMin - rounding) {
      this.#failed.set(key, { ...index, recall: mean });
      this.#tallies.delete(key);
      const facts = { component: 'placement', tenantId: index.tenantId, count: tally.asked, recall: mean };
      this.#logger.warn(facts, 'the index of a large store finds too little by now: the store is searched exactly');
    } else if (tally.asked >= halvedAt) {
      tally.asked /= 2;
      tally.recallSum /= 2;
    }
  }

  /** Indexes that failed; they stay untrusted here until `settle` says that it is written down. */
  failed(): readonly FailedIndex[] {
    return [...this.#failed.values()];
  }

  settle(index: WatchedIndex): void {
    this.#failed.delete(keyOf(index));
  }

  #newTally(key: string): Tally {
    const [oldest] = this.#tallies.keys();
    if (this.#tallies.size >= indexesMax && oldest !== undefined) this.#tallies.delete(oldest);
    const tally = { asked: 0, recallSum: 0 };
    this.#tallies.set(key, tally);
    return tally;
  }
}

function keyOf({ tenantId, storeNo, spaceNo }: WatchedIndex): string {
  return `${tenantId} ${storeNo} ${spaceNo}`;
}
