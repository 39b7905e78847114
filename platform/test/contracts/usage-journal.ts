/** What every UsageJournal must do: the one on disk and the one in memory pass the same suite. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { UsageJournal, UsageLedger } from '../../src/metering/usage-journal.ts';
import { ScriptedLedger } from './scripted-ledger.ts';
import { usageEvent } from './usage-events.ts';

export function usageJournalContract(name: string, open: (ledger: UsageLedger) => Promise<UsageJournal>): void {
  describe(`${name} keeps the journal's promises`, () => {
    let ledger: ScriptedLedger;
    let journal: UsageJournal;
    beforeEach(async () => {
      ledger = new ScriptedLedger();
      journal = await open(ledger);
    });
    afterEach(() => journal[Symbol.asyncDispose]());

    test('events wait until a flush and then are in the ledger, whole and in order', async () => {
      const events = [usageEvent(2), usageEvent(1, { cost: null, costLines: [] }), usageEvent(3, { user: "é\n汉 👩‍👩‍👧 '" })];
      for (const event of events) journal.append(event);
      expect([ledger.events, journal.pendingCount]).toEqual([[], 3]);
      await journal.flush();
      expect([ledger.events, journal.pendingCount]).toEqual([events, 0]);
    });

    test('a flush without events does not call the ledger', async () => {
      await journal.flush();
      journal.append(usageEvent(1));
      await journal.flush();
      await journal.flush();
      expect(ledger.batchSizes).toEqual([1]);
    });

    test('batches hold at most 500 events', async () => {
      for (let number = 1; number <= 1_001; number++) journal.append(usageEvent(number));
      await journal.flush();
      expect(ledger.batchSizes).toEqual([500, 500, 1]);
      expect(new Set(ledger.ids).size).toBe(1_001);
    });

    test('a ledger that is down loses nothing', async () => {
      journal.append(usageEvent(1));
      ledger.failures.push('before', 'before');
      await expect(journal.flush()).rejects.toThrow('ledger is down');
      journal.append(usageEvent(2));
      await expect(journal.flush()).rejects.toThrow('ledger is down');
      expect(journal.pendingCount).toBe(2);
      await journal.flush();
      expect([ledger.ids, journal.pendingCount]).toEqual([[usageEvent(1).id, usageEvent(2).id], 0]);
    });

    test('a ledger that kept the events but did not answer gets them again, and has them once', async () => {
      journal.append(usageEvent(1));
      ledger.failures.push('after');
      await expect(journal.flush()).rejects.toThrow('did not answer');
      await journal.flush();
      expect([ledger.received, ledger.ids]).toEqual([2, [usageEvent(1).id]]);
    });

    test('batches before a failure are not delivered again', async () => {
      for (let number = 1; number <= 700; number++) journal.append(usageEvent(number));
      ledger.duringAppend = () => ledger.failures.push('before');
      await expect(journal.flush()).rejects.toThrow('ledger is down');
      ledger.duringAppend = () => {};
      ledger.failures.length = 0;
      await journal.flush();
      expect([ledger.received, ledger.ids.length, ledger.batchSizes]).toEqual([700, 700, [500, 200]]);
    });

    test('events appended during a flush wait for the next one', async () => {
      journal.append(usageEvent(1));
      let next = 2;
      ledger.duringAppend = () => journal.append(usageEvent(next++));
      await journal.flush();
      expect([ledger.ids, journal.pendingCount]).toEqual([[usageEvent(1).id], 1]);
      await journal.flush();
      expect(ledger.ids).toEqual([usageEvent(1).id, usageEvent(2).id]);
    });

    test('flushes called together run one after the other', async () => {
      for (let number = 1; number <= 600; number++) journal.append(usageEvent(number));
      await Promise.all([journal.flush(), journal.flush(), journal.flush()]);
      expect([ledger.overlapped, ledger.received, journal.pendingCount]).toEqual([false, 600, 0]);
    });
  });
}
