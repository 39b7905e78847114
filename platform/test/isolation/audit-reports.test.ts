import { afterAll, beforeAll, expect, it } from 'vitest';
import { PostgresAuditRecords } from '../../src/adapters/postgres/audit-reports.ts';
import { ManualClock } from '../../src/primitives/clock.ts';
import type { AuditVerdict } from '../../src/tenancy/audit-records.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import { openTestDatabase, type TestDatabase } from '../support/embedded-database.ts';

const reportsMax = 12;
const operator = mintOperatorScope('test');
const clock = new ManualClock();
let test: TestDatabase;
let records: PostgresAuditRecords;
beforeAll(async () => {
  test = await openTestDatabase();
  records = new PostgresAuditRecords(test.database, clock, { reportsMax, leakReportDays: 30 });
});
afterAll(async () => {
  await test?.[Symbol.asyncDispose]();
});

const keep = (verdict: AuditVerdict) =>
  records.keep(operator, ({ number, previous }) => ({
    number,
    id: `audit_${number}`,
    kind: 'smoke',
    verdict,
    startedAtMs: clock.nowMs(),
    head: `head of ${number} after ${previous}`,
    text: '{}',
  }));
const numbers = async (beforeNumber?: number) => (await records.list(operator, { limit: 100, beforeNumber })).map(({ number }) => number);

it('follow each other by number, also from 9 to 10 and on', async () => {
  for (let count = 1; count <= reportsMax; count++) {
    const { number, head } = await keep(count === 2 ? 'LEAK' : 'PASS');
    expect(number).toBe(count);
    expect(head.startsWith(`head of ${count} after ${count === 1 ? 'null' : `head of ${count - 1}`}`)).toBe(true);
  }
  expect(await numbers()).toEqual([12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  expect(await numbers(10)).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1]);
});

it('go when they are too many, those of a leak when they are too old', async () => {
  await keep('PASS');
  expect(await numbers()).not.toContain(1);
  await keep('PASS');
  expect(await numbers()).toEqual([14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
  clock.advance(31 * 86_400_000);
  await keep('PASS');
  expect(await numbers()).toEqual([15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4]);
});
