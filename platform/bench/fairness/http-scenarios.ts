/**
 * The scenarios as two processors can carry them. A is unscaled. The others have requests of a quarter of the size, so that four times as many pass in the
 * same time, and rates that keep the overload: what is compared is free of both scales. The provider takes 10 ms a token and no time to the first.
 */
import { type Flow, fixedSize, lognormalSize } from './workload.ts';

export interface HttpScenario {
  readonly id: string;
  readonly title: string;
  readonly about: string;
  readonly flows: readonly Flow[];
  readonly compared: readonly string[];
  readonly quiet: readonly string[];
  /** Policies serve other mixes of sizes, whose tokens a second cannot be compared. */
  readonly hasMixedSizes: boolean;
  readonly quick: HttpForm;
  readonly full: HttpForm;
  readonly isInQuick: boolean;
}

interface HttpForm {
  readonly seconds: number;
  readonly firstComeSeconds: number;
}

export const permits = 32;
export const tokensPerSecond = 100;
export const waitMaxMs = 10_000;
export const warmupMs = 15_000;
/** The product's. */
export const outputTokenCost = 4;

/** The longest answer the simulated provider can be made to give exactly. */
const tokensMax = 1_024;
const large = lognormalSize({ inputTokens: 512, outputTokens: 512 }, 0.8, tokensMax);
const quarter = lognormalSize({ inputTokens: 128, outputTokens: 128 }, 0.8, tokensMax);
const good = Array.from({ length: 95 }, (_, index) => `good-${index}`);
const floods = Array.from({ length: 5 }, (_, index) => `flood-${index}`);
const usual = {
  hasMixedSizes: false,
  isInQuick: false,
  quick: { seconds: 45, firstComeSeconds: 40 },
  full: { seconds: 120, firstComeSeconds: 75 },
};

export const httpScenarios: readonly HttpScenario[] = [
  {
    ...usual,
    id: 'A',
    title: 'a quiet tenant of 0.5 requests a second beside one of 500',
    about: 'Unscaled but for answers of at most 1,024 tokens. Of fewer than 100 served requests the p99 is the longest wait.',
    flows: [
      { tenant: 'quiet', perSecond: 0.5, size: large },
      { tenant: 'noisy', perSecond: 500, size: large },
    ],
    compared: ['quiet', 'noisy'],
    quiet: ['quiet'],
    isInQuick: true,
    full: { seconds: 180, firstComeSeconds: 75 },
  },
  {
    ...usual,
    id: 'B',
    title: '16 in and 16 out against 256 and 256, 120 requests a second each',
    about: 'Scaled: sizes by 1/4. Tokens a second are not compared: the two queues serve other mixes.',
    flows: [
      { tenant: 'short', perSecond: 120, size: fixedSize(16, 16) },
      { tenant: 'long', perSecond: 120, size: fixedSize(256, 256) },
    ],
    compared: ['short', 'long'],
    quiet: [],
    hasMixedSizes: true,
    full: { seconds: 90, firstComeSeconds: 60 },
  },
  {
    ...usual,
    id: 'D',
    title: 'weights 1, 2 and 4, 40 requests a second each',
    about: 'Scaled: sizes by 1/4. The published gate is over ten minutes; this is as many requests in two and a half.',
    flows: [1, 2, 4].map((weight) => ({ tenant: `weight-${weight}`, weight, perSecond: 40, size: quarter })),
    compared: ['weight-1', 'weight-2', 'weight-4'],
    quiet: [],
    full: { seconds: 165, firstComeSeconds: 75 },
  },
  {
    ...usual,
    id: 'E',
    title: 'a tenant 10 s on (24 requests a second) and 10 s off, beside one of 48',
    about: 'Scaled: sizes by 1/4, periods by 1/6.',
    flows: [
      { tenant: 'on-off', perSecond: 24, onOffMs: 10_000, size: quarter },
      { tenant: 'steady', perSecond: 48, size: quarter },
    ],
    compared: ['on-off', 'steady'],
    quiet: [],
  },
  {
    ...usual,
    id: 'I',
    title: '5 tenants of 60 requests a second beside 95 at 45 % of their fair share',
    about:
      'Scaled: 32 slots instead of 128 and sizes by 1/4, so a fair share is 0.25 requests a second as in the original, and a flood 240 times of it.',
    flows: [
      ...floods.map((tenant) => ({ tenant, perSecond: 60, size: quarter })),
      ...good.map((tenant) => ({ tenant, perSecond: 0.1125, size: quarter })),
    ],
    compared: floods,
    quiet: good,
  },
];
