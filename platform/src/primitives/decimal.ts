import { type NanoUsd, nanoUsd } from './money.ts';

/** An exact non-negative decimal: `digits × 10^-scale`. Prices per token are far below what a double multiplies without drift. */
export interface Decimal {
  readonly digits: bigint;
  /** 0 to 60. */
  readonly scale: number;
}

const scaleMax = 60;
const decimalPattern = /^(\d{1,40})(?:\.(\d{1,40}))?(?:[eE]([+-]?\d{1,3}))?$/;

/** Reads `0.00000002`, `2e-8` or `1.25E-06` exactly; undefined for anything else, negative numbers included. */
export function parseDecimal(text: string): Decimal | undefined {
  const match = decimalPattern.exec(text);
  if (!match) return undefined;
  const [, whole = '', fraction = '', exponent = '0'] = match;
  const digits = BigInt(whole + fraction);
  const scale = fraction.length - Number(exponent);
  if (digits === 0n) return { digits, scale: 0 };
  if (scale > scaleMax || scale < -scaleMax) return undefined;
  return scale >= 0 ? { digits, scale } : { digits: digits * 10n ** BigInt(-scale), scale: 0 };
}

/** Plain notation without trailing zeros, for example `0.00000002`. */
export function formatDecimal({ digits, scale }: Decimal): string {
  if (scale === 0) return digits.toString();
  const padded = digits.toString().padStart(scale + 1, '0');
  const fraction = padded.slice(-scale).replace(/0+$/, '');
  const whole = padded.slice(0, -scale);
  return fraction === '' ? whole : `${whole}.${fraction}`;
}

/** `amount × 10^-places`, exactly. */
export function shiftDown(amount: Decimal, places: number): Decimal {
  return { digits: amount.digits, scale: amount.scale + places };
}

/**
 * `quantity` × dollars each, rounded half up to whole nano-dollars: what commerce does with amounts that are never negative. The error is
 * at most half a nano-dollar, so a billion roundings are off by 50 cents at the very worst.
 */
export function timesRate(quantity: number, usdEach: Decimal): NanoUsd {
  const exact = BigInt(quantity) * usdEach.digits;
  if (usdEach.scale <= 9) return nanoUsd(exact * powerOfTen(9 - usdEach.scale));
  const divisor = powerOfTen(usdEach.scale - 9);
  return nanoUsd((exact + divisor / 2n) / divisor);
}

const powersOfTen: readonly bigint[] = Array.from({ length: scaleMax + 16 }, (_, exponent) => 10n ** BigInt(exponent));

function powerOfTen(exponent: number): bigint {
  return powersOfTen[exponent] ?? 10n ** BigInt(exponent);
}
