/** What became of one request, in simulated or in real time. All times in milliseconds on one clock. */
import type { ShedCause } from '../../src/scheduler/fairness-record.ts';

export interface Arrival {
  readonly tenant: string;
  readonly weight: number;
  readonly atMs: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
}

export type RefusalCause = ShedCause | 'requests_per_minute' | 'queue_full' | 'queue_timeout';

export interface Outcome extends Arrival {
  /** Present when it got a permit. Output streams evenly from the first token to the end. */
  readonly served?: { readonly startedAtMs: number; readonly firstTokenAtMs: number; readonly endedAtMs: number };
  readonly refused?: { readonly cause: RefusalCause; readonly atMs: number };
}

export interface Span {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** When it stopped waiting; one that waits to the end of the run, never. */
export function waitedUntilMs({ served, refused }: Outcome): number {
  return served?.startedAtMs ?? refused?.atMs ?? Number.POSITIVE_INFINITY;
}

export function costOf({ inputTokens, outputTokens }: Pick<Arrival, 'inputTokens' | 'outputTokens'>, outputTokenCost: number): number {
  return inputTokens + outputTokenCost * outputTokens;
}

/** The part of `span` between two moments, in milliseconds. */
export function overlapMs(span: Span, fromMs: number, untilMs: number): number {
  return Math.max(0, Math.min(span.untilMs, untilMs) - Math.max(span.fromMs, fromMs));
}
