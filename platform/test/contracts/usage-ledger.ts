/** What every UsageLedger must do: PostgreSQL's and the one in memory pass the same suite. */
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { UsageEvent } from '../../src/metering/usage-event.ts';
import type { UsageLedger } from '../../src/metering/usage-journal.ts';
import { parseTenantId } from '../../src/primitives/ids.ts';
import { nanoUsd } from '../../src/primitives/money.ts';
import { usageEvent } from './usage-events.ts';

export interface LedgerUnderTest {
  readonly ledger: UsageLedger;
  /** Everything in the ledger, of all tenants, in any order; optional fields that were absent may be absent or undefined. */
  stored(): Promise<readonly UsageEvent[]>;
  /** Empties the ledger. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** `open` runs once. The tenants `acme` and `globex` must exist. */
export function usageLedgerContract(name: string, open: () => Promise<LedgerUnderTest>): void {
  describe(`${name} keeps the ledger's promises`, () => {
    let subject: LedgerUnderTest;
    beforeAll(async () => {
      subject = await open();
    });
    beforeEach(() => subject.clear());
    afterAll(() => subject?.close());

    test('keeps every field of an event', async () => {
      await subject.ledger.append([usageEvent(1)]);
      expect(await subject.stored()).toEqual([usageEvent(1)]);
    });

    test('keeps an unknown cost as null, apart from a cost of 0', async () => {
      await subject.ledger.append([usageEvent(1, { cost: null, costLines: [] }), usageEvent(2, { cost: nanoUsd(0n), costLines: [] })]);
      expect((await sortedById(subject)).map(({ cost }) => cost)).toEqual([null, 0n]);
    });

    test('keeps costs beyond the exact range of doubles', async () => {
      const cost = nanoUsd(9_007_199_254_740_993n);
      await subject.ledger.append([usageEvent(1, { cost })]);
      expect((await subject.stored())[0]?.cost).toBe(cost);
    });

    test('keeps text as it is', async () => {
      const changes = { user: 'o\'brien; -- \\ " 汉 👩‍👩‍👧', model: 'a/b:c', upstreamModel: '' };
      await subject.ledger.append([usageEvent(1, changes)]);
      expect(await subject.stored()).toEqual([usageEvent(1, changes)]);
    });

    test('takes events of a tenant that is gone, because an event refused for good would hold up everybody', async () => {
      const gone = parseTenantId('tenant-that-is-gone');
      if (!gone) throw new Error('it is a tenant id');
      await subject.ledger.append([usageEvent(1, { tenantId: gone }), usageEvent(2)]);
      expect(await idsIn(subject)).toEqual([usageEvent(1).id, usageEvent(2).id]);
    });

    test('takes an empty batch', async () => {
      await subject.ledger.append([]);
      expect(await subject.stored()).toEqual([]);
    });

    test('skips an id it has, and keeps the first', async () => {
      await subject.ledger.append([usageEvent(1)]);
      await subject.ledger.append([usageEvent(1, { cost: nanoUsd(1n), outcome: 'aborted' })]);
      expect(await subject.stored()).toEqual([usageEvent(1)]);
    });

    test('skips an id that is twice in one batch', async () => {
      await subject.ledger.append([usageEvent(1), usageEvent(1), usageEvent(2)]);
      expect(await idsIn(subject)).toEqual([usageEvent(1).id, usageEvent(2).id]);
    });

    test('takes the new ones of a batch that was partly there', async () => {
      await subject.ledger.append(range(1, 10).map((number) => usageEvent(number)));
      await subject.ledger.append(range(5, 15).map((number) => usageEvent(number)));
      expect(await idsIn(subject)).toEqual(range(1, 15).map((number) => usageEvent(number).id));
    });

    test('takes batches of 500 with events of several tenants', async () => {
      const globex = parseTenantId('globex');
      if (!globex) throw new Error('globex is a tenant id');
      const batch = range(1, 500).map((number) => usageEvent(number, number % 2 === 0 ? { tenantId: globex } : {}));
      await subject.ledger.append(batch);
      expect((await sortedById(subject)).map(({ tenantId }) => tenantId)).toEqual(batch.map(({ tenantId }) => tenantId));
    });

    test('has each event once after concurrent replays of overlapping batches', async () => {
      const batches = [range(1, 60), range(30, 90), range(1, 90), range(60, 61)];
      await Promise.all(batches.map((numbers) => subject.ledger.append(numbers.map((number) => usageEvent(number)))));
      expect(await idsIn(subject)).toEqual(range(1, 90).map((number) => usageEvent(number).id));
    });

    test('has each event once after any sequence of batches and replays', async () => {
      const batches = fc.array(fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 8 }), { maxLength: 6 });
      await fc.assert(
        fc.asyncProperty(batches, async (sequence) => {
          await subject.clear();
          for (const numbers of sequence) await subject.ledger.append(numbers.map((number) => usageEvent(number)));
          const expected = [...new Set(sequence.flat())].sort((left, right) => left - right).map((number) => usageEvent(number).id);
          expect(await idsIn(subject)).toEqual(expected);
        }),
        { numRuns: 25 },
      );
    });
  });
}

async function sortedById(subject: LedgerUnderTest): Promise<readonly UsageEvent[]> {
  return [...(await subject.stored())].sort((left, right) => (left.id < right.id ? -1 : 1));
}

async function idsIn(subject: LedgerUnderTest): Promise<readonly string[]> {
  return (await sortedById(subject)).map(({ id }) => id);
}

function range(from: number, to: number): readonly number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}
