import type { Brand } from './brand.ts';

/** Money as a whole number of nano-dollars (10^-9 USD). A bigint, so sums never drift and never overflow. */
export type NanoUsd = Brand<bigint, 'NanoUsd'>;

export const zeroNanoUsd = 0n as NanoUsd;

export function nanoUsd(amount: bigint): NanoUsd {
  return amount as NanoUsd;
}

export function addNanoUsd(left: NanoUsd, right: NanoUsd): NanoUsd {
  return (left + right) as NanoUsd;
}

/** Decimal dollars with nine places, for example `0.035000000`. */
export function formatUsd(amount: NanoUsd): string {
  const sign = amount < 0n ? '-' : '';
  const digits = (amount < 0n ? 0n - amount : amount).toString().padStart(10, '0');
  return `${sign}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}
