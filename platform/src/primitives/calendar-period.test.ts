import fc from 'fast-check';
import { expect, it } from 'vitest';
import { isTimeZone, type PeriodKind, periodAt } from './calendar-period.ts';

it.each([
  ['day', 'UTC', '2026-11-27T23:59:59.999Z', '2026-11-27', '2026-11-28T00:00:00.000Z'],
  ['day', 'Pacific/Auckland', '2026-11-27T12:00:00.000Z', '2026-11-28', '2026-11-28T11:00:00.000Z'],
  // 23 and 25 hours long.
  ['day', 'Europe/Berlin', '2026-03-29T00:00:00.000Z', '2026-03-29', '2026-03-29T22:00:00.000Z'],
  ['day', 'Europe/Berlin', '2026-10-25T12:00:00.000Z', '2026-10-25', '2026-10-25T23:00:00.000Z'],
  ['week', 'UTC', '2026-11-27T10:00:00.000Z', '2026-11-23/P7D', '2026-11-30T00:00:00.000Z'],
  ['week', 'UTC', '2026-11-23T00:00:00.000Z', '2026-11-23/P7D', '2026-11-30T00:00:00.000Z'],
  ['week', 'America/New_York', '2027-01-01T12:00:00.000Z', '2026-12-28/P7D', '2027-01-04T05:00:00.000Z'],
  ['month', 'Asia/Kolkata', '2026-10-31T18:30:00.000Z', '2026-11', '2026-11-30T18:30:00.000Z'],
  ['month', 'UTC', '2028-02-29T00:00:00.000Z', '2028-02', '2028-03-01T00:00:00.000Z'],
] as const)('a %s in %s at %s is %s', (kind, timeZone, at, id, end) => {
  const period = periodAt(kind, timeZone, Date.parse(at));
  expect(period.id).toBe(id);
  expect(new Date(period.endsAtMs).toISOString()).toBe(end);
});

it('is one period from its first moment to its last, also when the clock steps back, and another after it', () => {
  const kinds = fc.constantFrom<PeriodKind>('day', 'week', 'month');
  const zones = fc.constantFrom('UTC', 'Europe/Berlin', 'America/St_Johns', 'Australia/Lord_Howe', 'Pacific/Apia');
  const times = fc.integer({ min: Date.UTC(2026, 0, 1), max: Date.UTC(2036, 0, 1) });
  fc.assert(
    fc.property(kinds, zones, times, (kind, zone, atMs) => {
      const period = periodAt(kind, zone, atMs);
      expect(period.endsAtMs).toBeGreaterThan(atMs);
      expect(periodAt(kind, zone, period.endsAtMs - 1)).toMatchObject({ id: period.id, endsAtMs: period.endsAtMs });
      expect(periodAt(kind, zone, period.endsAtMs).id).not.toBe(period.id);
      expect(periodAt(kind, zone, atMs)).toMatchObject({ id: period.id, endsAtMs: period.endsAtMs });
    }),
    { numRuns: 100 },
  );
});

it('knows what a time zone is', () => {
  for (const name of ['UTC', 'Europe/Berlin', 'America/Argentina/Buenos_Aires']) expect(isTimeZone(name)).toBe(true);
  for (const name of ['', 'Mars/Olympus', 'Europe/Berlin; DROP', 'x'.repeat(100)]) expect(isTimeZone(name)).toBe(false);
});
