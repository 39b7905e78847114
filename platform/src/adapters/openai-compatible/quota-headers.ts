/**
 * `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` as OpenAI sends them (platform.openai.com/docs/guides/rate-limits) and many after it; resets are durations like
 * `1s`, `6m0s`, `12ms`. What cannot be read is as if it were not there: the numbers are a help and no contract.
 */
import type { QuotaLevel, QuotaReport } from '../../inference/provider.ts';
import type { UpstreamHead } from '../../upstream/upstream-head.ts';

type Headers = UpstreamHead['headers'];

/** Undefined when nothing usable was told. */
export function quotaOf(headers: Headers): QuotaReport | undefined {
  const requests = levelOf(headers, 'requests');
  const tokens = levelOf(headers, 'tokens');
  return requests === undefined && tokens === undefined ? undefined : { requests, tokens };
}

function levelOf(headers: Headers, dimension: 'requests' | 'tokens'): QuotaLevel | undefined {
  const limit = amountIn(headers[`x-ratelimit-limit-${dimension}`]);
  const remaining = amountIn(headers[`x-ratelimit-remaining-${dimension}`]);
  if (limit === undefined || remaining === undefined || limit === 0 || remaining > limit) return undefined;
  return { limit, remaining, resetMs: durationIn(headers[`x-ratelimit-reset-${dimension}`]) };
}

function amountIn(header: Headers[string]): number | undefined {
  return typeof header === 'string' && /^\d{1,12}$/.test(header) ? Number(header) : undefined;
}

const duration = /^(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?$/;

/** Milliseconds. */
function durationIn(header: Headers[string]): number | undefined {
  const parts = typeof header === 'string' && header !== '' ? duration.exec(header) : null;
  if (parts === null) return undefined;
  const [days = 0, hours = 0, minutes = 0, seconds = 0, milliseconds = 0] = parts.slice(1).map((part) => Number(part ?? 0));
  return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000 + milliseconds;
}
