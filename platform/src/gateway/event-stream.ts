/**
 * The only writer of server-sent events. Event names are constants, data is one line of JSON, so model text never touches the framing
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 *
 * A stream runs ahead of its client by a quarter of the backlog cap before the producer has to wait, so that a client on a slow line
 * does not hold a model's slot; it is dropped when more than the cap waits for it, or when its socket stays full for too long.
 * Events sent in one tick are one write. No timer of its own: the gateway's sweep calls `sweep`.
 */
import type { ServerResponse } from 'node:http';
import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { EventWriter } from './exchange.ts';

export interface EventStreamBounds {
  /** A client is dropped when more than this waits for it; one event may exceed it. */
  readonly backlogBytesMax: number;
  /** How long the socket may stay full. */
  readonly stallMaxMs: number;
  /** A comment goes out after this much silence, for proxies that cut idle connections. */
  readonly heartbeatMs: number;
}

export interface EventStreamParts {
  readonly response: ServerResponse;
  /** Sent with status 200 when the first event is. */
  readonly headers: Readonly<Record<string, string>>;
  readonly bounds: EventStreamBounds;
  readonly clock: Clock;
  /** Called once, before the connection is cut. */
  readonly onDrop: (reason: DropReason) => void;
}

export type DropReason = 'backlog' | 'stall';

type Mode = 'fresh' | 'flowing' | 'full' | 'ended';

/** Characters after which a tick's events are written without waiting for its end. */
const writeCharactersMax = 16_384;
const heartbeat = ': keep-alive\n\n';
const lastChunk = '0\r\n\r\n';

export class EventStream implements EventWriter {
  readonly #parts: EventStreamParts;
  readonly #runAheadBytes: number;
  /** HTTP/1.0 has no chunks: there the end of the connection is the end of the stream. */
  readonly #isChunked: boolean;
  #mode: Mode = 'fresh';
  #pending = '';
  #flushQueued = false;
  #lastWriteMs = 0;
  #stalledSinceMs = 0;
  #drained: PromiseWithResolvers<void> | undefined;

  constructor(parts: EventStreamParts) {
    this.#parts = parts;
    this.#runAheadBytes = Math.ceil(parts.bounds.backlogBytesMax / 4);
    const { httpVersionMajor, httpVersionMinor } = parts.response.req;
    this.#isChunked = httpVersionMajor > 1 || httpVersionMinor > 0;
  }

  /** False until the first event: an error before that can still be an ordinary answer. */
  get hasStarted(): boolean {
    return this.#mode !== 'fresh';
  }

  /** A promise while the client is behind; it resolves when the client has caught up or has gone. Sending to a client that left does nothing. */
  send(data: string, event?: string): Promise<void> | undefined {
    if (this.#mode === 'ended') return undefined;
    const frame = frameOf(data, event);
    if (this.#mode === 'fresh') this.#open();
    this.#pending += frame;
    if (this.#pending.length >= writeCharactersMax) this.#flush();
    else this.#queueFlush();
    return this.#whenDrained();
  }

  /** Sends `errorJson` (an error body) as the last event and ends. The OpenAI SDKs throw on any event with a truthy `error`. */
  fail(errorJson: string): void {
    assert(this.#mode !== 'fresh', 'an error before the first event is an ordinary answer');
    if (this.#mode === 'ended') return;
    this.#pending += frameOf(errorJson, undefined);
    this.end();
  }

  /** Flushes and ends the answer; a stream without events is an empty one. */
  end(): void {
    if (this.#mode === 'ended') return;
    if (this.#mode === 'fresh') this.#open();
    this.#flush();
    this.#stalledSinceMs = this.#parts.clock.monotonicMs();
    this.#leave();
    this.#parts.response.end(this.#isChunked ? lastChunk : undefined);
  }

  /** The connection has closed: what is still sent goes nowhere. */
  abandon(): void {
    this.#pending = '';
    this.#leave();
  }

  /** Sends a heartbeat when it is due, drops a client that stalls. Called about once a second. */
  sweep(nowMs: number): void {
    const { bounds, response } = this.#parts;
    const isWaiting = this.#mode === 'full' || (this.#mode === 'ended' && !response.writableFinished);
    if (isWaiting && nowMs - this.#stalledSinceMs >= bounds.stallMaxMs) this.#drop('stall');
    else if (this.#mode === 'flowing' && nowMs - this.#lastWriteMs >= bounds.heartbeatMs) {
      this.#lastWriteMs = nowMs;
      this.#write(heartbeat);
    }
  }

  #open(): void {
    const { response, headers, clock } = this.#parts;
    this.#mode = 'flowing';
    this.#lastWriteMs = clock.monotonicMs();
    response.on('drain', () => this.#resume());
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
      ...headers,
      ...(this.#isChunked && { 'transfer-encoding': 'chunked' }),
    });
    // Node frames a chunk as four writes, joined again a tick later; framed here it is one (5 of 50 us an event).
    if (this.#isChunked) response.chunkedEncoding = false;
  }

  #queueFlush(): void {
    if (this.#flushQueued) return;
    this.#flushQueued = true;
    process.nextTick(flushQueued, this);
  }

  /** For `flushQueued` alone. */
  flushTick(): void {
    this.#flushQueued = false;
    this.#flush();
  }

  #flush(): void {
    if (this.#pending === '' || this.#mode === 'ended') return;
    const { response, bounds, clock } = this.#parts;
    const text = this.#pending;
    this.#pending = '';
    if (response.writableLength > bounds.backlogBytesMax) {
      this.#drop('backlog');
      return;
    }
    this.#lastWriteMs = clock.monotonicMs();
    const hasRoom = this.#write(text);
    if (hasRoom || this.#mode === 'full' || response.writableLength <= this.#runAheadBytes) return;
    this.#mode = 'full';
    this.#stalledSinceMs = this.#lastWriteMs;
  }

  /** One chunk of the chunked coding (RFC 9112 section 7.1). False when the socket's buffer is full. */
  #write(text: string): boolean {
    const { response } = this.#parts;
    return response.write(this.#isChunked ? `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n` : text);
  }

  #whenDrained(): Promise<void> | undefined {
    if (this.#mode !== 'full') return undefined;
    this.#drained ??= Promise.withResolvers<void>();
    return this.#drained.promise;
  }

  #resume(): void {
    if (this.#mode === 'full') this.#mode = 'flowing';
    this.#release();
  }

  #drop(reason: DropReason): void {
    this.#leave();
    this.#parts.onDrop(reason);
    this.#parts.response.destroy();
  }

  #leave(): void {
    this.#mode = 'ended';
    this.#release();
  }

  #release(): void {
    this.#drained?.resolve();
    this.#drained = undefined;
  }
}

/** One function for all streams: a closure an event would be garbage. */
function flushQueued(stream: EventStream): void {
  stream.flushTick();
}

/** All three line ends of the specification; JSON has none of them, so this costs one scan. */
const lineEnd = /\r\n|\n|\r/;
const eventName = /^[a-z][a-z0-9_.]{0,63}$/;

function frameOf(data: string, event: string | undefined): string {
  const prefix = event === undefined ? '' : namePrefix(event);
  if (!lineEnd.test(data)) return `${prefix}data: ${data}\n\n`;
  return `${prefix}${data
    .split(lineEnd)
    .map((line) => `data: ${line}\n`)
    .join('')}\n`;
}

function namePrefix(event: string): string {
  assert(eventName.test(event), 'event names are constants');
  return `event: ${event}\n`;
}
