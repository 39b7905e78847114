import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatDecimal, parseDecimal, shiftDown, timesRate } from './decimal.ts';

describe('decimals', () => {
  test.each([
    ['2e-8', '0.00000002'],
    ['2E-08', '0.00000002'],
    ['1.25e-06', '0.00000125'],
    ['0.0', '0'],
    ['0e-999', '0'],
    ['12', '12'],
    ['1.50', '1.5'],
    ['3e2', '300'],
    ['4.5003000000000007e-07', '0.00000045003000000000007'],
  ])('%s is exactly %s', (text, expected) => {
    const amount = parseDecimal(text);
    expect(amount && formatDecimal(amount)).toBe(expected);
  });

  test.each(['', '-1', '+1', '.5', '1.', 'e5', '1e', 'NaN', 'Infinity', '0x1', '1_000', ' 1', '1e-100', '1e400', '9'.repeat(41)])(
    '%j is none',
    (text) => expect(parseDecimal(text)).toBeUndefined(),
  );

  test('read back as what they were written as', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 10n ** 30n }), fc.nat(30), (digits, scale) => {
        const back = parseDecimal(formatDecimal({ digits, scale }));
        if (!back) throw new Error('did not read back');
        expect(back.digits * 10n ** BigInt(scale)).toBe(digits * 10n ** BigInt(back.scale));
      }),
    );
  });
});

test('quantities times rates are rounded half up to whole nano-dollars', () => {
  const rate = (text: string) => parseDecimal(text) ?? { digits: 0n, scale: 0 };
  expect(timesRate(1, rate('0.0000000004'))).toBe(0n);
  expect(timesRate(1, rate('0.0000000005'))).toBe(1n);
  expect(timesRate(3, rate('0.0000000005'))).toBe(2n);
  expect(timesRate(8_000, rate('2e-8'))).toBe(160_000n);
  expect(timesRate(7, rate('3'))).toBe(21_000_000_000n);
  expect(timesRate(1, shiftDown(rate('0.15'), 6))).toBe(150n);
  expect(timesRate(Number.MAX_SAFE_INTEGER, rate('1e-60'))).toBe(0n);
});
