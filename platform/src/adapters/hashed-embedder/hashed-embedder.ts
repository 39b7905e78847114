/**
 * Adapter of the `Provider` port that embeds in this process, without a model: see `embed-text.ts` for what it is and is not worth.
 * Serves `local-hash-384` and `local-hash-1024`; `dimensions` in the body overrides.
 */
import { setImmediate } from 'node:timers/promises';
import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import type { Completion, Provider, ProviderCall } from '../../inference/provider.ts';
import { countTokens, decodeTokens } from '../../primitives/count-tokens.ts';
import { embedText } from './embed-text.ts';

const dimensionsMax = 3_072;
/** After this much text others get a turn; about 5 ms. */
const charactersPerTurn = 65_536;

export class HashedEmbedder implements Provider {
  readonly id: string;

  constructor(id: string) {
    this.id = id;
  }

  async embed({ body, upstreamModel }: ProviderCall, signal: AbortSignal): Promise<Completion> {
    const dimensions = dimensionsOf(upstreamModel, body['dimensions']);
    const texts = textsOf(body['input']);
    const asBase64 = body['encoding_format'] === 'base64';
    const data: unknown[] = [];
    let tokens = 0;
    let charactersInTurn = 0;
    for (const [index, text] of texts.entries()) {
      signal.throwIfAborted();
      const vector = embedText(text, dimensions);
      data.push({ object: 'embedding', index, embedding: asBase64 ? base64Of(vector) : [...vector] });
      tokens += countTokens(text);
      charactersInTurn += text.length;
      if (charactersInTurn < charactersPerTurn) continue;
      charactersInTurn = 0;
      await setImmediate();
    }
    const parsed = { object: 'list', data, model: upstreamModel, usage: { prompt_tokens: tokens, total_tokens: tokens } };
    return { body: Buffer.from(JSON.stringify(parsed)), parsed, usage: { inputTokens: tokens, outputTokens: 0 } };
  }

  async complete(call: ProviderCall): Promise<never> {
    throw noChat(call);
  }

  async stream(call: ProviderCall): Promise<never> {
    throw noChat(call);
  }

  async close(): Promise<void> {}
}

function noChat({ upstreamModel }: ProviderCall): BulkheadError {
  return new BulkheadError('model_not_found', `${quoteInput(upstreamModel)} embeds text and cannot chat.`, { param: 'model' });
}

function dimensionsOf(upstreamModel: string, asked: unknown): number {
  const named = /^local-hash-(384|1024)$/.exec(upstreamModel)?.[1];
  if (named === undefined) {
    throw new BulkheadError('model_not_found', `There is no embedding model ${quoteInput(upstreamModel)}.`, { param: 'model' });
  }
  if (asked === undefined || asked === null) return Number(named);
  if (typeof asked === 'number' && Number.isInteger(asked) && asked >= 1 && asked <= dimensionsMax) return asked;
  throw new BulkheadError('invalid_value', `dimensions must be a whole number from 1 to ${dimensionsMax}`, { param: 'dimensions' });
}

/** A string or one list of tokens is one input; a list of either is as many as it has. */
function textsOf(input: unknown): readonly string[] {
  if (!Array.isArray(input)) return [textOf(input)];
  return input.length > 0 && input.every((entry) => typeof entry === 'number') ? [textOf(input)] : input.map(textOf);
}

function textOf(input: unknown): string {
  if (typeof input === 'string') return input;
  if (Array.isArray(input) && input.every((entry) => typeof entry === 'number')) return textOfTokens(input);
  throw new BulkheadError('invalid_value', 'an input must be a string or a list of tokens', { param: 'input' });
}

function textOfTokens(tokens: readonly number[]): string {
  const vocabularySize = 200_000;
  if (tokens.every((token) => Number.isInteger(token) && token >= 0 && token < vocabularySize - 2)) return decodeTokens(tokens);
  throw new BulkheadError('invalid_value', `a token must be a whole number below ${vocabularySize}`, { param: 'input' });
}

/** Little-endian float32, as OpenAI's endpoint answers. */
function base64Of(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, index) => {
    bytes.writeFloatLE(value, index * 4);
  });
  return bytes.toString('base64');
}
