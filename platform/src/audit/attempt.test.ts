import { setTimeout as wait } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../primitives/clock.ts';
import { AuditBook, Pace, type ProbeFinding } from './attempt.ts';
import { verdictOf } from './audit-report.ts';
import { signTest } from './probes/timing.ts';

const finding = { id: 'V1', surface: 'chunks', attacker: 'a', victim: 'b', attempt: '', expected: '', got: '', ms: 1 } as const;
const verdict = (rest: Pick<ProbeFinding, 'control' | 'leaked' | 'unclear'>) => {
  const book = new AuditBook();
  book.add({ ...finding, ...rest });
  return book.results[0]?.verdict;
};

describe('a verdict', () => {
  it('is PASS only with its control, and LEAK with or without', () => {
    expect(verdict({ control: true, leaked: false })).toBe('PASS');
    expect(verdict({ control: false, leaked: false })).toBe('INCONCLUSIVE');
    expect(verdict({ control: true, leaked: false, unclear: true })).toBe('INCONCLUSIVE');
    expect(verdict({ control: false, leaked: true })).toBe('LEAK');
  });

  it('of a run is that of its worst probe, and of nothing no pass', () => {
    expect(verdictOf([{ verdict: 'PASS' }, { verdict: 'INCONCLUSIVE' }])).toBe('INCONCLUSIVE');
    expect(verdictOf([{ verdict: 'INCONCLUSIVE' }, { verdict: 'LEAK' }])).toBe('LEAK');
    expect(verdictOf([])).toBe('INCONCLUSIVE');
  });
});

describe('the pace of a run', () => {
  it('keeps the share of its busy time below the maximum, whatever the work takes', async () => {
    const pace = new Pace(systemClock, 0.2);
    for (let request = 0; request < 4; request++) await pace.spend(() => wait(5 + request * 5), new AbortController().signal);
    expect(pace.requests).toBe(4);
    expect(pace.share.busyMs).toBeGreaterThan(45);
    expect(pace.share.measured).toBeLessThanOrEqual(0.2);
  });

  it('ends its rest when the run is called off', async () => {
    const pace = new Pace(systemClock, 0.0001);
    await expect(pace.spend(async () => 'done', AbortSignal.timeout(20))).resolves.toBe('done');
  });
});

describe('the sign test', () => {
  it.each([
    [20, 40, 1],
    [40, 40, 2 / 2 ** 40],
    [0, 40, 2 / 2 ** 40],
    [4, 5, 0.375],
  ])('gives %i of %i a p of %d', (longer, pairs, p) => {
    expect(signTest(longer, pairs)).toBeCloseTo(p, 12);
  });

  it('is below the threshold at 33 of 40 and not at 32', () => {
    expect(signTest(33, 40)).toBeLessThan(0.0001);
    expect(signTest(32, 40)).toBeGreaterThan(0.0001);
  });
});
