import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { UsageEvent } from '../../metering/usage-event.ts';
import type { UsageJournal, UsageLedger } from '../../metering/usage-journal.ts';

export interface MemoryUsageJournalOptions {
  readonly ledger: UsageLedger;
  readonly backlogEventsMax?: number;
  readonly batchEventsMax?: number;
}

/** The journal without a disk: bounded, in order, and gone with the process. */
export class MemoryUsageJournal implements UsageJournal {
  readonly #ledger: UsageLedger;
  readonly #backlogEventsMax: number;
  readonly #batchEventsMax: number;
  readonly #pending: UsageEvent[] = [];
  #lastFlush: Promise<void> = Promise.resolve();

  constructor({ ledger, backlogEventsMax = 100_000, batchEventsMax = 500 }: MemoryUsageJournalOptions) {
    this.#ledger = ledger;
    this.#backlogEventsMax = backlogEventsMax;
    this.#batchEventsMax = batchEventsMax;
  }

  get pendingCount(): number {
    return this.#pending.length;
  }

  append(event: UsageEvent): void {
    this.assertRoom();
    this.#pending.push(event);
  }

  assertRoom(): void {
    if (this.#pending.length < this.#backlogEventsMax) return;
    throw new BulkheadError('metering_unavailable', `The usage journal is full: ${this.#backlogEventsMax} events wait for the ledger.`);
  }

  flush(): Promise<void> {
    const flushed = this.#lastFlush.then(() => this.#drain());
    this.#lastFlush = flushed.catch(() => {});
    return flushed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lastFlush;
  }

  async #drain(): Promise<void> {
    let left = this.#pending.length;
    while (left > 0) {
      const batch = this.#pending.slice(0, Math.min(left, this.#batchEventsMax));
      await this.#ledger.append(batch);
      this.#pending.splice(0, batch.length);
      left -= batch.length;
    }
  }
}
