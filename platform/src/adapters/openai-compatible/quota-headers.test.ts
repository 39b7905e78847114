import { describe, expect, test } from 'vitest';
import { quotaOf } from './quota-headers.ts';

describe('what a provider says of our limits', () => {
  test('is read as it is sent', () => {
    expect(
      quotaOf({
        'x-ratelimit-limit-requests': '60',
        'x-ratelimit-remaining-requests': '59',
        'x-ratelimit-reset-requests': '1s',
        'x-ratelimit-limit-tokens': '150000',
        'x-ratelimit-remaining-tokens': '0',
        'x-ratelimit-reset-tokens': '6m0s',
      }),
    ).toEqual({
      requests: { limit: 60, remaining: 59, resetMs: 1_000 },
      tokens: { limit: 150_000, remaining: 0, resetMs: 360_000 },
    });
  });

  test.each([
    ['12ms', 12],
    ['7.66s', 7_660],
    ['2m59.56s', 179_560],
    ['1h0m1s', 3_601_000],
    ['1d', 86_400_000],
    ['', undefined],
    ['soon', undefined],
    ['-1s', undefined],
    ['1e9s', undefined],
    ['99999999999999999s', undefined],
  ])('resets in %j', (reset, ms) => {
    const headers = { 'x-ratelimit-limit-tokens': '10', 'x-ratelimit-remaining-tokens': '1', 'x-ratelimit-reset-tokens': reset };
    expect(quotaOf(headers)?.tokens?.resetMs).toBe(ms);
  });

  test.each([
    ['nothing', undefined, undefined],
    ['only a limit', '10', undefined],
    ['words', 'many', 'few'],
    ['a negative number', '10', '-1'],
    ['a limit of zero', '0', '0'],
    ['more than the limit', '10', '11'],
    ['a number without end', '9'.repeat(400), '1'],
  ])('is nothing when it is %s', (_name, limit, remaining) => {
    expect(quotaOf({ 'x-ratelimit-limit-requests': limit, 'x-ratelimit-remaining-requests': remaining })).toBeUndefined();
  });
});
