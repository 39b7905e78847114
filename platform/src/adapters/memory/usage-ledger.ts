import type { UsageEvent } from '../../metering/usage-event.ts';
import type { UsageLedger } from '../../metering/usage-journal.ts';

/** The ledger without a database: forgets everything with the process. For tests, and for a gateway without a bill. */
export class MemoryUsageLedger implements UsageLedger {
  readonly #events = new Map<string, UsageEvent>();

  async append(events: readonly UsageEvent[]): Promise<void> {
    for (const event of events) if (!this.#events.has(event.id)) this.#events.set(event.id, event);
  }

  /** In the order of arrival. */
  get events(): readonly UsageEvent[] {
    return [...this.#events.values()];
  }
}
