import { BulkheadError } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import { extractUsage } from '../primitives/token-usage.ts';
import type { DeploymentSlot } from './deployment.ts';
import type { CompletionEvent, CompletionStream } from './provider.ts';

type Batch = readonly CompletionEvent[];

/** Told how a stream ended that was read to its end. */
export interface StreamWatcher {
  completed(): void;
  broke(error: unknown): void;
}

/**
 * A provider's stream that has shown its first events and holds its deployment's slot until it ends, however it ends.
 * Providers report overload as the first event as often as by status, so looking at it is what makes failover work.
 */
export class LeasedStream implements CompletionStream {
  readonly batches: AsyncIterable<Batch>;
  readonly #stream: CompletionStream;
  readonly #iterator: AsyncIterator<Batch>;
  readonly #slot: DeploymentSlot;
  readonly #watcher: StreamWatcher;
  #first: Batch | undefined;
  #mode: 'unread' | 'reading' | 'ended' = 'unread';

  private constructor(
    stream: CompletionStream,
    iterator: AsyncIterator<Batch>,
    first: Batch,
    held: { readonly slot: DeploymentSlot; readonly watcher: StreamWatcher },
  ) {
    this.#stream = stream;
    this.#iterator = iterator;
    this.#first = first;
    this.#slot = held.slot;
    this.#watcher = held.watcher;
    this.batches = { [Symbol.asyncIterator]: () => this.#begin() };
  }

  /** Waits for the first events. On failure nothing is held but the slot, which stays the caller's. */
  static async open(stream: CompletionStream, slot: DeploymentSlot, watcher: StreamWatcher): Promise<LeasedStream> {
    const iterator = stream.batches[Symbol.asyncIterator]();
    try {
      const first = await iterator.next();
      if (first.done === true) throw new BulkheadError('upstream_error', 'The model provider ended the stream before it began.');
      return new LeasedStream(stream, iterator, first.value, { slot, watcher });
    } catch (error) {
      await stream[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
  }

  #begin(): AsyncIterator<Batch> {
    assert(this.#mode !== 'reading', 'a stream is read once');
    if (this.#mode === 'unread') this.#mode = 'reading';
    return {
      next: () => this.#next(),
      return: async () => {
        await this.#end();
        return { done: true, value: undefined };
      },
    };
  }

  async #next(): Promise<IteratorResult<Batch, undefined>> {
    if (this.#mode === 'ended') return { done: true, value: undefined };
    const first = this.#first;
    if (first !== undefined) {
      this.#first = undefined;
      this.#note(first);
      return { done: false, value: first };
    }
    try {
      const next = await this.#iterator.next();
      if (next.done !== true) {
        this.#note(next.value);
        return { done: false, value: next.value };
      }
    } catch (error) {
      // Whoever disposed of it has broken it.
      if (this.#isReading) this.#watcher.broke(error);
      await this.#end();
      throw error;
    }
    if (this.#isReading) this.#watcher.completed();
    await this.#end();
    return { done: true, value: undefined };
  }

  get #isReading(): boolean {
    return this.#mode === 'reading';
  }

  /** Usage comes with the last event. */
  #note(batch: Batch): void {
    const usage = batch.at(-1)?.parsed['usage'];
    if (usage) this.#slot.used = extractUsage(usage) ?? this.#slot.used;
  }

  async #end(): Promise<void> {
    if (this.#mode === 'ended') return;
    this.#mode = 'ended';
    try {
      // Not `iterator.return()`: that would wait behind a pending `next()`, and disposing is what ends it.
      await this.#stream[Symbol.asyncDispose]();
    } finally {
      this.#slot.release();
    }
  }
}
