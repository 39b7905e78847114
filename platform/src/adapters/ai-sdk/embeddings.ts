import type { EmbeddingModelV4, EmbeddingModelV4Result, SharedV4ProviderOptions } from '@ai-sdk/provider';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import { embeddingInputs } from '../../inference/embedding-input.ts';
import type { Completion, ProviderCall } from '../../inference/provider.ts';
import { countTokens } from '../../primitives/count-tokens.ts';
import { embeddingsAnswer } from '../../upstream/embeddings-answer.ts';
import { invalid, unsupported } from '../../upstream/request-refusals.ts';
import { assertNothingDropped } from './answer-values.ts';
import type { SdkTraits } from './sdk-models.ts';

/** Requests at once for one call, where a model takes few texts in each. */
const requestsMax = 4;

export interface EmbeddingSource {
  /** Undefined: the package has no embeddings. A model makes one request. */
  readonly open: (signal: AbortSignal) => EmbeddingModelV4 | undefined;
  readonly traits: SdkTraits;
  readonly signal: AbortSignal;
}

/** The answer to an embeddings request, in as many requests as the model needs. Tokens are refused: they are of a vocabulary that this model does not have. */
export async function embeddingsOf(call: ProviderCall, source: EmbeddingSource): Promise<Completion> {
  const { body } = call;
  const providerOptions = optionsOf(body['dimensions'], source.traits);
  const values = embeddingInputs(body['input']).map(textOf);
  const model = source.open(source.signal);
  if (model === undefined) throw noEmbeddings();
  const size = Math.max(1, Math.min((await model.maxEmbeddingsPerCall) ?? values.length, values.length));
  const parts = Array.from({ length: Math.ceil(values.length / size) }, (_, index) => values.slice(index * size, (index + 1) * size));
  const embeddings: (readonly number[])[] = [];
  let tokens = 0;
  const failed = new AbortController();
  const signal = AbortSignal.any([source.signal, failed.signal]);
  const next = parts.entries();
  const work = async () => {
    for (const [at, part] of next) {
      const embedded = await embed(source.open(signal) ?? model, part, { signal, providerOptions });
      for (const [offset, embedding] of embedded.embeddings.entries()) embeddings[at * size + offset] = embedding;
      tokens += embedded.usage?.tokens ?? Number.NaN;
    }
  };
  const workers = Array.from({ length: Math.min(requestsMax, parts.length) }, work);
  try {
    await Promise.all(workers);
  } catch (error) {
    failed.abort(error);
    await Promise.allSettled(workers);
    throw error;
  }
  return answerOf(call, { values, embeddings, tokens });
}

async function embed(
  model: EmbeddingModelV4,
  values: string[],
  { signal, providerOptions }: { readonly signal: AbortSignal; readonly providerOptions: SharedV4ProviderOptions | undefined },
): Promise<EmbeddingModelV4Result> {
  const answer = await model.doEmbed({ values, abortSignal: signal, ...(providerOptions && { providerOptions }) });
  assertNothingDropped(answer.warnings);
  if (answer.embeddings.length === values.length) return answer;
  const sent = `${answer.embeddings.length} embeddings for ${values.length} inputs`;
  throw new BulkheadError('embedding_failed', `The embedding provider sent ${sent}.`);
}

/** Some providers count no tokens: then ours are in the answer, and not in its usage, so that the event is marked estimated. */
function answerOf(
  { body, upstreamModel }: ProviderCall,
  {
    values,
    embeddings,
    tokens,
  }: { readonly values: readonly string[]; readonly embeddings: readonly (readonly number[])[]; readonly tokens: number },
): Completion {
  const isCounted = !Number.isNaN(tokens);
  const total = isCounted ? tokens : values.reduce((sum, text) => sum + countTokens(text), 0);
  const data = embeddings.map((embedding, index) => ({ object: 'embedding', index, embedding }));
  const answer = embeddingsAnswer(
    { object: 'list', data, model: upstreamModel, usage: { prompt_tokens: total, total_tokens: total } },
    body,
  );
  return isCounted ? answer : { ...answer, usage: undefined };
}

function optionsOf(dimensions: unknown, { dimensionsOption: option }: SdkTraits) {
  if (dimensions === undefined || dimensions === null) return undefined;
  if (option === undefined || typeof dimensions !== 'number') throw unsupported('dimensions', 'dimensions');
  return { [option.provider]: { [option.name]: dimensions } };
}

function textOf(input: unknown, index: number): string {
  if (typeof input === 'string') return input;
  if (Array.isArray(input)) throw unsupported('input', 'tokens instead of text');
  throw invalid(`input.${index}`, 'must be a text');
}

function noEmbeddings(): BulkheadError {
  return new BulkheadError('upstream_misconfigured', 'The model provider of this model has no embeddings. The operator has to act.');
}
