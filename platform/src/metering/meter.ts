/**
 * Stage 8, the door of metering. Before it: inference has delivered something. After it: the response ends, and the journal's
 * events reach the ledger in the background.
 *
 * Invariants:
 *  - one request makes at most one event; its id is the idempotency key wherever the event travels;
 *  - the event is in the journal when `record` returns, so a response that ended is a response that is billed (`kill -9` included);
 *  - the price is fixed here, once, with its version and lines; nothing later prices again;
 *  - an unknown price is null, never 0.
 */
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import { priceUsage } from './cost.ts';
import type { PriceBook } from './price-book.ts';
import type { UsageEvent } from './usage-event.ts';
import type { UsageJournal } from './usage-journal.ts';

export type UsageFacts = Omit<UsageEvent, 'id' | 'occurredAtMs' | 'cost' | 'costLines' | 'priceVersion'>;

export interface Meter {
  /** Throws `metering_unavailable` when the journal has no room. Ask before the upstream is called: what cannot be billed is not served. */
  assertReady(): void;
  /**
   * Prices what was delivered and appends it to the journal; call it exactly once a request. About 20 µs, one of them a write.
   * Throws `metering_unavailable` when the journal cannot take it; the event is lost to the ledger then, and the caller must fail.
   */
  record(facts: UsageFacts): UsageEvent;
  /** What a call would cost at most, in whole nano-dollars; 0 when nobody knows a price. */
  quote(call: QuotedCall): number;
}

export interface QuotedCall {
  /** Public model id. */
  readonly model: string;
  /** Who may answer it. */
  readonly sources: readonly { readonly provider: string; readonly upstreamModel: string }[];
  readonly inputTokens: number;
  readonly outputTokens: number;
}

export interface MeterParts {
  readonly priceBook: PriceBook;
  readonly journal: UsageJournal;
  readonly ids: IdSource;
  readonly clock: Clock;
}

export function createMeter({ priceBook, journal, ids, clock }: MeterParts): Meter {
  return {
    assertReady: () => journal.assertRoom(),
    record(facts) {
      const occurredAtMs = clock.nowMs();
      const { cost, lines, priceVersion } = priceUsage(priceBook, { ...facts, atMs: occurredAtMs });
      const event: UsageEvent = {
        ...facts,
        user: storableText(facts.user),
        upstreamModel: storableText(facts.upstreamModel),
        serviceTier: storableText(facts.serviceTier),
        id: ids.next('use_'),
        occurredAtMs,
        cost,
        costLines: lines,
        priceVersion,
      };
      journal.append(event);
      return event;
    },
    quote({ model, sources, inputTokens, outputTokens }) {
      const call = { model, usage: { inputTokens, outputTokens }, serviceTier: 'default', atMs: clock.nowMs() };
      const costs = sources.map((source) => Number(priceUsage(priceBook, { ...call, ...source }).cost ?? 0n));
      return Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, ...costs));
    },
  };
}

const storedCharactersMax = 256;

/**
 * Text from outside as any ledger can store it. One event that a database refuses (PostgreSQL has no U+0000, and no half surrogate
 * pairs) would hold up every tenant's events behind it.
 */
function storableText(text: string): string {
  return text.slice(0, storedCharactersMax).toWellFormed().replaceAll('\0', '\ufffd');
}
