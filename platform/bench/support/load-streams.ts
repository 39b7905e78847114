/**
 * Opens many chat streams at a steady rate and reads every event of each. Events carry their number (see mock-upstream), so a lost,
 * doubled or reordered one is told apart. Time to first event counts from the start of the TCP connection.
 * One JSON argument (`StreamLoad`), one JSON line of result (`StreamResult`).
 */
import { connect, type Socket } from 'node:net';
import { createHistogram } from 'node:perf_hooks';
import { AnswerReader } from './answer-reader.ts';

export interface StreamLoad {
  readonly url: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly streams: number;
  readonly opensPerSecond: number;
  /** Content events each stream must bring. */
  readonly eventsPerStream: number;
  readonly eventsPerSecond: number;
  /** How long after the last stream should have ended an answer still counts. */
  readonly graceMs: number;
}

export interface StreamResult {
  readonly streams: number;
  /** Streams that ended in order with every event. */
  readonly complete: number;
  readonly refused: number;
  readonly firstError: string | undefined;
  readonly events: number;
  readonly lost: number;
  /** Doubled or out of order. */
  readonly extra: number;
  /** Every stream open at once? */
  readonly openMax: number;
  readonly ttftP50Ms: number;
  readonly ttftP99Ms: number;
  /** How late events were against the pace of their stream, ms. */
  readonly lagP50Ms: number;
  readonly lagP99Ms: number;
  /** Events read a second while every stream was open. */
  readonly eventsPerSecond: number;
  readonly seconds: number;
}

const load = JSON.parse(process.argv[2] ?? '') as StreamLoad;
const target = new URL(load.url);
const request = encodeRequest();
const ttft = createHistogram();
const lag = createHistogram();
const sockets = new Set<Socket>();
const startedAt = performance.now();
const openingMs = (load.streams / load.opensPerSecond) * 1_000;
const idealMs = openingMs + (load.eventsPerStream / load.eventsPerSecond) * 1_000;
/** The window in which every stream should be open. */
const steadyFrom = startedAt + openingMs;
const steadyUntil = startedAt + (load.eventsPerStream / load.eventsPerSecond) * 1_000;
const counts = { opened: 0, ended: 0, complete: 0, refused: 0, events: 0, extra: 0, open: 0, openMax: 0, steadyEvents: 0 };
let firstError: string | undefined;

const opener = setInterval(openDue, 2);
const deadline = setTimeout(report, idealMs + load.graceMs);

function encodeRequest(): Buffer {
  const fixed = { host: target.host, 'content-type': 'application/json', 'content-length': Buffer.byteLength(load.body) };
  const lines = Object.entries({ ...fixed, ...load.headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`POST ${load.path} HTTP/1.1\r\n${lines.join('')}\r\n${load.body}`);
}

function openDue(): void {
  const due = Math.min(load.streams, Math.floor(((performance.now() - startedAt) / 1_000) * load.opensPerSecond));
  while (counts.opened < due) openStream();
  if (counts.opened === load.streams) clearInterval(opener);
}

function openStream(): void {
  counts.opened++;
  const stream = new EventCounter();
  const socket = connect({ host: target.hostname, port: Number(target.port), noDelay: true });
  sockets.add(socket);
  const reader = new AnswerReader({
    head: (status) => stream.head(status),
    body: (part) => stream.body(part.toString('latin1')),
    end: () => {
      stream.ended = true;
      socket.end();
    },
  });
  socket.on('connect', () => socket.write(request));
  socket.on('data', (chunk) => reader.feed(chunk));
  socket.on('error', (error) => {
    firstError ??= error.message;
  });
  socket.on('close', () => closeStream(socket, stream));
}

function closeStream(socket: Socket, stream: EventCounter): void {
  sockets.delete(socket);
  if (stream.status === 200) counts.open--;
  else counts.refused++;
  if (stream.isComplete) counts.complete++;
  else firstError ??= stream.fault();
  if (++counts.ended === load.streams) report();
}

class EventCounter {
  readonly #openedAt = performance.now();
  #firstAt = 0;
  #text = '';
  #next = 0;
  #done = false;
  status = 0;
  ended = false;

  get isComplete(): boolean {
    return this.status === 200 && this.ended && this.#done && this.#next === load.eventsPerStream;
  }

  head(status: number): void {
    this.status = status;
    if (status === 200) counts.openMax = Math.max(counts.openMax, ++counts.open);
  }

  body(text: string): void {
    this.#text += text;
    const now = performance.now();
    for (let end = this.#text.indexOf('\n\n'); end >= 0; end = this.#text.indexOf('\n\n')) {
      this.#event(this.#text.slice(0, end), now);
      this.#text = this.#text.slice(end + 2);
    }
  }

  #event(event: string, now: number): void {
    if (event === 'data: [DONE]') this.#done = true;
    const at = event.indexOf('"content":"');
    const number = at < 0 ? Number.NaN : Number.parseInt(event.slice(at + 11), 10);
    if (Number.isNaN(number)) return;
    counts.events++;
    if (now >= steadyFrom && now < steadyUntil) counts.steadyEvents++;
    if (number !== this.#next) counts.extra++;
    else this.#next++;
    this.#time(number, now);
  }

  #time(number: number, now: number): void {
    if (number === 0) {
      this.#firstAt = now;
      ttft.record(Math.max(1, Math.round((now - this.#openedAt) * 1e6)));
      return;
    }
    const dueAt = this.#firstAt + (number * 1_000) / load.eventsPerSecond;
    lag.record(Math.max(1, Math.round((now - dueAt) * 1e6)));
  }

  fault(): string {
    if (this.status !== 200) return `status ${this.status}: ${this.#text.slice(0, 300)}`;
    return `a stream ended after ${this.#next} of ${load.eventsPerStream} events${this.#done ? '' : ', without [DONE]'}`;
  }
}

function report(): void {
  clearTimeout(deadline);
  clearInterval(opener);
  const due = load.streams * load.eventsPerStream;
  const inOrder = counts.events - counts.extra;
  const result: StreamResult = {
    streams: load.streams,
    complete: counts.complete,
    refused: counts.refused,
    firstError: firstError ?? (counts.ended < load.streams ? `${load.streams - counts.ended} streams did not end in time` : undefined),
    events: counts.events,
    lost: due - inOrder,
    extra: counts.extra,
    openMax: counts.openMax,
    ttftP50Ms: ttft.percentile(50) / 1e6,
    ttftP99Ms: ttft.percentile(99) / 1e6,
    lagP50Ms: lag.percentile(50) / 1e6,
    lagP99Ms: lag.percentile(99) / 1e6,
    eventsPerSecond: counts.steadyEvents / ((steadyUntil - steadyFrom) / 1_000),
    seconds: (performance.now() - startedAt) / 1_000,
  };
  for (const socket of sockets) socket.destroy();
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}
