/** A chat completion's request -> the AI SDK's call options. What has no place there is refused by name and never dropped. */
import type { JSONSchema7, LanguageModelV4CallOptions } from '@ai-sdk/provider';
import type { ProviderCall } from '../../inference/provider.ts';
import type { JsonObject } from '../../upstream/json-object.ts';
import { cachePartitionOf } from '../../upstream/prompt-cache.ts';
import { answerTokensMaxOf, assertTranslatable, stopsOf } from '../../upstream/request-parameters.ts';
import { unsupported } from '../../upstream/request-refusals.ts';
import { formatOf, toolsOf } from '../../upstream/request-tools.ts';
import { promptOf } from './call-prompt.ts';
import type { SdkTraits } from './sdk-models.ts';

/** Parameters of chat completions that `callOptions` reads, or which change nothing of the answer. */
const translated: readonly string[] = (
  'model messages stream stream_options max_tokens max_completion_tokens temperature top_p stop presence_penalty frequency_penalty ' +
  'seed tools tool_choice response_format reasoning_effort user safety_identifier prompt_cache_key'
).split(' ');

/** The provider's own default, in OpenAI's words. */
const serviceTiers: readonly unknown[] = ['auto', 'default'];

type Options = Omit<LanguageModelV4CallOptions, 'abortSignal'>;

/** Throws `unsupported_parameter` or `invalid_value`, each with the place at fault. */
export function callOptions(call: ProviderCall, { lacks, cachesUnasked }: SdkTraits): Options {
  const { service_tier: tier, ...body } = call.body;
  if (tier !== undefined && tier !== null && !serviceTiers.includes(tier)) throw unsupported('service_tier', 'this value of service_tier');
  assertTranslatable(body, new Set(translated.filter((name) => !lacks.has(name))));
  const maxOutputTokens = answerTokensMaxOf(body, call.outputTokensMax);
  const partition = cachesUnasked ? cachePartitionOf(call) : undefined;
  const stops = stopsOf(body) as string[];
  return {
    prompt: [...(partition === undefined ? [] : [{ role: 'system' as const, content: partition }]), ...promptOf(body['messages'])],
    ...(maxOutputTokens !== undefined && { maxOutputTokens }),
    ...(stops.length > 0 && { stopSequences: stops }),
    ...samplingOf(body, lacks),
    ...toolOptionsOf(body),
    ...responseFormatOf(body),
    ...reasoningOf(body),
  };
}

/** Zero penalties ask for nothing, and a package that cannot take them would refuse. */
function samplingOf(body: JsonObject, lacks: ReadonlySet<string>): Partial<Options> {
  const { temperature, top_p: topP, presence_penalty: presence, frequency_penalty: frequency, seed } = body;
  return {
    ...(typeof temperature === 'number' && { temperature }),
    ...(typeof topP === 'number' && { topP }),
    ...(typeof presence === 'number' && presence !== 0 && { presencePenalty: presence }),
    ...(typeof frequency === 'number' && frequency !== 0 && { frequencyPenalty: frequency }),
    ...(typeof seed === 'number' && !lacks.has('seed') && { seed }),
  };
}

function toolOptionsOf(body: JsonObject): Partial<Options> {
  const { functions, choice } = toolsOf(body);
  if (functions.length === 0) return {};
  const tools = functions.map(({ name, description, parameters, isStrict }) => ({
    type: 'function' as const,
    name,
    ...(description !== undefined && { description }),
    inputSchema: parameters as JSONSchema7,
    ...(isStrict && { strict: true }),
  }));
  if (choice === undefined) return { tools };
  return { tools, toolChoice: choice.type === 'function' ? { type: 'tool', toolName: choice.name } : { type: choice.type } };
}

function responseFormatOf(body: JsonObject): Partial<Options> {
  const { type, schema, name, description } = formatOf(body['response_format']);
  if (type === 'text') return {};
  return {
    responseFormat: {
      type: 'json',
      ...(schema !== undefined && { schema: schema as JSONSchema7 }),
      ...(name !== undefined && { name }),
      ...(description !== undefined && { description }),
    },
  };
}

const efforts = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh'] as const;

function reasoningOf({ reasoning_effort: effort }: JsonObject): Partial<Options> {
  if (effort === undefined || effort === null) return {};
  const reasoning = efforts.find((known) => known === effort);
  if (reasoning === undefined) throw unsupported('reasoning_effort', 'this value of reasoning_effort');
  return { reasoning };
}
