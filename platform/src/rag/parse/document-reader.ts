/**
 * Reads hostile documents in a thread of their own: heap bounded by the runtime, buffers by a watch, time by a timer. A worker serves
 * one document after another and is replaced after any failure; text of a failed reading is dropped with it. The worker has an empty
 * environment, so nothing a parser might be tricked into reading there is a secret.
 */
import { Worker } from 'node:worker_threads';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { ReadDocument, ReadingResult, ReadingTask } from './reading.ts';

export interface DocumentReaderBounds {
  /** Longest one document may take, parsing and chunking together. */
  readonly parseTimeoutMs: number;
  /** Most memory of the worker: its heap, and apart from that its buffers. */
  readonly parseMemoryMb: number;
  /** Documents that may wait for the worker. */
  readonly waitingMax?: number;
}

const waitingMaxDefault = 64;
const memoryWatchIntervalMs = 50;
const startTimeoutMs = 60_000;
const bytesPerMb = 1_024 * 1_024;

export class DocumentReader implements AsyncDisposable {
  readonly #bounds: DocumentReaderBounds;
  #worker: Worker | undefined;
  #waiting = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #mode: 'open' | 'closed' = 'open';

  constructor(bounds: DocumentReaderBounds) {
    this.#bounds = bounds;
  }

  /**
   * The document's text in chunks. Throws the errors of `parseDocument`; `document_limit` when time or memory ran out, `parse_failed`
   * when the worker died; `queue_full`; or the signal's reason. One document is read at a time.
   */
  async read(task: ReadingTask, signal: AbortSignal): Promise<ReadDocument> {
    signal.throwIfAborted();
    if (this.#mode === 'closed') throw new BulkheadError('shutting_down', 'documents are no longer read');
    if (this.#waiting >= (this.#bounds.waitingMax ?? waitingMaxDefault)) {
      throw new BulkheadError('queue_full', 'too many documents wait to be read');
    }
    this.#waiting++;
    const reading = this.#turn.then(() => this.#readNow(task, signal)).finally(() => this.#waiting--);
    this.#turn = reading.catch(() => {});
    return await reading;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#mode = 'closed';
    await this.#dropWorker();
  }

  async #readNow(task: ReadingTask, signal: AbortSignal): Promise<ReadDocument> {
    signal.throwIfAborted();
    try {
      const worker = this.#worker ?? (await this.#startWorker(signal));
      const result = await exchange(worker, { task, signal, ...this.#bounds });
      if (result.kind === 'ready') throw workerDied(undefined);
      if (result.kind === 'refused') throw new BulkheadError(result.code, result.message);
      return result.document;
    } catch (error) {
      await this.#dropWorker();
      throw error;
    }
  }

  /** Loading the parsers is no document's time: on a busy machine it takes seconds. */
  async #startWorker(signal: AbortSignal): Promise<Worker> {
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const worker = new Worker(new URL(`./reading-worker.${extension}`, import.meta.url), {
      env: {},
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: this.#bounds.parseMemoryMb, maxYoungGenerationSizeMb: 32, stackSizeMb: 4 },
    });
    // A worker that is being terminated may still report why; without a listener that would end the process.
    worker.on('error', () => {});
    // Without this an idle reader would keep the process alive.
    worker.unref();
    this.#worker = worker;
    await exchange(worker, { task: undefined, signal, ...this.#bounds, parseTimeoutMs: startTimeoutMs });
    return worker;
  }

  async #dropWorker(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }
}

interface ExchangeBounds extends DocumentReaderBounds {
  /** Undefined: only wait for what the worker says by itself. */
  readonly task: ReadingTask | undefined;
  readonly signal: AbortSignal;
}

/** Hands a task over and waits for its result, the worker's death, the timer, the memory watch or the signal, whichever is first. */
async function exchange(worker: Worker, bounds: ExchangeBounds): Promise<ReadingResult> {
  const { promise, resolve, reject } = Promise.withResolvers<ReadingResult>();
  const onError = (error: Error & { readonly code?: string }) => {
    reject(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? tooMuchMemory(bounds.parseMemoryMb) : workerDied(error));
  };
  const onExit = () => reject(workerDied(undefined));
  const onAbort = () => reject(bounds.signal.reason);
  const timer = setTimeout(() => reject(tooSlow(bounds.parseTimeoutMs)), bounds.parseTimeoutMs);
  const watch = setInterval(() => void rejectWhenOverMemory(worker, bounds.parseMemoryMb, reject), memoryWatchIntervalMs);
  worker.once('message', resolve).once('error', onError).once('exit', onExit);
  bounds.signal.addEventListener('abort', onAbort, { once: true });
  worker.ref();
  try {
    if (bounds.task !== undefined) worker.postMessage(bounds.task);
    return await promise;
  } finally {
    worker.unref();
    clearTimeout(timer);
    clearInterval(watch);
    worker.off('message', resolve).off('error', onError).off('exit', onExit);
    bounds.signal.removeEventListener('abort', onAbort);
  }
}

/** `resourceLimits` bounds the heap alone; typed arrays are counted here. The answer comes also while the worker is busy. */
async function rejectWhenOverMemory(worker: Worker, memoryMb: number, reject: (reason: unknown) => void): Promise<void> {
  try {
    const { external_memory: bufferBytes } = await worker.getHeapStatistics();
    if (bufferBytes > memoryMb * bytesPerMb) reject(tooMuchMemory(memoryMb));
  } catch {
    // The worker has ended; its exit rejects.
  }
}

function tooSlow(timeoutMs: number): BulkheadError {
  return new BulkheadError('document_limit', `reading a document may take at most ${timeoutMs} ms`);
}

function tooMuchMemory(memoryMb: number): BulkheadError {
  return new BulkheadError('document_limit', `reading a document may take at most ${memoryMb} MB of memory`);
}

function workerDied(cause: unknown): BulkheadError {
  return new BulkheadError('parse_failed', 'the document could not be read', { cause });
}
