/** How a limit says no: which one, whose, how much of it is used, and when to come back. */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { formatUsd, nanoUsd } from '../primitives/money.ts';
import type { LimitDimension, LimitState, ReserveOutcome } from './limit-store.ts';
import { rateLimitHeaders } from './rate-limit-headers.ts';

const nouns: Readonly<Record<LimitDimension, string>> = {
  requests: 'requests',
  tokens: 'tokens',
  input_tokens: 'input tokens',
  output_tokens: 'output tokens',
  concurrency: 'concurrent requests',
  budget: 'dollars',
};

export function refusalOf(outcome: Exclude<ReserveOutcome, { readonly kind: 'reserved' }>): BulkheadError {
  switch (outcome.kind) {
    case 'denied':
      return denial(outcome);
    case 'too_large':
      return tooLarge(outcome.binding, outcome.requested);
    case 'exhausted':
      return exhaustion(outcome);
    case 'spent':
      throw new Error('a reservation id was used twice');
    default:
      return outcome satisfies never;
  }
}

function denial({ binding, used, retryAfterMs }: ReserveOutcome & { readonly kind: 'denied' }): BulkheadError {
  const { scope, dimension, limit } = binding;
  if (dimension === 'budget') {
    const message = `The rest of the ${scope}'s budget of ${usd(limit)} is set aside for requests that are running.`;
    return new BulkheadError('budget_reserved', message, { retryAfterMs, details: moneyDetails(binding, used) });
  }
  const details = { ...detailsOf(binding), used, reset_ms: binding.resetMs };
  const headers = rateLimitHeaders([binding]);
  if (dimension === 'concurrency') {
    const message = `The ${scope} has ${limit} requests running, which is its limit.`;
    return new BulkheadError('concurrency_limit_exceeded', message, { retryAfterMs, details, headers });
  }
  const message = `The ${scope}'s limit of ${limit} ${nouns[dimension]} a minute is reached. Try again in ${retryAfterMs} ms.`;
  return new BulkheadError('rate_limit_exceeded', message, { retryAfterMs, details, headers });
}

function tooLarge(binding: LimitState, requested: number): BulkheadError {
  const { scope, dimension, limit } = binding;
  return new BulkheadError(
    'request_too_large_for_limit',
    `The request needs ${requested} ${nouns[dimension]}; the ${scope}'s limit is ${limit} a minute, so no wait can help.`,
    { details: { ...detailsOf(binding), requested }, headers: rateLimitHeaders([binding]) },
  );
}

function exhaustion({ binding, used, requested }: ReserveOutcome & { readonly kind: 'exhausted' }): BulkheadError {
  const { scope, limit, resetMs } = binding;
  const left = limit - used;
  const why =
    left > 0
      ? `${usd(left)} of the ${scope}'s budget of ${usd(limit)} are left, and this request may cost ${usd(requested)}; a smaller max_tokens lowers that.`
      : `The ${scope}'s budget of ${usd(limit)} is spent.`;
  return new BulkheadError('budget_exceeded', `${why} A new period begins in ${Math.ceil(resetMs / 1_000)} s.`, {
    details: { ...moneyDetails(binding, used), requested_usd: formatUsd(nanoUsd(BigInt(requested))) },
  });
}

function detailsOf({ scope, dimension, limit }: LimitState) {
  return { limit: `${scope}.${dimension}`, scope, limit_value: limit };
}

/** Dollars as decimal strings, and numbers as whole micro-dollars. */
function moneyDetails({ scope, limit, resetMs }: LimitState, used: number) {
  return {
    limit: `${scope}.budget`,
    scope,
    limit_value: Math.floor(limit / 1_000),
    used: Math.ceil(used / 1_000),
    limit_usd: formatUsd(nanoUsd(BigInt(limit))),
    used_usd: formatUsd(nanoUsd(BigInt(used))),
    reset_ms: resetMs,
  };
}

/** `$5.00`, `$0.0123`: as many places as matter. */
function usd(amountNanoUsd: number): string {
  const dollars = amountNanoUsd / 1e9;
  return `$${dollars >= 0.01 ? dollars.toFixed(2) : dollars.toPrecision(2)}`;
}
