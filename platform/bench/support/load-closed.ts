/**
 * Closed-loop load: every connection sends its next request when the answer to the last one is in. Latencies count from the write
 * of the request to the last byte of the answer. One JSON argument (`ClosedLoad`), one JSON line of result (`ClosedResult`).
 */
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { createHistogram } from 'node:perf_hooks';
import { AnswerReader } from './answer-reader.ts';

export interface ClosedLoad {
  readonly url: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** What an answer must contain to be counted as one. */
  readonly expect: string;
  /** A JSON array of API keys; each request takes the next. */
  readonly keysFile?: string;
  readonly connections: number;
  readonly warmupMs: number;
  readonly measureMs: number;
  /** Ends after that many requests, if sooner than the time is up; the whole run is measured. */
  readonly requestsMax?: number;
}

export interface ClosedResult {
  readonly requests: number;
  /** Good answers in all, those of the warm-up and of the last moment included. */
  readonly answered: number;
  readonly errors: number;
  /** Status or cause of the first error. */
  readonly firstError: string | undefined;
  readonly seconds: number;
  readonly requestsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

const load = JSON.parse(process.argv[2] ?? '') as ClosedLoad;
const requests = encodeRequests();
/** Nanoseconds. */
const latencies = createHistogram();
const target = new URL(load.url);
let turn = 0;
let sent = 0;
let served = 0;
let answered = 0;
let errors = 0;
let firstError: string | undefined;
let measuredFrom = 0;
let stopped = false;
let open = 0;

measuredFrom = performance.now() + load.warmupMs;
setTimeout(stop, load.warmupMs + load.measureMs);
for (let index = 0; index < load.connections; index++) openConnection();

function encodeRequests(): readonly Buffer[] {
  const fixed = { host: new URL(load.url).host, 'content-type': 'application/json', 'content-length': Buffer.byteLength(load.body) };
  const credentials = load.keysFile === undefined ? [undefined] : (JSON.parse(readFileSync(load.keysFile, 'utf8')) as string[]);
  return credentials.map((key) => {
    const headers = { ...fixed, ...load.headers, ...(key === undefined ? {} : { authorization: `Bearer ${key}` }) };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    return Buffer.from(`POST ${load.path} HTTP/1.1\r\n${lines.join('')}\r\n${load.body}`);
  });
}

function openConnection(): void {
  open++;
  const socket = connect({ host: target.hostname, port: Number(target.port), noDelay: true });
  let startedAt = 0;
  let parts: Buffer[] = [];
  const send = () => {
    if (stopped) return void socket.end();
    if (++sent === load.requestsMax) stop();
    startedAt = performance.now();
    socket.write(requests[turn++ % requests.length] ?? Buffer.alloc(0));
  };
  const reader = new AnswerReader({
    body: (part) => void parts.push(part),
    end: (status) => {
      count(status, parts, startedAt);
      parts = [];
      send();
    },
  });
  socket.on('connect', send);
  socket.on('data', (chunk) => reader.feed(chunk));
  socket.on('error', (error) => fail(error.message));
  socket.on('close', () => {
    open--;
    if (!stopped) openAgain();
    else if (open === 0) report();
  });
}

/** A target that closes connections is not measured faster for it: the loss counts as an error, and the load goes on. */
function openAgain(): void {
  fail('the target closed the connection');
  setTimeout(() => (stopped ? undefined : openConnection()), 10);
}

function count(status: number, parts: readonly Buffer[], startedAt: number): void {
  const now = performance.now();
  const fault = faultOf(status, parts);
  if (fault !== undefined) {
    fail(fault);
    return;
  }
  answered++;
  if (now < measuredFrom || (stopped && load.requestsMax === undefined)) return;
  served++;
  latencies.record(Math.max(1, Math.round((now - startedAt) * 1e6)));
}

function faultOf(status: number, parts: readonly Buffer[]): string | undefined {
  const [first] = parts;
  const body = parts.length === 1 && first ? first : Buffer.concat(parts);
  if (status !== 200) return `status ${status}: ${body.toString('utf8', 0, 300)}`;
  return body.includes(load.expect) ? undefined : `an answer without ${load.expect}`;
}

function fail(cause: string): void {
  if (stopped) return;
  errors++;
  firstError ??= cause;
}

function stop(): void {
  if (stopped) return;
  stopped = true;
  measuredUntil = performance.now();
  setTimeout(report, drainMs).unref();
}

const drainMs = 5_000;
let measuredUntil = 0;

function report(): void {
  const seconds = ((load.requestsMax === undefined ? measuredUntil : performance.now()) - measuredFrom) / 1_000;
  const result: ClosedResult = {
    requests: served,
    answered,
    errors,
    firstError,
    seconds,
    requestsPerSecond: served / seconds,
    p50Ms: latencies.percentile(50) / 1e6,
    p99Ms: latencies.percentile(99) / 1e6,
    maxMs: latencies.max / 1e6,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}
