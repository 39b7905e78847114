import { describe, expect, it } from 'vitest';
import { dueAudit } from './isolation-audits.ts';

const settings = { intervalMinutes: 15, fullAtUtc: '03:00' };
const at = (text: string) => Date.parse(`2026-11-27T${text}:00Z`);
const due = (now: string, times: { readonly opened?: string; readonly last?: string; readonly full?: string }) =>
  dueAudit(settings, {
    nowMs: at(now),
    openedAtMs: at(times.opened ?? '00:00'),
    lastMs: times.last === undefined ? undefined : at(times.last),
    lastFullMs: times.full === undefined ? undefined : at(times.full),
  });

describe('a scheduled audit', () => {
  it('waits one interval after the start, and after the last run of anybody', () => {
    expect(due('10:14', { opened: '10:00' })).toBeUndefined();
    expect(due('10:14', { last: '10:00', full: '04:00' })).toBeUndefined();
    expect(due('10:15', { last: '10:00', full: '04:00' })).toBe('smoke');
  });

  it('is a full one once a day, from its time on', () => {
    expect(due('02:59', { last: '02:00', full: '00:10' })).toBe('smoke');
    expect(due('03:00', { last: '02:00', full: '00:10' })).toBe('full');
    expect(due('03:30', { last: '03:00', full: '03:00' })).toBe('smoke');
  });

  it('is a full one when there has been none', () => {
    expect(due('10:00', {})).toBe('full');
  });
});
