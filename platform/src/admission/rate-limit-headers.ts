/**
 * What an answer says of the limits it counted for: OpenAI's `x-ratelimit-*`, and `RateLimit-Policy` with `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10. Of each
 * dimension the scope with the least remaining is shown, and never whose it is: there is no partition key.
 */
import type { LimitDimension, LimitState } from './limit-store.ts';

interface Policy {
  readonly dimension: LimitDimension;
  readonly name: string;
  /** Parameters of a quota (draft, section 3): seconds of its window and its unit, `requests` where there is none. Tokens have none in the registry of units. */
  readonly parameters: string;
}

const policies: readonly Policy[] = [
  { dimension: 'requests', name: 'rpm', parameters: ';w=60' },
  { dimension: 'tokens', name: 'tpm', parameters: ';w=60;qu="tokens"' },
  { dimension: 'input_tokens', name: 'itpm', parameters: ';w=60;qu="tokens"' },
  { dimension: 'output_tokens', name: 'otpm', parameters: ';w=60;qu="tokens"' },
  { dimension: 'concurrency', name: 'concurrency', parameters: ';qu="concurrent-requests"' },
];

export function rateLimitHeaders(states: readonly LimitState[]): Record<string, string> {
  const headers: Record<string, string> = {};
  const quotas: string[] = [];
  const limits: string[] = [];
  for (const { dimension, name, parameters } of policies) {
    const state = tightestOf(states, dimension);
    if (state === undefined) continue;
    quotas.push(`"${name}";q=${state.limit}${parameters}`);
    const resets = dimension === 'concurrency' ? '' : `;t=${Math.ceil(state.resetMs / 1_000)}`;
    limits.push(`"${name}";r=${state.remaining}${resets}`);
    if (dimension === 'requests' || dimension === 'tokens') addOpenAiHeaders(headers, dimension, state);
  }
  if (quotas.length > 0) {
    headers['ratelimit-policy'] = quotas.join(', ');
    headers['ratelimit'] = limits.join(', ');
  }
  return headers;
}

function tightestOf(states: readonly LimitState[], dimension: LimitDimension): LimitState | undefined {
  let tightest: LimitState | undefined;
  for (const state of states) {
    if (state.dimension === dimension && (tightest === undefined || state.remaining < tightest.remaining)) tightest = state;
  }
  return tightest;
}

/** `reset` is a Go duration such as `1s` or `6m0s`. */
function addOpenAiHeaders(
  headers: Record<string, string>,
  dimension: 'requests' | 'tokens',
  { limit, remaining, resetMs }: LimitState,
): void {
  headers[`x-ratelimit-limit-${dimension}`] = String(limit);
  headers[`x-ratelimit-remaining-${dimension}`] = String(remaining);
  headers[`x-ratelimit-reset-${dimension}`] = goDuration(resetMs);
}

/** As Go prints durations: `12ms`, `1.5s`, `6m0s`, `1h0m0s`. */
export function goDuration(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))}ms`;
  const seconds = Math.round(ms) / 1_000;
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  const rest = `${minutes % 60}m${Math.round(seconds % 60) % 60}s`;
  return minutes < 60 ? rest : `${Math.floor(minutes / 60)}h${rest}`;
}
