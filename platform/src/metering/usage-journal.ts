import type { UsageEvent } from './usage-event.ts';

/**
 * Port: durable before acknowledged. `append` returns after one `write`, so the event survives `kill -9` (not a power cut: it is
 * not synced). Events reach the ledger in batches, exactly once by id.
 */
export interface UsageJournal extends AsyncDisposable {
  append(event: UsageEvent): void;
  /** Hands everything not yet in the ledger over, oldest first, and forgets it once the ledger has it. */
  flush(): Promise<void>;
  /** Events appended and not yet in the ledger. */
  readonly pendingCount: number;
}

/** Port: the append-only ledger table. An id already there is skipped. */
export interface UsageLedger {
  append(events: readonly UsageEvent[]): Promise<void>;
}
