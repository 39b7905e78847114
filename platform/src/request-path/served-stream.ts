/**
 * A streamed answer that owns its turn. Iterating yields the events to send; when the iteration ends, however it ends, what was
 * delivered is journaled and the slot and reservation go back. An error after the first event propagates to the consumer.
 */
import type { OutputEstimates } from '../admission/estimate.ts';
import type { CompletionEvent, CompletionStream } from '../inference/provider.ts';
import { DeliveredOutput } from '../metering/delivered.ts';
import type { UsageEvent } from '../metering/usage-event.ts';
import type { InferenceCall, ServedFacts } from './inference-call.ts';
import type { Delivered, Turn } from './turn.ts';

export interface ServedStreamParts {
  readonly turn: Turn;
  readonly stream: CompletionStream;
  readonly source: Pick<Delivered, 'provider' | 'upstreamModel'>;
  readonly estimates: OutputEstimates;
  readonly call: InferenceCall;
}

export class ServedStream implements AsyncDisposable {
  readonly facts: ServedFacts;
  readonly #parts: ServedStreamParts;
  readonly #delivered: DeliveredOutput;
  readonly #isUsageWanted: boolean;
  #event: UsageEvent | undefined;
  #hasEnded = false;

  constructor(parts: ServedStreamParts) {
    const { turn, call } = parts;
    this.#parts = parts;
    const { reservation, permit, isLooping } = turn.facts;
    this.facts = { limitStates: reservation.states, isLooping, queueMs: permit.queueMs, upstreamMs: turn.upstreamMs() };
    this.#delivered = new DeliveredOutput({ inputTokens: turn.facts.inputTokens });
    const options = call.body['stream_options'] as { readonly include_usage?: boolean } | null | undefined;
    this.#isUsageWanted = options?.include_usage === true;
  }

  /** What was journaled; there once the iteration has ended. */
  get event(): UsageEvent | undefined {
    return this.#event;
  }

  /** Batches of events as they arrived, without the usage chunk the client did not ask for. */
  async *batches(): AsyncGenerator<readonly CompletionEvent[]> {
    let outcome: UsageEvent['outcome'] = 'aborted';
    try {
      for await (const batch of this.#parts.stream.batches) {
        const wanted = this.#accept(batch);
        if (wanted.length > 0) yield wanted;
      }
      outcome = 'completed';
    } catch (error) {
      outcome = this.#parts.call.signal.aborted ? 'aborted' : 'failed';
      throw error;
    } finally {
      this.#end(outcome);
    }
  }

  /** Ends a stream that was not iterated to its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#parts.stream[Symbol.asyncDispose]();
    } finally {
      this.#end('aborted');
    }
  }

  #accept(batch: readonly CompletionEvent[]): readonly CompletionEvent[] {
    let tokens = 0;
    let hidden = 0;
    for (const event of batch) {
      tokens += this.#delivered.acceptChunk(event.parsed);
      if (!this.#isUsageWanted && isUsageOnly(event.parsed)) hidden++;
    }
    this.#parts.turn.progress(tokens);
    return hidden === 0 ? batch : batch.filter((event) => !isUsageOnly(event.parsed));
  }

  #end(outcome: UsageEvent['outcome']): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    const { turn, source, estimates, call } = this.#parts;
    if (outcome === 'failed' && !this.#delivered.hasOutput) {
      turn.abandon();
      return;
    }
    const result = this.#delivered.result(outcome);
    this.#event = turn.complete({ ...result, ...source });
    if (outcome === 'completed') estimates.learn(call.scope, call.body, result.usage.outputTokens);
  }
}

/** The extra chunk of `stream_options.include_usage`: usage and no choices. Clients that did not ask index `choices[0]`. */
function isUsageOnly(chunk: Readonly<Record<string, unknown>>): boolean {
  const choices = chunk['choices'];
  return Array.isArray(choices) && choices.length === 0 && typeof chunk['usage'] === 'object' && chunk['usage'] !== null;
}
