import { expect, test } from 'vitest';
import { MemoryUsageJournal } from '../../src/adapters/memory/usage-journal.ts';
import { MemoryUsageLedger } from '../../src/adapters/memory/usage-ledger.ts';
import { createMeter, type UsageFacts } from '../../src/metering/meter.ts';
import { loadPriceBook } from '../../src/metering/price-book.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import { countingIds } from '../../src/primitives/ids.ts';
import { usageEvent } from '../contracts/usage-events.ts';

const prices = '{"version":"2026-01-01","models":{"gpt-4o-2024-08-06":{"input_cost_per_token":2.5e-6,"output_cost_per_token":1e-5}}}';

function meterWith({ backlogEventsMax = 10 } = {}) {
  const ledger = new MemoryUsageLedger();
  const journal = new MemoryUsageJournal({ ledger, backlogEventsMax });
  const clock = new ManualClock(Date.UTC(2026, 4, 5));
  return { meter: createMeter({ priceBook: loadPriceBook(prices), journal, ids: countingIds(), clock }), journal, ledger };
}

function facts(changes: Partial<UsageFacts> = {}): UsageFacts {
  const { id: _id, occurredAtMs: _at, cost: _cost, costLines: _lines, priceVersion: _version, ...rest } = usageEvent(1, changes);
  return rest;
}

test('an event is priced, dated, named and journaled before record returns, and reaches the ledger unchanged', async () => {
  const { meter, journal, ledger } = meterWith();
  const event = meter.record(facts({ usage: { inputTokens: 1_000, outputTokens: 100 } }));
  expect(event).toMatchObject({
    id: 'use_00000000000000000000000001',
    occurredAtMs: Date.UTC(2026, 4, 5),
    cost: 3_500_000n,
    priceVersion: '2026-01-01',
  });
  expect(journal.pendingCount).toBe(1);
  await journal.flush();
  expect(ledger.events).toEqual([event]);
});

test('an unpriced model is metered with an unknown cost', () => {
  expect(meterWith().meter.record(facts({ model: 'mystery', upstreamModel: 'mystery' }))).toMatchObject({ cost: null, costLines: [] });
});

test('text a database would refuse is made storable, so one event cannot hold up the others', () => {
  const { user, upstreamModel } = meterWith().meter.record(facts({ user: `a\0b\ud83d${'c'.repeat(300)}`, upstreamModel: '\ud800' }));
  expect(user).toBe(`a\ufffdb\ufffd${'c'.repeat(252)}`);
  expect(upstreamModel).toBe('\ufffd');
});

test('a full journal refuses the event and says so beforehand', () => {
  const { meter } = meterWith({ backlogEventsMax: 1 });
  meter.assertReady();
  meter.record(facts());
  expect(() => meter.assertReady()).toThrow(expect.objectContaining({ code: 'metering_unavailable' }));
  expect(() => meter.record(facts())).toThrow(expect.objectContaining({ code: 'metering_unavailable' }));
});
