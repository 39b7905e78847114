/**
 * Adapter of the `Provider` port that simulates a provider in this process: pace, limits, faults, tokens and shapes are those of a real
 * one, the words are not. Everything follows from the seed: text from the seed and the prompt, latencies and faults from the seed and
 * the order of the calls. With no time to the first token and a rate beyond any clock it runs without timers.
 */
import type { SimulatedProviderConfig } from '../../config/schema.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import {
  type Completion,
  type CompletionEvent,
  type CompletionStream,
  type Provider,
  type ProviderCall,
  UpstreamRefusal,
} from '../../inference/provider.ts';
import type { Clock } from '../../primitives/clock.ts';
import type { IdSource } from '../../primitives/ids.ts';
import { type Random, seededRandom } from '../../primitives/random.ts';
import { extractUsage, type TokenUsage } from '../../primitives/token-usage.ts';
import { logNormal } from './answer-text.ts';
import { type CallIds, ChunkWriter, type CompletionHead, completionOf } from './completion-shape.ts';
import { type Draft, draftChoice, outputLimit, type Piece } from './draft.ts';
import { hashText } from './hash-text.ts';
import { Pacer } from './pacer.ts';
import { type Prompt, readPrompt } from './prompt.ts';
import { PromptCache } from './prompt-cache.ts';
import { Quota } from './quota.ts';
import { simulateEmbeddings } from './simulated-embeddings.ts';

export interface SimulatedProviderOptions {
  readonly clock: Clock;
  readonly ids: IdSource;
  /** Repeats all it was given and calls every tool with every id it saw. For isolation tests. */
  readonly obedient?: boolean;
  /** How long a stalled answer hangs before it fails as the real adapter's idle timeout would. */
  readonly stallMs?: number;
}

const stallMsDefault = 60_000;
/** Spread of the time to the first token: one in twenty takes twice the median. */
const firstTokenSpread = 0.42;
/** What OpenAI counts against the token limit when the request names no maximum, roughly. */
const outputTokensAssumed = 256;
const choicesMax = 128;
const eventsPerBatchMax = 64;
/** Above this rate tokens are not paced: a timer would cost more than they take. */
const tokensPerSecondUnpaced = 1_000_000;

export class SimulatedProvider implements Provider {
  readonly id: string;
  readonly #config: SimulatedProviderConfig;
  readonly #options: SimulatedProviderOptions;
  readonly #pacer: Pacer;
  readonly #quota: Quota;
  readonly #cache = new PromptCache();
  readonly #running = new Set<RunningCall>();
  #callCount = 0;

  constructor(config: SimulatedProviderConfig, options: SimulatedProviderOptions) {
    this.id = config.id;
    this.#config = config;
    this.#options = options;
    this.#pacer = new Pacer(options.clock);
    this.#quota = new Quota(config, options.clock);
  }

  /** Calls between their start and the end of their answer. */
  get inFlight(): number {
    return this.#quota.inFlight;
  }

  async complete(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    using running = this.#begin(call, signal);
    const { answer } = running;
    if (answer.stallsAfter !== undefined) await this.#stall(running.signal);
    await this.#pacer.until(answer.timing.momentOf(answer.steps), running.signal);
    running.signal.throwIfAborted();
    const parsed = completionOf(answer.head, answer.drafts, answer);
    return { body: Buffer.from(JSON.stringify(parsed)), parsed, usage: extractUsage(parsed['usage']) };
  }

  async stream(call: ProviderCall, signal: AbortSignal): Promise<CompletionStream> {
    const running = this.#begin(call, signal);
    return { batches: this.#batches(running), [Symbol.asyncDispose]: async () => running.end() };
  }

  async embed(call: ProviderCall, signal: AbortSignal): Promise<Completion> {
    signal.throwIfAborted();
    const release = this.#quota.admit({ tokens: 0, expectedMs: 0 });
    try {
      return simulateEmbeddings(call, this.#config.seed);
    } finally {
      release();
    }
  }

  /** Ends every call that is still running. */
  async close(): Promise<void> {
    for (const running of this.#running) running.end();
  }

  #begin(call: ProviderCall, signal: AbortSignal): RunningCall {
    signal.throwIfAborted();
    const random = seededRandom(hashText(String(this.#callCount++), this.#config.seed));
    this.#fail(random);
    const prompt = readPrompt(call.body);
    const firstTokenMs = logNormal(random, this.#config.timeToFirstTokenMs, firstTokenSpread);
    const assumedTokens = Math.min(outputLimit(call.body), outputTokensAssumed);
    const expectedMs = firstTokenMs + (assumedTokens / this.#config.tokensPerSecond) * 1_000;
    const release = this.#quota.admit({ tokens: prompt.tokens + reservedTokens(call), expectedMs });
    try {
      const answer = this.#answer(call, prompt, { firstTokenMs, stall: random.next(), stallAt: random.next() });
      const running = new RunningCall(answer, signal, () => {
        release();
        this.#running.delete(running);
      });
      this.#running.add(running);
      return running;
    } catch (error) {
      release();
      throw error;
    }
  }

  #answer(call: ProviderCall, prompt: Prompt, fate: Fate): Answer {
    const { clock, ids } = this.#options;
    const drafts = this.#draft(call, prompt);
    const steps = Math.max(...drafts.map((draft) => draft.pieces.length));
    return {
      drafts,
      steps,
      head: { id: ids.next('chatcmpl-'), createdSeconds: Math.floor(clock.nowMs() / 1_000), model: call.upstreamModel },
      callIds: drafts.map((draft) => draft.calls.map(() => ids.next('call_'))),
      usage: usageOf(prompt, drafts, this.#cache.cachedTokens(prompt, call.cacheSalt)),
      timing: this.#timing(fate.firstTokenMs, drafts),
      stallsAfter: fate.stall < this.#config.stallRate ? Math.floor(fate.stallAt * steps) : undefined,
    };
  }

  #fail(random: Random): void {
    const [limited, broken, waits] = [random.next(), random.next(), random.next()];
    if (limited < this.#config.rateLimitRate) {
      const retryAfterMs = 200 + Math.floor(waits * 1_800);
      throw new UpstreamRefusal('rate', {
        code: 'upstream_rate_limited',
        message: 'The simulated provider is limiting its rate.',
        options: { retryAfterMs },
      });
    }
    if (broken < this.#config.errorRate) throw new BulkheadError('upstream_error', 'The simulated provider failed, as configured.');
  }

  #draft(call: ProviderCall, prompt: Prompt): readonly Draft[] {
    const { n, seed } = call.body;
    const choices = typeof n === 'number' && n >= 1 ? Math.min(Math.floor(n), choicesMax) : 1;
    const contentSeed = hashText(`${prompt.instructions}\n${prompt.question}`, this.#config.seed + (typeof seed === 'number' ? seed : 0));
    return Array.from({ length: choices }, (_, index) =>
      draftChoice({
        body: call.body,
        prompt,
        random: seededRandom(contentSeed + index),
        isObedient: this.#options.obedient === true,
        isReasoning: call.upstreamModel.includes('reasoning'),
      }),
    );
  }

  #timing(firstTokenMs: number, drafts: readonly Draft[]): Timing {
    const rate = this.#config.tokensPerSecond;
    const msPerToken = rate >= tokensPerSecondUnpaced ? 0 : 1_000 / rate;
    const reasoning = Math.max(...drafts.map((draft) => draft.reasoningTokens));
    return new Timing(this.#options.clock.monotonicMs() + firstTokenMs + reasoning * msPerToken, msPerToken);
  }

  async *#batches(running: RunningCall): AsyncGenerator<readonly CompletionEvent[], void> {
    using _running = running;
    const { answer, signal } = running;
    const writer = new ChunkWriter(answer.head, answer.callIds);
    const steps = stepsOf(answer.drafts);
    await this.#pacer.until(answer.timing.momentOf(0), signal);
    signal.throwIfAborted();
    yield answer.drafts.map((_, choice) => writer.begin(choice));
    for (let step = 0; step < steps.length; ) {
      if (step === answer.stallsAfter) await this.#stall(signal);
      await this.#pacer.until(answer.timing.momentOf(step + 1), signal);
      signal.throwIfAborted();
      const due = Math.min(answer.timing.stepsDue(this.#options.clock.monotonicMs()), answer.stallsAfter ?? steps.length);
      const next = Math.min(Math.max(step + 1, due), step + eventsPerBatchMax, steps.length);
      yield steps.slice(step, next).flatMap((parts) => parts.flatMap(({ choice, draft, piece }) => writer.piece(choice, draft, piece)));
      step = next;
    }
    yield [...answer.drafts.map((draft, choice) => writer.finish(choice, draft)), writer.usage(answer.usage)];
  }

  /** Says nothing until the caller gives up or the idle timeout does. */
  async #stall(signal: AbortSignal): Promise<never> {
    await this.#pacer.until(this.#options.clock.monotonicMs() + (this.#options.stallMs ?? stallMsDefault), signal);
    throw new BulkheadError('upstream_timeout', 'The simulated provider stalled, as configured.');
  }
}

interface Answer {
  readonly drafts: readonly Draft[];
  /** Pieces of the longest choice; choices are generated side by side. */
  readonly steps: number;
  readonly head: CompletionHead;
  readonly callIds: CallIds;
  readonly usage: TokenUsage;
  readonly timing: Timing;
  /** The stream hangs before this step. */
  readonly stallsAfter: number | undefined;
}

/** What chance decided about a call. */
interface Fate {
  readonly firstTokenMs: number;
  /** 0 to 1, as are the places in the answer. */
  readonly stall: number;
  readonly stallAt: number;
}

/** Holds a call's slot until it ends, by itself, by its caller's signal, or by the provider's closing. */
class RunningCall implements Disposable {
  readonly answer: Answer;
  readonly #ending = new AbortController();
  readonly #callerSignal: AbortSignal;
  readonly #release: () => void;
  readonly #onAbort = () => this.#ending.abort(this.#callerSignal.reason);

  constructor(answer: Answer, callerSignal: AbortSignal, release: () => void) {
    this.answer = answer;
    this.#callerSignal = callerSignal;
    this.#release = release;
    callerSignal.addEventListener('abort', this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#ending.signal;
  }

  /** Again does nothing. */
  end(): void {
    this.#callerSignal.removeEventListener('abort', this.#onAbort);
    this.#ending.abort(new BulkheadError('upstream_error', 'The simulated provider ended the call.'));
    this.#release();
  }

  [Symbol.dispose](): void {
    this.end();
  }
}

class Timing {
  readonly #firstTokenAtMs: number;
  readonly #msPerToken: number;

  constructor(firstTokenAtMs: number, msPerToken: number) {
    this.#firstTokenAtMs = firstTokenAtMs;
    this.#msPerToken = msPerToken;
  }

  /** When so many steps are through; the first comes with the first token. */
  momentOf(steps: number): number {
    return this.#firstTokenAtMs + Math.max(0, steps - 1) * this.#msPerToken;
  }

  stepsDue(nowMs: number): number {
    return this.#msPerToken === 0 ? Number.POSITIVE_INFINITY : Math.floor((nowMs - this.#firstTokenAtMs) / this.#msPerToken) + 1;
  }
}

interface StepPart {
  readonly choice: number;
  readonly draft: Draft;
  readonly piece: Piece;
}

function stepsOf(drafts: readonly Draft[]): readonly (readonly StepPart[])[] {
  const steps = Math.max(...drafts.map((draft) => draft.pieces.length));
  return Array.from({ length: steps }, (_, step) =>
    drafts.flatMap((draft, choice) => {
      const piece = draft.pieces[step];
      return piece === undefined ? [] : [{ choice, draft, piece }];
    }),
  );
}

function usageOf(prompt: Prompt, drafts: readonly Draft[], cacheReadTokens: number): TokenUsage {
  const sum = (tokensOf: (draft: Draft) => number) => drafts.reduce((total, draft) => total + tokensOf(draft), 0);
  return {
    inputTokens: prompt.tokens,
    outputTokens: sum((draft) => draft.outputTokens),
    cacheReadTokens,
    reasoningTokens: sum((draft) => draft.reasoningTokens),
  };
}

function reservedTokens(call: ProviderCall): number {
  const limit = outputLimit(call.body);
  return Number.isFinite(limit) ? limit : outputTokensAssumed;
}
