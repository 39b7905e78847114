/**
 * Scenarios A, B, D, E, G and I. Rates, weights, slots and pauses are those published with the policy study the product's queue is based on; it does not
 * give sizes and speeds. Here a token takes 10 ms and sizes are around 512 in and 512 out, which reproduce its utilisations under RPM (0.26 in A, 0.52 in I)
 * and its differences under FCFS (616 k in D, 2.2 M in B) at 300 s.
 */
import type { Span } from './outcome.ts';
import { pausesIn } from './slot-simulation.ts';
import { type Flow, fixedSize, lognormalSize } from './workload.ts';

export interface Scenario {
  readonly id: string;
  readonly title: string;
  readonly permits: number;
  readonly flows: readonly Flow[];
  /** Tenants always or often backlogged, between which maxD is taken. */
  readonly compared: readonly string[];
  /** Those within their share. */
  readonly quiet: readonly string[];
  readonly requestsPerMinute: number;
  readonly pauses?: (span: Span) => readonly Span[];
  /** Hundreds of requests a second: fewer seeds. */
  readonly isHeavy?: boolean;
  /** When its gate is over a time of its own. */
  readonly durationMs?: number;
}

const usual = lognormalSize({ inputTokens: 512, outputTokens: 512 }, 0.8);
const good = Array.from({ length: 95 }, (_, index) => `good-${index}`);
const floods = Array.from({ length: 5 }, (_, index) => `flood-${index}`);

export const scenarios: readonly Scenario[] = [
  {
    id: 'A',
    title: 'a quiet tenant of 0.5 requests a second beside one of 500, 32 slots',
    permits: 32,
    flows: [
      { tenant: 'quiet', perSecond: 0.5, size: usual },
      { tenant: 'noisy', perSecond: 500, size: usual },
    ],
    compared: ['quiet', 'noisy'],
    quiet: ['quiet'],
    requestsPerMinute: 60,
    isHeavy: true,
  },
  {
    id: 'B',
    title: '64 in and 64 out against 1,024 and 1,024, 30 requests a second each, 32 slots',
    permits: 32,
    flows: [
      { tenant: 'short', perSecond: 30, size: fixedSize(64, 64) },
      { tenant: 'long', perSecond: 30, size: fixedSize(1_024, 1_024) },
    ],
    compared: ['short', 'long'],
    quiet: [],
    requestsPerMinute: 60,
  },
  {
    id: 'D',
    title: 'weights 1, 2 and 4, 12 requests a second each, 32 slots, over ten minutes',
    permits: 32,
    flows: [1, 2, 4].map((weight) => ({ tenant: `weight-${weight}`, weight, perSecond: 12, size: usual })),
    compared: ['weight-1', 'weight-2', 'weight-4'],
    quiet: [],
    requestsPerMinute: 60,
    durationMs: 630_000,
  },
  {
    id: 'E',
    title: 'a tenant 60 s on (6 requests a second) and 60 s off, beside one of 12, 32 slots',
    permits: 32,
    flows: [
      { tenant: 'on-off', perSecond: 6, onOffMs: 60_000, size: usual },
      { tenant: 'steady', perSecond: 12, size: usual },
    ],
    compared: ['on-off', 'steady'],
    quiet: [],
    requestsPerMinute: 60,
  },
  pausing('G', 'fixed sizes', fixedSize(50, 1_000), fixedSize(50, 100)),
  pausing(
    'G, varied',
    'lognormal sizes',
    lognormalSize({ inputTokens: 50, outputTokens: 1_000 }, 0.8),
    lognormalSize({ inputTokens: 50, outputTokens: 100 }, 0.8),
  ),
  {
    id: 'I',
    title: '5 tenants of 60 requests a second beside 95 at 45 % of their fair share, 128 slots',
    permits: 128,
    flows: [
      ...floods.map((tenant) => ({ tenant, perSecond: 60, size: usual })),
      ...good.map((tenant) => ({ tenant, perSecond: 0.107, size: usual })),
    ],
    compared: floods,
    quiet: good,
    requestsPerMinute: 30,
    isHeavy: true,
  },
];

function pausing(id: string, sizes: string, long: Flow['size'], short: Flow['size']): Scenario {
  return {
    id,
    title: `the upstream pauses 10 s in every 60 s; 50 in and 1,000 out against 50 and 100 (${sizes}), 30 requests a second each, 32 slots`,
    permits: 32,
    flows: [
      { tenant: 'long', perSecond: 30, size: long },
      { tenant: 'short', perSecond: 30, size: short },
    ],
    compared: ['long', 'short'],
    quiet: [],
    requestsPerMinute: 60,
    pauses: (span) => pausesIn(span, 60_000, 10_000),
  };
}
