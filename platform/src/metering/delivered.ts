/**
 * What an upstream delivered for one request, and so what is billed for it, however it ended: the usage it reported, or else what
 * we count ourselves. Lessons 5 to 7 of the field: an aborted stream is billed for what arrived, a final chunk of zeros overrides
 * nothing, and cached tokens keep their details.
 */
import { countTokens } from '../primitives/count-tokens.ts';
import { extractUsage, type TokenUsage } from '../primitives/token-usage.ts';
import type { UsageEvent } from './usage-event.ts';

type JsonObject = Readonly<Record<string, unknown>>;

export interface DeliveredResult {
  readonly usage: TokenUsage;
  /** Some of the tokens were counted by us. */
  readonly estimated: boolean;
  readonly outcome: UsageEvent['outcome'];
  /** As the upstream reported it; `default` when it did not. */
  readonly serviceTier: string;
}

export interface DeliveredOptions {
  /** Tokens of the request by our own estimate, used when the upstream reports none. */
  readonly inputTokens: number;
  /** Text kept for counting; what goes beyond is counted by its length, in the proportion found in the text kept. */
  readonly charactersMax?: number;
}

const charactersMaxDefault = 256 * 1_024;
const channelsMax = 256;
/** English has about 4 bytes a token, Chinese 3 to 5 (o200k, measured); only progress and overflow are estimated so. */
const bytesPerToken = 4;

export class DeliveredOutput {
  readonly #inputEstimate: number;
  readonly #charactersMax: number;
  /** Text by choice and kind, because fragments of different choices interleave and must not be joined. */
  readonly #channels = new Map<string, string>();
  #keptCharacters = 0;
  #overflowCharacters = 0;
  #bytes = 0;
  #progressTokens = 0;
  #reported: TokenUsage | undefined;
  #reportCoversText = true;
  #serviceTier = 'default';
  #countedTokens: number | undefined;

  constructor({ inputTokens, charactersMax = charactersMaxDefault }: DeliveredOptions) {
    this.#inputEstimate = inputTokens;
    this.#charactersMax = charactersMax;
  }

  /** Something was generated that the provider will charge for. */
  get hasOutput(): boolean {
    return this.#bytes > 0 || (this.#reported?.outputTokens ?? 0) > 0;
  }

  /** Takes one parsed chat-completion chunk. Returns about how many output tokens it added, for progress reports; they add up. */
  acceptChunk(chunk: JsonObject): number {
    this.#acceptChoices(chunk['choices'], 'delta');
    this.#acceptFacts(chunk, extractUsage(chunk['usage']));
    const tokens = Math.ceil(this.#bytes / bytesPerToken) - this.#progressTokens;
    this.#progressTokens += tokens;
    return tokens;
  }

  /** Takes a whole chat completion or embeddings answer; `usage` when the provider has read it already. */
  acceptCompletion(completion: JsonObject, usage: TokenUsage | undefined = extractUsage(completion['usage'])): void {
    this.#acceptChoices(completion['choices'], 'message');
    this.#acceptFacts(completion, usage);
  }

  /** What to bill. Counts text only when the upstream's report is missing or older than the last text: at most 0.2 s then. */
  result(outcome: UsageEvent['outcome']): DeliveredResult {
    const reported = this.#reported;
    const facts = { outcome, serviceTier: this.#serviceTier };
    if (reported && reported.inputTokens > 0 && this.#isOutputReported(reported)) return { usage: reported, estimated: false, ...facts };
    const usage = {
      ...reported,
      inputTokens: reported?.inputTokens || this.#inputEstimate,
      outputTokens: Math.max(reported?.outputTokens ?? 0, this.#countText()),
    };
    return { usage, estimated: true, ...facts };
  }

  #isOutputReported(reported: TokenUsage): boolean {
    return this.#bytes === 0 || (reported.outputTokens > 0 && this.#reportCoversText);
  }

  #acceptFacts(answer: JsonObject, usage: TokenUsage | undefined): void {
    const tier = answer['service_tier'];
    if (typeof tier === 'string' && /^[a-z][a-z0-9_-]{0,31}$/.test(tier)) this.#serviceTier = tier;
    if (!usage) return;
    this.#reported = lastNonZero(this.#reported, usage);
    this.#reportCoversText = true;
  }

  #acceptChoices(choices: unknown, field: 'delta' | 'message'): void {
    if (!Array.isArray(choices)) return;
    for (const [position, choice] of choices.entries()) {
      if (!isObject(choice)) continue;
      const index = typeof choice['index'] === 'number' ? choice['index'] : position;
      const message = choice[field];
      if (isObject(message)) for (const [channel, text] of textsOf(message)) this.#keep(`${index}:${channel}`, text);
    }
  }

  #keep(channel: string, text: string): void {
    if (text === '') return;
    this.#bytes += Buffer.byteLength(text);
    this.#reportCoversText = false;
    this.#countedTokens = undefined;
    const kept = this.#channels.get(channel);
    const hasRoom = this.#keptCharacters + text.length <= this.#charactersMax && (kept !== undefined || this.#channels.size < channelsMax);
    if (!hasRoom) {
      this.#overflowCharacters += text.length;
      return;
    }
    this.#keptCharacters += text.length;
    this.#channels.set(channel, (kept ?? '') + text);
  }

  #countText(): number {
    if (this.#countedTokens !== undefined) return this.#countedTokens;
    let tokens = 0;
    for (const text of this.#channels.values()) tokens += countTokens(text);
    const tokensPerCharacter = this.#keptCharacters === 0 ? 1 / bytesPerToken : tokens / this.#keptCharacters;
    this.#countedTokens = tokens + Math.ceil(this.#overflowCharacters * tokensPerCharacter);
    return this.#countedTokens;
  }
}

/** A later report refines an earlier one field by field; a zero or an absent field says nothing. */
function lastNonZero(earlier: TokenUsage | undefined, later: TokenUsage): TokenUsage {
  if (!earlier) return later;
  return {
    inputTokens: later.inputTokens || earlier.inputTokens,
    outputTokens: later.outputTokens || earlier.outputTokens,
    cacheReadTokens: later.cacheReadTokens || earlier.cacheReadTokens,
    cacheWrite5mTokens: later.cacheWrite5mTokens || earlier.cacheWrite5mTokens,
    cacheWrite1hTokens: later.cacheWrite1hTokens || earlier.cacheWrite1hTokens,
    reasoningTokens: later.reasoningTokens || earlier.reasoningTokens,
    inputAudioTokens: later.inputAudioTokens || earlier.inputAudioTokens,
    outputAudioTokens: later.outputAudioTokens || earlier.outputAudioTokens,
  };
}

/** Everything in a message or delta that the model generated, by kind. */
function* textsOf(message: JsonObject): Generator<readonly [channel: string, text: string]> {
  for (const field of ['content', 'refusal', 'reasoning_content', 'reasoning'] as const) {
    const value = message[field];
    if (typeof value === 'string') yield [field, value];
    else if (Array.isArray(value)) for (const part of value) yield [field, stringAt(part, 'text')];
  }
  const { audio, function_call: functionCall, tool_calls: toolCalls } = message;
  if (audio !== undefined) yield ['audio', stringAt(audio, 'transcript')];
  if (functionCall !== undefined) yield* callTexts(functionCall, 'function_call');
  if (!Array.isArray(toolCalls)) return;
  for (const [position, call] of toolCalls.entries()) {
    if (!isObject(call)) continue;
    const index = typeof call['index'] === 'number' ? call['index'] : position;
    yield* callTexts(call['function'], `tool:${index}`);
    yield* callTexts(call['custom'], `tool:${index}`);
  }
}

function* callTexts(call: unknown, channel: string): Generator<readonly [channel: string, text: string]> {
  yield [`${channel}:name`, stringAt(call, 'name')];
  yield [channel, stringAt(call, 'arguments')];
  yield [channel, stringAt(call, 'input')];
}

function stringAt(parent: unknown, key: string): string {
  const value = isObject(parent) ? parent[key] : undefined;
  return typeof value === 'string' ? value : '';
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null;
}
