/** What `bulkhead demo noisy` shows: the live table, and what came of it. */
import type { Caller, Phase, PoolView, Seen } from './demo-load.ts';
import { printable, table } from './output.ts';

export interface DemoFrame {
  readonly phase: Phase;
  /** Seconds. */
  readonly left: number;
  readonly callers: readonly Caller[];
  readonly noisy: string;
  readonly pool: PoolView | undefined;
}

export interface DemoSummary {
  readonly noisy: { readonly tenant: string; readonly answered: number; readonly refused: number; readonly waitP50Ms: number };
  readonly quiet: readonly {
    readonly tenant: string;
    readonly answered: number;
    readonly refused: number;
    readonly aloneP50Ms: number;
    readonly floodedP50Ms: number;
    readonly waitP50Ms: number;
    readonly waitMaxMs: number;
  }[];
}

export function demoView({ phase, left, callers, noisy, pool }: DemoFrame): string {
  const title =
    phase === 'alone'
      ? `Everybody asks now and then. ${printable(noisy)} begins to flood in ${left} s.`
      : `${printable(noisy)} floods with 100 requests at once. ${left} s to go.`;
  const slots =
    pool === undefined ? '' : `  slots ${bar(pool.in_flight, pool.capacity)} ${pool.in_flight}/${pool.capacity}   waiting ${pool.queued}`;
  const rows = callers.map((caller) => {
    const seen = caller.seen[phase];
    const now = pool?.tenants.find(({ tenant }) => tenant === caller.tenant);
    return [
      caller.tenant === noisy && phase === 'flooded' ? `${caller.tenant} (noisy)` : caller.tenant,
      caller.tier,
      now?.weight ?? '-',
      now?.in_flight ?? 0,
      now?.queued ?? 0,
      percent(now?.entitled_share ?? undefined),
      percent(now?.received_share),
      seen.answered,
      seen.refused,
      seconds(percentile(seen.waitsMs, 0.5)),
      seconds(percentile(seen.totalsMs, 0.5)),
    ];
  });
  const headings = [
    'tenant',
    'tier',
    'weight',
    'running',
    'waiting',
    'entitled',
    'received',
    'answered',
    'refused',
    'waited p50',
    'answer p50',
  ];
  return ['', `  ${title}`, slots, '', table(headings, rows)].join('\n');
}

export function summaryOf(callers: readonly Caller[], noisy: string): DemoSummary {
  const flooder = callers.find(({ tenant }) => tenant === noisy)?.seen.flooded;
  return {
    noisy: {
      tenant: noisy,
      answered: flooder?.answered ?? 0,
      refused: flooder?.refused ?? 0,
      waitP50Ms: Math.round(percentile(flooder?.waitsMs ?? [], 0.5)),
    },
    quiet: callers
      .filter(({ tenant }) => tenant !== noisy)
      .map(({ tenant, seen: { alone, flooded } }) => ({ tenant, ...quietOf(alone, flooded) })),
  };
}

export function verdictOf({ noisy, quiet }: DemoSummary): string {
  const lines = quiet.map(
    ({ tenant, aloneP50Ms, floodedP50Ms, waitP50Ms, waitMaxMs, refused }) =>
      `  ${printable(tenant)}: an answer took ${seconds(aloneP50Ms)} alone and ${seconds(floodedP50Ms)} beside the flood (waited ${seconds(waitP50Ms)}, at most ${seconds(waitMaxMs)}; ${refused} refused)`,
  );
  return [
    '',
    `${printable(noisy.tenant)} got ${noisy.answered} answers, each after waiting ${seconds(noisy.waitP50Ms)}, and ${noisy.refused} refusals. The others:`,
    ...lines,
    '',
    'See it as JSON, or as a stream: GET /admin/v1/fairness.',
  ].join('\n');
}

function quietOf(alone: Seen, flooded: Seen) {
  return {
    answered: flooded.answered,
    refused: flooded.refused,
    aloneP50Ms: Math.round(percentile(alone.totalsMs, 0.5)),
    floodedP50Ms: Math.round(percentile(flooded.totalsMs, 0.5)),
    waitP50Ms: Math.round(percentile(flooded.waitsMs, 0.5)),
    waitMaxMs: Math.round(percentile(flooded.waitsMs, 1)),
  };
}

function percentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
}

function bar(used: number, of: number): string {
  const width = 20;
  const filled = of === 0 ? 0 : Math.round((Math.min(used, of) / of) * width);
  return `${'█'.repeat(filled)}${'░'.repeat(width - filled)}`;
}

function percent(share: number | undefined): string {
  return share === undefined ? '-' : `${Math.round(share * 100)} %`;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(2)} s`;
}
