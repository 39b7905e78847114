/**
 * Adapter of the `Provider` port that embeds in this process, without a model: see `embed-text.ts` for what it is and is not worth.
 * Serves `local-hash-384` and `local-hash-1024`; `dimensions` in the body overrides.
 */
import { setImmediate } from 'node:timers/promises';
import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import { embeddingInputs, isEmbeddingInput } from '../../inference/embedding-input.ts';
import type { Completion, Provider, ProviderCall } from '../../inference/provider.ts';
import { countTokens, decodeTokens } from '../../primitives/count-tokens.ts';
import { encodeFloat32 } from '../../primitives/float32-base64.ts';
import { embedText } from './embed-text.ts';

const dimensionsMax = 3_072;
/** After this much text others get a turn; about 1 ms, most of it for counting tokens. */
const charactersPerTurn = 2_048;

export class HashedEmbedder implements Provider {
  readonly id: string;

  constructor(id: string) {
    this.id = id;
  }

  async embed({ body, upstreamModel }: ProviderCall, signal: AbortSignal): Promise<Completion> {
    const dimensions = dimensionsOf(upstreamModel, body['dimensions']);
    const texts = embeddingInputs(body['input']).map(textOf);
    const asBase64 = body['encoding_format'] === 'base64';
    const data: unknown[] = [];
    let tokens = 0;
    let charactersInTurn = 0;
    for (const [index, text] of texts.entries()) {
      signal.throwIfAborted();
      const vector = embedText(text, dimensions);
      data.push({ object: 'embedding', index, embedding: asBase64 ? encodeFloat32(vector) : [...vector] });
      tokens += countTokens(text);
      charactersInTurn += text.length;
      if (charactersInTurn < charactersPerTurn) continue;
      charactersInTurn = 0;
      await setImmediate();
    }
    const parsed = { object: 'list', data, model: upstreamModel, usage: { prompt_tokens: tokens, total_tokens: tokens } };
    return {
      // Ingestion never asks for it, and writing 64 vectors out takes 3 ms.
      get body() {
        return Buffer.from(JSON.stringify(parsed));
      },
      parsed,
      usage: { inputTokens: tokens, outputTokens: 0 },
    };
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

function textOf(input: unknown): string {
  if (!isEmbeddingInput(input))
    throw new BulkheadError('invalid_value', 'an input must be a string or a list of tokens', { param: 'input' });
  return typeof input === 'string' ? input : textOfTokens(input);
}

function textOfTokens(tokens: readonly number[]): string {
  const vocabularySize = 200_000;
  if (tokens.every((token) => token < vocabularySize - 2)) return decodeTokens(tokens);
  throw new BulkheadError('invalid_value', `a token must be a whole number below ${vocabularySize}`, { param: 'input' });
}
