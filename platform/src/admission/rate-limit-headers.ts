import type { LimitState } from './limit-store.ts';

/** OpenAI's `x-ratelimit-*`: for requests and tokens the scope with the least remaining; `reset` is a Go duration such as `1s` or `6m0s`. */
export function rateLimitHeaders(states: readonly LimitState[]): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const dimension of ['requests', 'tokens'] as const) {
    let tightest: LimitState | undefined;
    for (const state of states) {
      if (state.dimension === dimension && (tightest === undefined || state.remaining < tightest.remaining)) tightest = state;
    }
    if (tightest === undefined) continue;
    headers[`x-ratelimit-limit-${dimension}`] = String(tightest.limit);
    headers[`x-ratelimit-remaining-${dimension}`] = String(tightest.remaining);
    headers[`x-ratelimit-reset-${dimension}`] = goDuration(tightest.resetMs);
  }
  return headers;
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
