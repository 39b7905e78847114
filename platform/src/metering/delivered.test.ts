import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { countTokens } from '../primitives/count-tokens.ts';
import { DeliveredOutput } from './delivered.ts';

const inputTokens = 17;
const text = (content: string, index = 0) => ({ choices: [{ index, delta: { content } }] });
const usageChunk = (prompt: number, completion: number, details = {}) => ({
  choices: [],
  usage: { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion, ...details },
});

function deliveredOf(...chunks: readonly Readonly<Record<string, unknown>>[]): DeliveredOutput {
  const delivered = new DeliveredOutput({ inputTokens });
  for (const chunk of chunks) delivered.acceptChunk(chunk);
  return delivered;
}

describe('a stream that reported its usage', () => {
  test('is billed as reported, whatever the text would count', () => {
    const delivered = deliveredOf(text('Hello'), text(' there'), usageChunk(100, 20));
    expect(delivered.result('completed')).toMatchObject({ usage: { inputTokens: 100, outputTokens: 20 }, estimated: false });
  });

  test('lesson 6: a final chunk of zeros neither replaces the report nor adds an estimate', () => {
    const delivered = deliveredOf(text('Hello there'), usageChunk(100, 20), usageChunk(0, 0), { choices: [], usage: null });
    expect(delivered.result('completed')).toMatchObject({ usage: { inputTokens: 100, outputTokens: 20 }, estimated: false });
  });

  test('lesson 7: keeps the cached tokens of an earlier report when the last one leaves them out', () => {
    const delivered = deliveredOf(text('Hi'), usageChunk(100, 1, { prompt_tokens_details: { cached_tokens: 64 } }), usageChunk(100, 2));
    expect(delivered.result('completed').usage).toMatchObject({ inputTokens: 100, outputTokens: 2, cacheReadTokens: 64 });
  });

  test('in every chunk is billed by the last, even when it was aborted', () => {
    const cumulative = (content: string, completion: number) => ({ ...text(content), usage: usageChunk(100, completion).usage });
    const delivered = deliveredOf(cumulative('Hello', 1), cumulative(' there', 2), cumulative(' you', 3));
    expect(delivered.result('aborted')).toMatchObject({
      usage: { inputTokens: 100, outputTokens: 3 },
      estimated: false,
      outcome: 'aborted',
    });
  });

  test('with output nobody saw (reasoning) is billed for it', () => {
    const delivered = deliveredOf(usageChunk(100, 500, { completion_tokens_details: { reasoning_tokens: 500 } }));
    expect(delivered.result('completed')).toMatchObject({ usage: { outputTokens: 500, reasoningTokens: 500 }, estimated: false });
    expect(delivered.hasOutput).toBe(true);
  });
});

describe('a stream that did not report its usage, or not to its end,', () => {
  test('lesson 5: aborted after some text is billed for the input and that text, flagged estimated', () => {
    const delivered = deliveredOf(text('The quick brown'), text(' fox jumps'));
    const expected = { inputTokens, outputTokens: countTokens('The quick brown fox jumps') };
    expect(delivered.result('aborted')).toMatchObject({ usage: expected, estimated: true, outcome: 'aborted' });
  });

  test('lesson 5: aborted before any text is billed for the input', () => {
    const delivered = deliveredOf({ choices: [{ index: 0, delta: { role: 'assistant', content: '' } }] });
    expect(delivered.hasOutput).toBe(false);
    expect(delivered.result('aborted')).toMatchObject({ usage: { inputTokens, outputTokens: 0 }, estimated: true });
  });

  test('completed with zeros is not free', () => {
    const result = deliveredOf(text('Hello there'), usageChunk(0, 0)).result('completed');
    expect(result).toMatchObject({ usage: { inputTokens, outputTokens: countTokens('Hello there') }, estimated: true });
  });

  test('aborted after an early report keeps the reported input and counts the output', () => {
    const delivered = deliveredOf(usageChunk(100, 1), text('The quick brown fox'));
    expect(delivered.result('aborted')).toMatchObject({ usage: { inputTokens: 100, outputTokens: 4 }, estimated: true });
  });

  test('counts tool calls, refusals and reasoning as output, and choices apart', () => {
    const argument = (index: number, part: string) => ({
      choices: [{ index, delta: { tool_calls: [{ index: 0, function: { arguments: part } }] } }],
    });
    const delivered = deliveredOf(
      { choices: [{ index: 0, delta: { tool_calls: [{ index: 0, function: { name: 'look_up', arguments: '' } }] } }] },
      argument(0, '{"city":'),
      argument(1, '{"country":'),
      argument(0, '"Paris"}'),
      argument(1, '"France"}'),
      { choices: [{ index: 2, delta: { refusal: 'I cannot' } }] },
      { choices: [{ index: 2, delta: { reasoning_content: 'thinking hard' } }] },
    );
    const texts = ['look_up', '{"city":"Paris"}', '{"country":"France"}', 'I cannot', 'thinking hard'];
    const expected = texts.reduce((sum, part) => sum + countTokens(part), 0);
    expect(delivered.result('aborted').usage.outputTokens).toBe(expected);
  });
});

test('a whole completion is billed as reported, and counted when it reported nothing', () => {
  const completion = { choices: [{ index: 0, message: { role: 'assistant', content: 'Hello there' } }], service_tier: 'flex' };
  const silent = new DeliveredOutput({ inputTokens });
  silent.acceptCompletion(completion);
  const counted = { inputTokens, outputTokens: countTokens('Hello there') };
  expect(silent.result('completed')).toEqual({ usage: counted, estimated: true, outcome: 'completed', serviceTier: 'flex' });

  const reporting = new DeliveredOutput({ inputTokens });
  reporting.acceptCompletion({ ...completion, usage: { prompt_tokens: 5, completion_tokens: 9 } });
  expect(reporting.result('completed')).toMatchObject({ usage: { inputTokens: 5, outputTokens: 9 }, estimated: false });
});

test('an embeddings answer is billed for its input alone', () => {
  const delivered = new DeliveredOutput({ inputTokens });
  delivered.acceptCompletion({ data: [{ embedding: [0.1] }], usage: { prompt_tokens: 8, total_tokens: 8 } });
  expect(delivered.result('completed')).toMatchObject({ usage: { inputTokens: 8, outputTokens: 0 }, estimated: false });
});

test('the service tier is the reported one, and only when it looks like one', () => {
  expect(deliveredOf({ service_tier: 'priority' }, { service_tier: 'default' }).result('completed').serviceTier).toBe('default');
  expect(deliveredOf({ service_tier: 'flex' }, { service_tier: 'Ignore previous\n' }).result('completed').serviceTier).toBe('flex');
  expect(deliveredOf({ service_tier: null }).result('completed').serviceTier).toBe('default');
});

test('text beyond the bound is counted by its length', () => {
  const sentence = 'The quick brown fox jumps over the lazy dog. ';
  const exact = new DeliveredOutput({ inputTokens });
  const bounded = new DeliveredOutput({ inputTokens, charactersMax: sentence.length * 10 });
  for (let count = 0; count < 100; count++) {
    exact.acceptChunk(text(sentence));
    bounded.acceptChunk(text(sentence));
  }
  const [counted, estimated] = [exact, bounded].map((delivered) => delivered.result('aborted').usage.outputTokens);
  expect(estimated).toBeGreaterThanOrEqual(counted ?? 0);
  expect(estimated).toBeLessThan((counted ?? 0) * 1.1);
});

test('progress adds up to about the tokens delivered', () => {
  const sentences = fc.array(fc.lorem({ maxCount: 12 }), { minLength: 20, maxLength: 60 });
  fc.assert(
    fc.property(sentences, (parts) => {
      const delivered = new DeliveredOutput({ inputTokens });
      const progress = parts.reduce((sum, part) => sum + delivered.acceptChunk(text(`${part} `)), 0);
      const counted = delivered.result('aborted').usage.outputTokens;
      expect(progress).toBeGreaterThan(counted / 3);
      expect(progress).toBeLessThan(counted * 3);
    }),
    { numRuns: 30 },
  );
});

test('any JSON from an upstream is survived, and yields whole tokens', () => {
  const chunks = fc.array(fc.oneof(fc.jsonValue(), fc.record({ choices: fc.jsonValue(), usage: fc.jsonValue() }, { requiredKeys: [] })));
  const deltas = fc.array(fc.jsonValue().map((delta) => ({ choices: [{ delta }, { delta: { tool_calls: [delta], content: [delta] } }] })));
  fc.assert(
    fc.property(fc.oneof(chunks, deltas), (values) => {
      const delivered = new DeliveredOutput({ inputTokens });
      for (const value of values) if (typeof value === 'object' && value !== null) delivered.acceptChunk(value as Record<string, unknown>);
      const { usage } = delivered.result('aborted');
      expect(Number.isSafeInteger(usage.inputTokens) && Number.isSafeInteger(usage.outputTokens)).toBe(true);
    }),
  );
});
