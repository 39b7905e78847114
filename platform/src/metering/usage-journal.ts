import type { UsageEvent } from './usage-event.ts';

/**
 * Port: durable before acknowledged. `append` returns after one `write`, so the event survives `kill -9` (not a power cut: it is
 * not synced). Events reach the ledger in batches, exactly once by id.
 */
export interface UsageJournal extends AsyncDisposable {
  /** Throws `metering_unavailable` when the backlog is full or the disk refuses; nothing was appended then. */
  append(event: UsageEvent): void;
  /** Throws `metering_unavailable` shortly before `append` would, so that requests are refused while those in flight can still be billed. */
  assertRoom(): void;
  /** Hands everything not yet in the ledger over, oldest first, and forgets it once the ledger has it. */
  flush(): Promise<void>;
  /** Events appended and not yet in the ledger. */
  readonly pendingCount: number;
}

/**
 * Port: the append-only ledger table. An id already there is skipped, and so are repeats within a batch. It takes every event, also
 * of a tenant that is gone: an event it refused for good would hold up all tenants' events behind it.
 */
export interface UsageLedger {
  append(events: readonly UsageEvent[]): Promise<void>;
}
