import { setTimeout } from 'node:timers';
import type { Dispatcher, Pool } from 'undici';
import { failureOfTransport, interrupted } from './upstream-failures.ts';
import type { UpstreamHead } from './upstream-head.ts';

export interface UpstreamRequest {
  readonly path: string;
  readonly headers: readonly string[];
  readonly body: string;
}

/** Received and not yet read. Past this the socket is paused and TCP tells the provider to wait. */
const unreadBytesMax = 65_536;
/** A body that goes on after its last useful byte is cut off after so much or so long. */
const remainderBytesMax = 65_536;
const remainderMs = 1_000;
const interimHeadsMax = 16;

/**
 * One POST and its answer, read at the consumer's pace. A dispatch handler and not undici's `request`: without a stream object for each
 * answer and a promise for each chunk, 10,000 events a second in 2,000 streams take 17 % of a core, JSON included, where `request` with
 * the same parsing takes 18 % and a pipe that looks at nothing 13 % (platform/bench/gateway/stream-path.ts).
 *
 * It ends by the end of the body, a failure, the signal, or `abort`; the last three destroy the socket.
 */
export class UpstreamExchange implements Dispatcher.DispatchHandler {
  readonly #signal: AbortSignal;
  readonly #onAbort = () => this.#fail(abortReason(this.#signal));
  #controller: Dispatcher.DispatchController | undefined;
  #mode: 'sent' | 'answering' | 'leaving' | 'ended' | 'failed' = 'sent';
  #head: UpstreamHead | undefined;
  #interimHeads = 0;
  #unread: Buffer[] = [];
  #unreadBytes = 0;
  #remainderBytes = 0;
  #remainderTimer: NodeJS.Timeout | undefined;
  #failure: unknown;
  #wake: (() => void) | undefined;

  private constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Sends the request. Nothing is thrown here: failures come out of `head` and `read`. */
  static send(pool: Pool, request: UpstreamRequest, signal: AbortSignal): UpstreamExchange {
    const exchange = new UpstreamExchange(signal);
    if (signal.aborted) {
      exchange.#fail(abortReason(signal));
      return exchange;
    }
    signal.addEventListener('abort', exchange.#onAbort, { once: true });
    try {
      pool.dispatch({ method: 'POST', path: request.path, headers: [...request.headers], body: request.body }, exchange);
    } catch (error) {
      exchange.#fail(failureOfTransport(error));
    }
    return exchange;
  }

  /** Status and headers of the answer. Throws `upstream_error`, `upstream_timeout` or the signal's reason. */
  async head(): Promise<UpstreamHead> {
    while (this.#head === undefined) {
      if (this.#mode === 'failed') throw this.#failure;
      await this.#change();
    }
    return this.#head;
  }

  /** Everything that has arrived since the last call; waits when that is nothing; undefined after the end. Throws as `head` does. */
  async read(): Promise<readonly Buffer[] | undefined> {
    while (this.#unread.length === 0) {
      if (this.#mode === 'failed') throw this.#failure;
      if (this.#mode === 'ended' || this.#mode === 'leaving') return undefined;
      await this.#change();
    }
    return this.#takeUnread();
  }

  /** Destroys the socket unless the answer has ended. */
  abort(): void {
    this.#fail(interrupted());
  }

  /** No more is wanted: lets the answer end by itself, so that the connection can be used again, but not for long. */
  leave(): void {
    if (this.#mode !== 'answering') return;
    this.#mode = 'leaving';
    this.#remainderTimer = setTimeout(() => this.abort(), remainderMs);
    this.#takeUnread();
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    // It may have waited for a connection longer than its caller for it.
    if (this.#mode === 'failed') controller.abort(interrupted());
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, headers: UpstreamHead['headers']): void {
    if (status < 200) {
      if (++this.#interimHeads > interimHeadsMax) controller.abort(interrupted());
      return;
    }
    if (this.#mode !== 'sent') return;
    this.#mode = 'answering';
    this.#head = { status, headers };
    this.#notify();
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#mode === 'leaving') {
      this.#remainderBytes += chunk.length;
      if (this.#remainderBytes > remainderBytesMax) this.abort();
    }
    if (this.#mode !== 'answering') return;
    this.#unread.push(chunk);
    this.#unreadBytes += chunk.length;
    if (this.#unreadBytes > unreadBytesMax) controller.pause();
    this.#notify();
  }

  onResponseEnd(): void {
    if (this.#mode === 'failed') return;
    this.#mode = 'ended';
    this.#letGo();
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    if (this.#mode === 'failed' || this.#mode === 'ended') return;
    this.#mode = 'failed';
    this.#failure = failureOfTransport(error);
    this.#letGo();
  }

  #fail(failure: unknown): void {
    if (this.#mode === 'failed' || this.#mode === 'ended') return;
    this.#mode = 'failed';
    this.#failure = failure;
    this.#unread = [];
    this.#controller?.abort(interrupted());
    this.#letGo();
  }

  #letGo(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
    clearTimeout(this.#remainderTimer);
    this.#notify();
  }

  #takeUnread(): readonly Buffer[] {
    const taken = this.#unread;
    this.#unread = [];
    this.#unreadBytes = 0;
    if (this.#controller?.paused === true) this.#controller.resume();
    return taken;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

function abortReason(signal: AbortSignal): unknown {
  return signal.reason ?? interrupted();
}
