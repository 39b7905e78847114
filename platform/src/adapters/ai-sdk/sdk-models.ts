/**
 * Models of an AI SDK provider package (sdk.vercel.ai): a package translates between the SDK's own specification (`LanguageModelV4`) and one
 * provider's dialect. What it lacks and how it caches is ours to know.
 */
import type { EmbeddingModelV4, LanguageModelV4 } from '@ai-sdk/provider';
import { ConfigError } from '../../config/load.ts';
import type { AiSdkProviderConfig } from '../../config/schema.ts';

export interface SdkModels {
  languageModel(id: string): LanguageModelV4;
  embeddingModel?(id: string): EmbeddingModelV4;
}

/** Models whose requests go through `fetch` and nowhere else; `apiKey` in the place of the configured credentials. */
export type OpenSdk = (fetch: typeof globalThis.fetch, apiKey?: string) => SdkModels;

export interface SdkTraits {
  /** Parameters of OpenAI's that the package would drop, or cannot keep the promise of. */
  readonly lacks: ReadonlySet<string>;
  /** The provider keeps prompts by their beginning, for the whole account and unasked. */
  readonly cachesUnasked: boolean;
  /** Under `providerOptions`: what the package calls the size of an embedding. */
  readonly dimensionsOption?: { readonly provider: string; readonly name: string };
}

/** Of packages that come with us. Of another it is assumed that it drops nothing in silence (its warnings are refusals) and that the provider caches. */
const known: Readonly<Record<string, SdkTraits>> = {
  '@ai-sdk/google': {
    lacks: new Set(),
    cachesUnasked: true,
    dimensionsOption: { provider: 'google', name: 'outputDimensionality' },
  },
  '@ai-sdk/amazon-bedrock': {
    // Reasoning that is asked for has to come back, signed, with every tool result, and OpenAI's dialect has no place for it.
    lacks: new Set(['presence_penalty', 'frequency_penalty', 'reasoning_effort']),
    cachesUnasked: false,
    dimensionsOption: { provider: 'amazonBedrock', name: 'dimensions' },
  },
};

const unknownTraits: SdkTraits = { lacks: new Set(), cachesUnasked: true };

export function traitsOf(config: AiSdkProviderConfig): SdkTraits {
  const traits = Object.hasOwn(known, config.package) ? (known[config.package] ?? unknownTraits) : unknownTraits;
  return config.cachePartition === undefined ? traits : { ...traits, cachesUnasked: config.cachePartition };
}

/** Loads the package. Throws a ConfigError when it is not installed or of another kind. */
export async function loadSdk(config: AiSdkProviderConfig): Promise<OpenSdk> {
  const create = factoryIn(await importPackage(config), config);
  const { baseUrl: baseURL, apiKey: configured, settings } = config;
  // They become headers, and a package would throw at each call.
  if ([configured, ...Object.values(settings)].some((value) => typeof value === 'string' && /[^\x20-\x7e]/.test(value))) {
    throw misconfigured(config, 'was given a key or a setting with a character that no header may have');
  }
  const open: OpenSdk = (fetch, apiKey = configured) =>
    create({ ...settings, ...(apiKey !== undefined && { apiKey }), baseURL, fetch }) as SdkModels;
  const version = versionOf(open);
  if (version === undefined) throw misconfigured(config, 'makes no provider with language models');
  if (version !== 'v4') throw misconfigured(config, `speaks the AI SDK's specification ${version} and not v4: install another version`);
  return open;
}

/** Of a model that nobody asks. Undefined: what was made has none. */
function versionOf(open: OpenSdk): string | undefined {
  try {
    return String(open(refusedFetch).languageModel('any').specificationVersion);
  } catch {
    return undefined;
  }
}

const refusedFetch = () => Promise.reject(new Error('no request was expected'));

async function importPackage(config: AiSdkProviderConfig): Promise<Record<string, unknown>> {
  try {
    return (await import(config.package)) as Record<string, unknown>;
  } catch {
    throw misconfigured(config, `cannot be loaded: run \`npm install --workspace platform ${config.package}\``);
  }
}

/** A package exports one function that makes a provider, some by a second, longer name: `createMistral`. */
function factoryIn(exported: Record<string, unknown>, config: AiSdkProviderConfig): (settings: object) => unknown {
  const names = Object.keys(exported).filter((name) => /^create[A-Z]\w*$/.test(name) && typeof exported[name] === 'function');
  const [name] = names.toSorted((left, right) => left.length - right.length || left.localeCompare(right));
  if (name === undefined) throw misconfigured(config, 'makes no provider: it exports no function create…');
  return exported[name] as (settings: object) => unknown;
}

function misconfigured({ id, package: name }: AiSdkProviderConfig, what: string): ConfigError {
  return new ConfigError(`the provider ${id}`, [`package: ${name} ${what}`]);
}
