import { describe, expect, it } from 'vitest';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { AssertionError } from '../primitives/assert.ts';
import { errorAnswer } from './openai-error.ts';

const bodyOf = (error: unknown) => (JSON.parse(errorAnswer(error, 'req_1').body) as { readonly error: unknown }).error;

describe('errorAnswer', () => {
  it('always has the five keys, and details beside them that cannot replace them', () => {
    const error = new BulkheadError('rate_limit_exceeded', 'too many', {
      details: { limit: 60, code: 'forged', param: 'forged', request_id: 'forged' },
    });
    expect(bodyOf(error)).toEqual({
      message: 'too many',
      type: 'rate_limit_error',
      param: null,
      code: 'rate_limit_exceeded',
      request_id: 'req_1',
      limit: 60,
    });
  });

  it.each([new Error('secret'), new AssertionError('secret'), 'secret', undefined, { code: 'not_found', message: 'secret' }])(
    'shows nothing of %s',
    (error) => {
      expect(errorAnswer(error, 'req_1')).toMatchObject({ status: 500, headers: {} });
      expect(bodyOf(error)).toEqual({
        message: 'The server had an error while processing the request.',
        type: 'server_error',
        param: null,
        code: 'internal_error',
        request_id: 'req_1',
      });
    },
  );

  it.each([
    [0, '1', '0'],
    [1, '1', '1'],
    [1_000, '1', '1000'],
    [1_000.2, '2', '1001'],
    [59_999, '60', '59999'],
    [-5, '1', '0'],
  ])('rounds a wait of %d ms up', (retryAfterMs, seconds, milliseconds) => {
    const { headers } = errorAnswer(new BulkheadError('queue_full', 'full', { retryAfterMs }), 'req_1');
    expect(headers).toEqual({ 'x-should-retry': 'true', 'retry-after': seconds, 'retry-after-ms': milliseconds });
  });

  it('says how to authenticate with 401', () => {
    expect(errorAnswer(new BulkheadError('invalid_api_key', 'no'), 'req_1').headers).toEqual({
      'x-should-retry': 'false',
      'www-authenticate': 'Bearer',
    });
  });
});
