import { expect, test } from 'vitest';
import { quotaOf } from './quota-headers.ts';

const nowMs = Date.UTC(2026, 10, 27, 12);
const told = (name: string, limit: string, remaining: string, reset: string) => ({
  [`anthropic-ratelimit-${name}-limit`]: limit,
  [`anthropic-ratelimit-${name}-remaining`]: remaining,
  [`anthropic-ratelimit-${name}-reset`]: reset,
});

test('what Anthropic says of our limits is read as it is sent', () => {
  const headers = {
    ...told('requests', '50', '49', '2026-11-27T12:00:01Z'),
    ...told('input-tokens', '30000', '0', '2026-11-27T12:01:00.5Z'),
    ...told('output-tokens', '8000', '8000', '2026-11-27T12:00:00Z'),
  };
  expect(quotaOf(headers, nowMs)).toEqual({
    requests: { limit: 50, remaining: 49, resetMs: 1_000 },
    inputTokens: { limit: 30_000, remaining: 0, resetMs: 60_500 },
    outputTokens: { limit: 8_000, remaining: 8_000, resetMs: 0 },
  });
});

test.each(['soon', '12', '2026-11-27', '2026-13-99T99:99:99Z', '2026-11-27T11:59:59Z', ''])('a reset of %j is not believed', (reset) => {
  expect(quotaOf(told('requests', '50', '10', reset), nowMs)?.requests).toEqual({ limit: 50, remaining: 10, resetMs: undefined });
});

test.each([
  ['0', '0'],
  ['10', '11'],
  ['-1', '0'],
  ['ten', '1'],
])('a limit of %j with %j left is nothing', (limit, remaining) => {
  expect(quotaOf(told('tokens', limit, remaining, ''), nowMs)).toBeUndefined();
});
