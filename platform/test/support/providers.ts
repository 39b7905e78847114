/** Providers for tests, with everything at its most predictable unless a test says otherwise. */
import { SimulatedProvider, type SimulatedProviderOptions } from '../../src/adapters/simulated/simulated-provider.ts';
import type {
  AiSdkProviderConfig,
  AnthropicProviderConfig,
  OpenAiCompatibleProviderConfig,
  SimulatedProviderConfig,
} from '../../src/config/schema.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { countingIds } from '../../src/primitives/ids.ts';
import { secretKey } from './anthropic-upstream.ts';
import { bedrockSecret } from './bedrock-upstream.ts';
import { geminiKey } from './gemini-upstream.ts';

/** At once, without limits or faults. */
export function simulated(
  config: Partial<SimulatedProviderConfig> = {},
  options: Partial<SimulatedProviderOptions> = {},
): SimulatedProvider {
  return new SimulatedProvider(
    {
      id: 'sim',
      kind: 'simulated',
      seed: 1,
      concurrency: 1_000_000,
      timeToFirstTokenMs: 0,
      tokensPerSecond: 1e9,
      rateLimitRate: 0,
      errorRate: 0,
      stallRate: 0,
      ...config,
    },
    { clock: systemClock, ids: countingIds(), ...options },
  );
}

export function openAiConfig(baseUrl: string, config: Partial<OpenAiCompatibleProviderConfig> = {}): OpenAiCompatibleProviderConfig {
  return {
    id: 'openai',
    kind: 'openai-compatible',
    baseUrl,
    apiKey: 'sk-secret-of-the-operator',
    headersTimeoutMs: 5_000,
    idleTimeoutMs: 5_000,
    connectionsMax: 64,
    promptCacheSalt: false,
    ...config,
  };
}

/** `baseUrl` of a `ScriptedUpstream`, whose `/v1` this provider adds itself. */
export function anthropicConfig(baseUrl: string, config: Partial<AnthropicProviderConfig> = {}): AnthropicProviderConfig {
  return {
    id: 'anthropic',
    kind: 'anthropic',
    baseUrl: baseUrl.replace(/\/v1$/, ''),
    apiKey: secretKey,
    headersTimeoutMs: 5_000,
    idleTimeoutMs: 5_000,
    connectionsMax: 64,
    promptCache: false,
    ...config,
  };
}

/** Google's package; `baseUrl` of a `ScriptedUpstream`. */
export function geminiConfig(baseUrl: string, config: Partial<AiSdkProviderConfig> = {}): AiSdkProviderConfig {
  return {
    id: 'gemini',
    kind: 'ai-sdk',
    package: '@ai-sdk/google',
    baseUrl,
    apiKey: geminiKey,
    settings: {},
    headersTimeoutMs: 5_000,
    idleTimeoutMs: 5_000,
    connectionsMax: 64,
    cachePartition: undefined,
    ...config,
  };
}

/** Amazon's, with keys that sign. */
export function bedrockConfig(baseUrl: string, config: Partial<AiSdkProviderConfig> = {}): AiSdkProviderConfig {
  const settings = { region: 'eu-central-1', accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: bedrockSecret };
  return geminiConfig(baseUrl, { id: 'bedrock', package: '@ai-sdk/amazon-bedrock', apiKey: undefined, settings, ...config });
}
