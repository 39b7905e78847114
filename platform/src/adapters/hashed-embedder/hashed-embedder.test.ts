import { describe, expect, test } from 'vitest';
import { countTokens, encodeTokens } from '../../primitives/count-tokens.ts';
import { embedText } from './embed-text.ts';
import { HashedEmbedder } from './hashed-embedder.ts';

const embedder = new HashedEmbedder('local');
const { signal } = new AbortController();

function call(input: unknown, options: Record<string, unknown> = {}) {
  return { upstreamModel: 'local-hash-384', requestId: 'req_1', body: { model: 'local-hash-384', input, ...options } };
}

async function vectorsOf(input: unknown, options: Record<string, unknown> = {}): Promise<number[][]> {
  const { parsed } = await embedder.embed(call(input, options), signal);
  return (parsed['data'] as { embedding: number[] }[]).map((entry) => entry.embedding);
}

describe('the hashed embedder', () => {
  test('answers a list in order, with the tokens counted', async () => {
    const { parsed, body, usage } = await embedder.embed(call(['one', 'two words']), signal);
    expect(JSON.parse(body.toString())).toEqual(parsed);
    expect(parsed['data']).toEqual([
      { object: 'embedding', index: 0, embedding: [...embedText('one', 384)] },
      { object: 'embedding', index: 1, embedding: [...embedText('two words', 384)] },
    ]);
    expect(usage).toEqual({ inputTokens: countTokens('one') + countTokens('two words'), outputTokens: 0 });
  });

  test('takes tokens for text', async () => {
    const text = 'tokens are text';
    const fromText = await vectorsOf(text);
    expect(await vectorsOf(encodeTokens(text))).toEqual(fromText);
    expect(await vectorsOf([encodeTokens(text), encodeTokens(text)])).toEqual([...fromText, ...fromText]);
  });

  test('answers base64 of little-endian floats when asked', async () => {
    const { parsed } = await embedder.embed(call('text', { encoding_format: 'base64' }), signal);
    const [entry] = parsed['data'] as { embedding: string }[];
    const bytes = Buffer.from(entry?.embedding ?? '', 'base64');
    expect(Array.from({ length: 384 }, (_, index) => bytes.readFloatLE(index * 4))).toEqual([...embedText('text', 384)]);
  });

  test('has the dimensions of its name unless the request says otherwise', async () => {
    const wide = await embedder.embed({ ...call('text'), upstreamModel: 'local-hash-1024' }, signal);
    expect((wide.parsed['data'] as { embedding: number[] }[])[0]?.embedding).toHaveLength(1_024);
    expect((await vectorsOf('text', { dimensions: 64 }))[0]).toHaveLength(64);
    await expect(vectorsOf('text', { dimensions: 3_073 })).rejects.toMatchObject({ code: 'invalid_value', param: 'dimensions' });
  });

  test.each([[[1, 'a']], [[[1], ['a']]], [42], [[199_998]], [[-1]], [[1.5]]])('refuses the input %j', async (input) => {
    await expect(vectorsOf(input)).rejects.toMatchObject({ code: 'invalid_value', param: 'input' });
  });

  test('cannot chat and knows no other model', async () => {
    await expect(embedder.complete(call('x'))).rejects.toMatchObject({ code: 'model_not_found' });
    await expect(embedder.stream(call('x'))).rejects.toMatchObject({ code: 'model_not_found' });
    await expect(embedder.embed({ ...call('x'), upstreamModel: 'text-embedding-3-small' }, signal)).rejects.toMatchObject({
      code: 'model_not_found',
    });
  });

  test('stops between inputs when the caller has gone', async () => {
    const controller = new AbortController();
    const running = embedder.embed(call(Array.from({ length: 2_048 }, () => 'word '.repeat(20_000))), controller.signal);
    controller.abort(new Error('gone'));
    await expect(running).rejects.toThrow('gone');
  });
});
