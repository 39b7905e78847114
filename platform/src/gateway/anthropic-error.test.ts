import type Anthropic from '@anthropic-ai/sdk';
import { describe, expect, it } from 'vitest';
import type { LimitState } from '../admission/limit-store.ts';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { type ErrorCode, errorCatalogue, errorRule } from '../errors/catalogue.ts';
import { anthropicErrorAnswer, anthropicLimitHeaders } from './anthropic-error.ts';

const answerOf = (code: ErrorCode, options = {}) => anthropicErrorAnswer(new BulkheadError(code, 'why', options), 'req_1');
const typeOf = (code: ErrorCode) => (JSON.parse(answerOf(code).body) as Anthropic.ErrorResponse).error.type;

describe('anthropicErrorAnswer', () => {
  it.each<[ErrorCode, number, string]>([
    ['invalid_json', 400, 'invalid_request_error'],
    ['context_length_exceeded', 400, 'invalid_request_error'],
    ['upstream_rejected', 400, 'invalid_request_error'],
    ['invalid_api_key', 401, 'authentication_error'],
    ['token_expired', 401, 'authentication_error'],
    ['budget_exceeded', 402, 'billing_error'],
    ['tenant_suspended', 403, 'permission_error'],
    ['model_not_found', 404, 'not_found_error'],
    ['body_too_large', 413, 'request_too_large'],
    ['request_too_large_for_limit', 413, 'request_too_large'],
    ['rate_limit_exceeded', 429, 'rate_limit_error'],
    ['concurrency_limit_exceeded', 429, 'rate_limit_error'],
    ['budget_reserved', 429, 'rate_limit_error'],
    ['session_limit_exceeded', 429, 'rate_limit_error'],
    ['queue_full', 429, 'rate_limit_error'],
    ['queue_timeout', 429, 'rate_limit_error'],
    ['upstream_rate_limited', 429, 'rate_limit_error'],
    ['internal_error', 500, 'api_error'],
    ['upstream_error', 502, 'api_error'],
    ['database_unavailable', 503, 'api_error'],
    ['upstream_timeout', 504, 'timeout_error'],
    ['capacity_unavailable', 529, 'overloaded_error'],
    ['shutting_down', 529, 'overloaded_error'],
  ])('answers %s with %d %s', (code, status, type) => {
    expect({ status: answerOf(code).status, type: typeOf(code) }).toEqual({ status, type });
  });

  it('tells a robot the same as OpenAI’s dialect does, for every code there is', () => {
    for (const code of Object.keys(errorCatalogue) as ErrorCode[]) {
      const { shouldRetry } = errorRule(code);
      expect(answerOf(code).headers['x-should-retry'], code).toBe(shouldRetry === undefined ? undefined : String(shouldRetry));
      expect(answerOf(code).status, code).toBeGreaterThanOrEqual(400);
    }
  });

  it('has the shape of the API, with our code as the cause and details that cannot replace it', () => {
    const { body, headers } = answerOf('rate_limit_exceeded', { details: { scope: 'tenant', limit: 60, error_code: 'forged' } });
    const details = { scope: 'tenant', limit: 60, error_code: 'rate_limit_exceeded' };
    expect(JSON.parse(body)).toEqual({ type: 'error', error: { type: 'rate_limit_error', message: 'why', details }, request_id: 'req_1' });
    expect(headers['request-id']).toBe('req_1');
  });

  it.each([
    ['why', 'messages.0: why'],
    ['messages.0 must be an object', 'messages.0 must be an object'],
  ])('names the parameter in the text, once: %s', (message, expected) => {
    const { body } = anthropicErrorAnswer(new BulkheadError('invalid_value', message, { param: 'messages.0' }), 'req_1');
    expect((JSON.parse(body) as Anthropic.ErrorResponse).error.message).toBe(expected);
  });

  it.each([new Error('secret'), 'secret', undefined])('shows nothing of %s', (error) => {
    const { status, body } = anthropicErrorAnswer(error, 'req_1');
    expect(status).toBe(500);
    expect(body).not.toContain('secret');
  });

  it.each([
    [0, '1'],
    [1, '1'],
    [1_000, '1'],
    [1_001, '2'],
    [59_999, '60'],
    [-5, '1'],
  ])('rounds a wait of %d ms up to whole seconds', (retryAfterMs, seconds) => {
    const { headers } = answerOf('queue_full', { retryAfterMs });
    expect(headers).toEqual({ 'request-id': 'req_1', 'x-should-retry': 'true', 'retry-after': seconds });
  });

  it('says no time for a budget that is spent', () => {
    expect(answerOf('budget_exceeded', { retryAfterMs: 86_400_000 }).headers).toEqual({ 'request-id': 'req_1', 'x-should-retry': 'false' });
  });
});

describe('anthropicLimitHeaders', () => {
  const nowMs = Date.UTC(2026, 10, 27, 18, 0, 0, 400);
  const state = (dimension: LimitState['dimension'], remaining: number, resetMs: number): LimitState => ({
    scope: 'tenant',
    dimension,
    limit: 100,
    remaining,
    resetMs,
  });

  it('has the tightest scope of each kind, and when it is full again', () => {
    const states = [
      state('requests', 9, 1_000),
      state('requests', 3, 30_000),
      state('input_tokens', 50, 0),
      state('output_tokens', 7, 599),
    ];
    expect(anthropicLimitHeaders(states, nowMs)).toEqual({
      'anthropic-ratelimit-requests-limit': '100',
      'anthropic-ratelimit-requests-remaining': '3',
      'anthropic-ratelimit-requests-reset': '2026-11-27T18:00:31Z',
      'anthropic-ratelimit-input-tokens-limit': '100',
      'anthropic-ratelimit-input-tokens-remaining': '50',
      'anthropic-ratelimit-input-tokens-reset': '2026-11-27T18:00:01Z',
      'anthropic-ratelimit-output-tokens-limit': '100',
      'anthropic-ratelimit-output-tokens-remaining': '7',
      'anthropic-ratelimit-output-tokens-reset': '2026-11-27T18:00:01Z',
    });
  });

  it('says nothing of what has no limit', () => {
    expect(anthropicLimitHeaders([], nowMs)).toEqual({});
    expect(Object.keys(anthropicLimitHeaders([state('tokens', 1, 1)], nowMs))).toHaveLength(3);
  });
});
