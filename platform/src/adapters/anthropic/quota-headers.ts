/**
 * `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` (platform.claude.com/docs/en/api/rate-limits); resets are moments in
 * RFC 3339. What cannot be read is as if it were not there: the numbers are a help and no contract.
 */
import type { QuotaLevel, QuotaReport } from '../../inference/provider.ts';
import type { UpstreamHead } from '../../upstream/upstream-head.ts';

type Headers = UpstreamHead['headers'];

const dimensions = {
  requests: 'requests',
  tokens: 'tokens',
  inputTokens: 'input-tokens',
  outputTokens: 'output-tokens',
} as const;

/** Undefined when nothing usable was told. `nowMs`: wall clock. */
export function quotaOf(headers: Headers, nowMs: number): QuotaReport | undefined {
  const levels = Object.entries(dimensions).flatMap(([dimension, name]) => {
    const level = levelOf(headers, name, nowMs);
    return level === undefined ? [] : [[dimension, level] as const];
  });
  return levels.length === 0 ? undefined : Object.fromEntries(levels);
}

function levelOf(headers: Headers, name: string, nowMs: number): QuotaLevel | undefined {
  const limit = amountIn(headers[`anthropic-ratelimit-${name}-limit`]);
  const remaining = amountIn(headers[`anthropic-ratelimit-${name}-remaining`]);
  if (limit === undefined || remaining === undefined || limit === 0 || remaining > limit) return undefined;
  return { limit, remaining, resetMs: untilIn(headers[`anthropic-ratelimit-${name}-reset`], nowMs) };
}

function amountIn(header: Headers[string]): number | undefined {
  return typeof header === 'string' && /^\d{1,12}$/.test(header) ? Number(header) : undefined;
}

function untilIn(header: Headers[string], nowMs: number): number | undefined {
  const isMoment = typeof header === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/.test(header);
  const untilMs = isMoment ? Date.parse(header) - nowMs : Number.NaN;
  return Number.isNaN(untilMs) || untilMs < 0 ? undefined : untilMs;
}
