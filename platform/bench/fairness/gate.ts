import { table } from '../support/table.ts';

/** A promise and what came of it. */
export interface Gate {
  readonly name: string;
  readonly target: string;
  readonly measured: string;
  readonly holds: boolean;
}

export interface Finding {
  readonly title: string;
  readonly about: string;
  /** Markdown. */
  readonly tables: string;
  readonly gates: readonly Gate[];
  /** For the JSON of the results. */
  readonly raw: unknown;
}

/** A figure that could not be taken (NaN) holds nothing. */
export function atMost(name: string, measured: number, most: number, show: (value: number) => string): Gate {
  return { name, target: `at most ${show(most)}`, measured: show(measured), holds: measured <= most };
}

export function atLeast(name: string, measured: number, least: number, show: (value: number) => string): Gate {
  return { name, target: `at least ${show(least)}`, measured: show(measured), holds: measured >= least };
}

export function gatesTable(gates: readonly Gate[]): string {
  return table(
    ['gate', 'target', 'measured', 'verdict'],
    gates.map(({ name, target, measured, holds }) => [name, target, measured, holds ? 'holds' : '**missed**']),
  );
}

export function percent(part: number): string {
  return `${(100 * part).toFixed(2)} %`;
}

export function seconds(ms: number): string {
  return Number.isNaN(ms) ? '-' : `${(ms / 1_000).toFixed(2)} s`;
}

export function thousands(cost: number): string {
  return `${(cost / 1_000).toFixed(1)} k`;
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Of a sample. */
export function deviation(values: readonly number[]): number {
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / Math.max(1, values.length - 1));
}
