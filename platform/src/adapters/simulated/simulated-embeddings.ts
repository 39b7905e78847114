import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { embeddingInputs, isEmbeddingInput } from '../../inference/embedding-input.ts';
import type { Completion, ProviderCall } from '../../inference/provider.ts';
import { countTokens } from '../../primitives/count-tokens.ts';
import { encodeFloat32 } from '../../primitives/float32-base64.ts';
import { seededRandom } from '../../primitives/random.ts';
import { hashText } from './hash-text.ts';

const dimensionsDefault = 384;
const dimensionsMax = 3_072;

/** Vectors of the right shape and without meaning: equal inputs get equal vectors, all others are as good as orthogonal. */
export function simulateEmbeddings({ body, upstreamModel }: ProviderCall, seed: number): Completion {
  const inputs = embeddingInputs(body['input']);
  if (!inputs.every(isEmbeddingInput)) {
    throw new BulkheadError('upstream_rejected', 'an input must be a string or a list of tokens', { param: 'input' });
  }
  const asked = body['dimensions'];
  const dimensions = typeof asked === 'number' ? Math.min(Math.max(1, Math.floor(asked)), dimensionsMax) : dimensionsDefault;
  const data = inputs.map((input, index) => {
    const vector = randomDirection(hashText(JSON.stringify(input), seed), dimensions);
    return { object: 'embedding', index, embedding: body['encoding_format'] === 'base64' ? encodeFloat32(vector) : [...vector] };
  });
  const tokens = inputs.reduce((sum: number, input) => sum + (typeof input === 'string' ? countTokens(input) : input.length), 0);
  const parsed = { object: 'list', data, model: upstreamModel, usage: { prompt_tokens: tokens, total_tokens: tokens } };
  return { body: Buffer.from(JSON.stringify(parsed)), parsed, usage: { inputTokens: tokens, outputTokens: 0 } };
}

function randomDirection(seed: number, dimensions: number): Float32Array {
  const random = seededRandom(seed);
  const vector = Float32Array.from({ length: dimensions }, () => random.next() * 2 - 1);
  const length = Math.hypot(...vector) || 1;
  return vector.map((value) => value / length);
}
