/** Configured models and providers, with the built-in embedding stand-in beside them. */

import { readFileSync } from 'node:fs';
import { AiSdkProvider } from '../adapters/ai-sdk/ai-sdk-provider.ts';
import { AnthropicProvider } from '../adapters/anthropic/anthropic-provider.ts';
import { HashedEmbedder } from '../adapters/hashed-embedder/hashed-embedder.ts';
import { OpenAiCompatibleProvider } from '../adapters/openai-compatible/openai-compatible-provider.ts';
import { SimulatedProvider } from '../adapters/simulated/simulated-provider.ts';
import { embeddingDimensionsDefault } from '../config/retrieval-values.ts';
import type { Config, ModelConfig, ProviderConfig } from '../config/schema.ts';
import type { Provider } from '../inference/provider.ts';
import { builtInPriceFile, loadPriceBook, type PriceBook } from '../metering/price-book.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { EmbeddingSetting } from '../rag/reembed.ts';
import { type RetrievalWeights, standInDenseWeight, standInDenseWeightMax } from '../rag/retrieve.ts';

const localProviderId = 'local';
const localEmbeddingModel: ModelConfig = {
  id: 'local-hash-384',
  kind: 'embedding',
  deployments: [{ provider: localProviderId, model: 'local-hash-384', limits: { concurrency: 4 } }],
  contextTokens: 1_000_000,
  outputTokensMax: 1,
  dimensions: 384,
  price: { inputUsdPerMillion: 0, outputUsdPerMillion: 0 },
};

/** A configured model of the same id wins over the built-in one. */
export function modelsOf(config: Config): readonly ModelConfig[] {
  const isTaken = config.models.some((model) => model.id === localEmbeddingModel.id);
  return isTaken ? config.models : [...config.models, localEmbeddingModel];
}

export async function openProviders(config: Config, clock: Clock, ids: IdSource): Promise<readonly Provider[]> {
  const configured = await Promise.all(config.providers.map((provider) => openProvider(provider, clock, ids)));
  return [...configured, new HashedEmbedder(localProviderId)];
}

export async function openProvider(provider: ProviderConfig, clock: Clock, ids: IdSource): Promise<Provider> {
  switch (provider.kind) {
    case 'openai-compatible':
      return new OpenAiCompatibleProvider(provider, clock);
    case 'anthropic':
      return new AnthropicProvider(provider, clock);
    case 'ai-sdk':
      return AiSdkProvider.open(provider, clock);
    case 'simulated':
      return new SimulatedProvider(provider, { clock, ids });
    default:
      provider satisfies never;
      throw new Error('unknown kind of provider');
  }
}

export function openPriceBook(models: readonly ModelConfig[]): PriceBook {
  const configured = models.flatMap((model) => (model.price === undefined ? [] : [{ model: model.id, ...model.price }]));
  return loadPriceBook(readFileSync(builtInPriceFile, 'utf8'), configured);
}

/** The model vector stores are embedded by, or are going to be, and the size of its vectors. */
export function embeddingOf(config: Config): EmbeddingSetting {
  const model = modelsOf(config).find((entry) => entry.id === config.embedding.model);
  return { model: config.embedding.model, dimensions: model?.dimensions ?? embeddingDimensionsDefault };
}

/** Whether a store of this model and size can be searched and filled as the configuration is. */
export function canEmbed(config: Config, { model, dimensions }: EmbeddingSetting): boolean {
  const configured = modelsOf(config).find((entry) => entry.id === model);
  return configured?.kind === 'embedding' && (configured.dimensions ?? embeddingDimensionsDefault) === dimensions;
}

export function retrievalWeightsOf(config: Config, embeddingModel: string): RetrievalWeights {
  const isStandIn = embeddingModel === localEmbeddingModel.id;
  const dense = config.retrieval.denseWeight ?? (isStandIn ? standInDenseWeight : 1);
  return { dense: isStandIn ? Math.min(dense, standInDenseWeightMax) : dense, lexical: config.retrieval.lexicalWeight };
}
