/**
 * A process's side of the thread that holds its partitions: commands wait here, a few at a time are with the thread, and one whose caller left is never sent.
 * When the thread ends, everything it held is gone: its callers hear `ThreadUnavailable`, and the next command starts another thread.
 */
import { Worker } from 'node:worker_threads';
import type { PartitionAnswer, PartitionCommand, PartitionThreadData, Reply, Request } from './partition-commands.ts';

export interface PartitionThreadOptions {
  readonly bytesMax: number;
  /** Commands that wait, beyond which `ThreadUnavailable`. */
  readonly queuedMax: number;
  /** Called when the thread ended by itself. */
  readonly onLost: () => void;
}

/** Memory cannot answer now: too many wait, the thread ended, or it failed. */
export class ThreadUnavailable extends Error {}

interface Waiting {
  readonly command: PartitionCommand;
  readonly resolve: (answer: PartitionAnswer) => void;
  readonly reject: (reason: unknown) => void;
  readonly signal: AbortSignal | undefined;
  readonly onAbort: () => void;
}

/** One that works and one that is there when it has done. */
const sentMax = 2;
/** Questions of one pass: the first is answered when the last is. */
const passMax = 8;

export class PartitionThread implements AsyncDisposable {
  readonly #options: PartitionThreadOptions;
  #queue: Waiting[] = [];
  /** Of each request to the thread. */
  readonly #sent = new Map<number, readonly Waiting[]>();
  #worker: Worker | undefined;
  #nextId = 1;
  #isClosed = false;

  constructor(options: PartitionThreadOptions) {
    this.#options = options;
  }

  /** Throws `ThreadUnavailable`, or the reason of the signal. */
  send(command: PartitionCommand, signal?: AbortSignal): Promise<PartitionAnswer> {
    if (this.#isClosed) return Promise.reject(new ThreadUnavailable('the thread is closed'));
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (command.kind !== 'release' && this.#queue.length >= this.#options.queuedMax)
      return Promise.reject(new ThreadUnavailable('too many commands wait'));
    const { promise, resolve, reject } = Promise.withResolvers<PartitionAnswer>();
    const waiting: Waiting = { command, resolve, reject, signal, onAbort: () => this.#leave(waiting) };
    signal?.addEventListener('abort', waiting.onAbort, { once: true });
    this.#queue.push(waiting);
    this.#pump();
    return promise;
  }

  /** The next command starts another. */
  async end(): Promise<void> {
    await this.#worker?.terminate();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    const worker = this.#worker;
    this.#lose();
    await worker?.terminate();
  }

  #pump(): void {
    while (this.#sent.size < sentMax) {
      const pass = this.#takePass();
      if (pass.length === 0) return;
      const id = this.#nextId++;
      this.#sent.set(id, pass);
      this.#running().postMessage({ id, commands: pass.map(({ command }) => command) } satisfies Request);
    }
  }

  /** The next command, and with a question those right behind it that ask the same vectors. Nobody is overtaken: who waits between may be another tenant. */
  #takePass(): readonly Waiting[] {
    const [first] = this.#queue;
    if (first === undefined) return [];
    const end = this.#queue.findIndex(({ command }, index) => index > 0 && !isOfOnePass(first.command, command));
    return this.#queue.splice(0, Math.min(end < 0 ? this.#queue.length : end, passMax));
  }

  #running(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const workerData: PartitionThreadData = { bytesMax: this.#options.bytesMax };
    const worker = new Worker(new URL('./partition-worker.ts', import.meta.url), { workerData, execArgv: [] });
    worker.unref();
    worker.on('message', (reply: Reply) => this.#take(reply));
    // Its end says the same once more.
    worker.on('error', () => {});
    worker.once('exit', () => {
      if (this.#worker !== worker) return;
      this.#lose();
      this.#options.onLost();
    });
    this.#worker = worker;
    return worker;
  }

  #take(reply: Reply): void {
    const pass = this.#sent.get(reply.id);
    if (pass === undefined) return;
    this.#sent.delete(reply.id);
    for (const [index, { signal, onAbort, resolve, reject }] of pass.entries()) {
      signal?.removeEventListener('abort', onAbort);
      if ('answers' in reply) resolve(reply.answers[index] as PartitionAnswer);
      else reject(new ThreadUnavailable(`the thread of the resident partitions failed: ${reply.failure}`));
    }
    this.#pump();
  }

  /** A caller that left: what is with the thread is finished there and heard by nobody. */
  #leave(waiting: Waiting): void {
    this.#queue = this.#queue.filter((other) => other !== waiting);
    waiting.reject(waiting.signal?.reason);
  }

  #lose(): void {
    this.#worker = undefined;
    const waiting = [...[...this.#sent.values()].flat(), ...this.#queue];
    this.#sent.clear();
    this.#queue = [];
    for (const { reject, signal, onAbort } of waiting) {
      signal?.removeEventListener('abort', onAbort);
      reject(new ThreadUnavailable('the thread of the resident partitions ended'));
    }
  }
}

function isOfOnePass(first: PartitionCommand, other: PartitionCommand): boolean {
  if (first.kind !== 'nearest' || other.kind !== 'nearest') return false;
  return first.partition === other.partition && first.revision === other.revision;
}
