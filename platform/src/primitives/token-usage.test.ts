import { describe, expect, test } from 'vitest';
import { extractUsage, tokensReportedMax } from './token-usage.ts';

describe('reported usage is read from', () => {
  test('a chat completion with all details', () => {
    const usage = extractUsage({
      prompt_tokens: 100,
      completion_tokens: 50,
      total_tokens: 150,
      prompt_tokens_details: { cached_tokens: 80, audio_tokens: 5 },
      completion_tokens_details: { reasoning_tokens: 20, audio_tokens: 3, accepted_prediction_tokens: 1 },
    });
    expect(usage).toEqual({
      inputTokens: 100,
      outputTokens: 50,
      cacheReadTokens: 80,
      reasoningTokens: 20,
      inputAudioTokens: 5,
      outputAudioTokens: 3,
    });
  });

  test('an embedding', () => expect(extractUsage({ prompt_tokens: 8, total_tokens: 8 })).toEqual({ inputTokens: 8, outputTokens: 0 }));

  test('a response', () => {
    const reported = {
      input_tokens: 9,
      input_tokens_details: { cached_tokens: 4 },
      output_tokens: 2,
      output_tokens_details: { reasoning_tokens: 1 },
    };
    expect(extractUsage(reported)).toEqual({ inputTokens: 9, outputTokens: 2, cacheReadTokens: 4, reasoningTokens: 1 });
  });

  test.each([
    ['DeepSeek', { prompt_cache_hit_tokens: 3 }, { cacheReadTokens: 3 }],
    ['Moonshot', { cached_tokens: 3 }, { cacheReadTokens: 3 }],
    ['LiteLLM', { cache_read_input_tokens: 3, cache_creation_input_tokens: 2 }, { cacheReadTokens: 3, cacheWrite5mTokens: 2 }],
    [
      'a split of cache writes by lifetime',
      { cache_creation_input_tokens: 3, cache_creation: { ephemeral_5m_input_tokens: 1, ephemeral_1h_input_tokens: 2 } },
      { cacheWrite5mTokens: 1, cacheWrite1hTokens: 2 },
    ],
  ])('the cache fields of %s', (_name, fields, expected) => {
    expect(extractUsage({ prompt_tokens: 9, completion_tokens: 1, ...fields })).toEqual({ inputTokens: 9, outputTokens: 1, ...expected });
  });
});

test('reasoning that is in the total but not in the completion tokens is added to the output, and only then', () => {
  const details = { completion_tokens_details: { reasoning_tokens: 40 } };
  expect(extractUsage({ prompt_tokens: 10, completion_tokens: 5, total_tokens: 55, ...details })?.outputTokens).toBe(45);
  expect(extractUsage({ prompt_tokens: 10, completion_tokens: 45, total_tokens: 55, ...details })?.outputTokens).toBe(45);
});

test.each([
  undefined,
  null,
  'prompt_tokens',
  [],
  {},
  { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 },
  { prompt_tokens: '10' },
  { prompt_tokens: -1 },
  { prompt_tokens: 1.5 },
  { prompt_tokens: Number.NaN },
  { prompt_tokens: tokensReportedMax + 1 },
])('%j reports nothing', (reported) => expect(extractUsage(reported)).toBeUndefined());

test('the largest count is taken', () => {
  expect(extractUsage({ prompt_tokens: tokensReportedMax })?.inputTokens).toBe(tokensReportedMax);
});
