import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { FairRequest } from './fair-request.ts';
import { WaitingLine } from './waiting-line.ts';

interface Tenant {
  queuedBytes: number;
  readonly weight: number;
  readonly backlogIn: undefined;
  readonly backlogRank: number;
  readonly backlogFrom: number;
  readonly backlogTo: number;
}

function request(tenant: Tenant, bytes: number, arrivedAtMs: number): FairRequest {
  const session = { user: { tenant } };
  return { ticket: { bytes }, session, arrivedAtMs, older: undefined, newer: undefined } as unknown as FairRequest;
}

// Planted: a ranking of before that still counts; one that is never let go; a tenant that waited when it was made and is not in it.
test('whoever is asked for has a queue at least a quarter as long for its weight as the longest, also when memory is short again', () => {
  const step = fc.record({
    tenant: fc.nat(7),
    bytes: fc.integer({ min: 1, max: 5_000 }),
    act: fc.constantFrom('comes', 'comes', 'leaves', 'asks', 'empties'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const line = new WaitingLine();
      const fresh = { queuedBytes: 0, backlogIn: undefined, backlogRank: -1, backlogFrom: 0, backlogTo: Number.MIN_VALUE };
      const tenants: Tenant[] = Array.from({ length: 8 }, (_, index) => ({ ...fresh, weight: [1, 4, 8][index % 3] as number }));
      let waiting: FairRequest[] = [];
      for (const [index, { tenant, bytes, act }] of steps.entries()) {
        if (act === 'comes') {
          const each = request(tenants[tenant] as Tenant, bytes, index);
          waiting.push(each);
          line.add(each);
        } else if (act === 'leaves' && waiting.length > 0) line.remove(waiting.splice(bytes % waiting.length, 1)[0] as FairRequest);
        else if (act === 'empties') {
          for (const each of waiting) line.remove(each);
          waiting = [];
        } else if (act === 'asks') {
          const found = line.ranking.longest();
          const longest = Math.max(...tenants.map(({ queuedBytes, weight }) => queuedBytes / weight));
          expect(found === undefined).toBe(waiting.length === 0);
          if (found !== undefined) expect(found.queuedBytes / found.weight).toBeGreaterThanOrEqual(longest / 4);
        }
      }
      expect(line.bytes).toBe(waiting.reduce((sum, { ticket }) => sum + ticket.bytes, 0));
    }),
    { numRuns: 500 },
  );
});
