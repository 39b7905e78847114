import type { UsageEvent } from '../../src/metering/usage-event.ts';
import type { UsageLedger } from '../../src/metering/usage-journal.ts';

/** A ledger that keeps its promises, fails when told to, and remembers how it was called. */
export class ScriptedLedger implements UsageLedger {
  readonly batchSizes: number[] = [];
  /** Errors to throw on the next calls, before or after keeping the events. */
  readonly failures: ('before' | 'after')[] = [];
  /** Runs in the middle of every call. */
  duringAppend: () => void = () => {};
  readonly #events = new Map<string, UsageEvent>();
  #running = 0;
  overlapped = false;
  received = 0;

  async append(events: readonly UsageEvent[]): Promise<void> {
    this.overlapped ||= this.#running > 0;
    this.#running++;
    try {
      await Promise.resolve();
      const failure = this.failures.shift();
      if (failure === 'before') throw new Error('ledger is down');
      this.batchSizes.push(events.length);
      this.received += events.length;
      for (const event of events) if (!this.#events.has(event.id)) this.#events.set(event.id, event);
      this.duringAppend();
      await Promise.resolve();
      if (failure === 'after') throw new Error('ledger did not answer');
    } finally {
      this.#running--;
    }
  }

  get events(): readonly UsageEvent[] {
    return [...this.#events.values()];
  }

  get ids(): readonly string[] {
    return [...this.#events.keys()];
  }
}
