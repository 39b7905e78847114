/**
 * Open-loop load: every request leaves at its time, however late the answers are. One argument: a file with an `OpenLoad` as JSON; what became of each
 * request goes to `answersFile`, one JSON line says how the load itself did (`OpenLoadResult`).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { Pool } from 'undici';
import type { Arrival } from './outcome.ts';

export interface OpenLoad {
  readonly url: string;
  readonly model: string;
  /** API keys by tenant. */
  readonly keys: Readonly<Record<string, string>>;
  /** In order of time. */
  readonly arrivals: readonly Arrival[];
  /** After the last request, for what is under way; the rest is cut off. */
  readonly drainMs: number;
  readonly answersFile: string;
}

/** Of the request with this number; times in ms since the load began. */
export interface LoadAnswer {
  readonly number: number;
  readonly sentAtMs: number;
  readonly answeredAtMs: number;
  /** 0: no answer. */
  readonly status: number;
  /** Of an error: its code, or what became of the connection. */
  readonly code?: string;
  readonly queueMs?: number;
  readonly upstreamMs?: number;
  readonly inputTokens?: number;
  readonly outputTokens?: number;
}

export interface OpenLoadResult {
  readonly sent: number;
  /** Whose time came and which could not leave before the end, because the load had too little of the machine. */
  readonly unsent: number;
  readonly cutOff: number;
  /** How late requests left, ms. */
  readonly lateP99Ms: number;
}

interface Body {
  readonly usage?: { readonly prompt_tokens: number; readonly completion_tokens: number };
  readonly error?: { readonly code?: string };
}

const connectionsMax = 4_096;
const timeoutMs = 50_000;
const tickMs = 2;
/** The chat template and the text before the filling. */
const promptTokensBase = 14;
const filling = ' data'.repeat(4_096);

const load = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as OpenLoad;
const pool = new Pool(load.url, { connections: connectionsMax, pipelining: 1 });
const ending = new AbortController();
const answers: LoadAnswer[] = [];
const lateness: number[] = [];
const startedAt = performance.now();
let next = 0;
let open = 0;
const timer = setInterval(sendDue, tickMs);

function sinceStart(): number {
  return performance.now() - startedAt;
}

function sendDue(): void {
  const batchUntilMs = sinceStart() + tickMs;
  for (let arrival = load.arrivals[next]; arrival !== undefined && arrival.atMs <= sinceStart(); arrival = load.arrivals[next]) {
    // A process that gets too little of the machine must still read answers.
    if (sinceStart() > batchUntilMs) break;
    open++;
    void send(next++, arrival).finally(() => {
      open--;
    });
  }
  const lastMs = load.arrivals.at(-1)?.atMs ?? 0;
  const isOver = sinceStart() > lastMs + load.drainMs;
  if (!isOver && (next < load.arrivals.length || open > 0)) return;
  clearInterval(timer);
  report();
}

async function send(number: number, arrival: Arrival): Promise<void> {
  const sentAtMs = sinceStart();
  lateness.push(sentAtMs - arrival.atMs);
  try {
    const { statusCode, headers, body } = await pool.request({
      method: 'POST',
      path: '/v1/chat/completions',
      headers: { authorization: `Bearer ${load.keys[arrival.tenant]}`, 'content-type': 'application/json' },
      body: bodyOf(number, arrival),
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      signal: ending.signal,
    });
    const answer = (await body.json()) as Body;
    const header = (name: string) => (headers[name] === undefined ? undefined : Number(headers[name]));
    answers.push({
      number,
      sentAtMs,
      answeredAtMs: sinceStart(),
      status: statusCode,
      ...(statusCode !== 200 && { code: answer.error?.code ?? `status_${statusCode}` }),
      ...definedOnly({
        queueMs: header('x-bulkhead-queue-ms'),
        upstreamMs: header('x-bulkhead-upstream-ms'),
        inputTokens: answer.usage?.prompt_tokens,
        outputTokens: answer.usage?.completion_tokens,
      }),
    });
  } catch (error) {
    answers.push({ number, sentAtMs, answeredAtMs: sinceStart(), status: 0, code: codeOf(error) });
  }
}

/** An answer of exactly `max_tokens`: the simulated provider reasons longer than that. */
function bodyOf(number: number, { inputTokens, outputTokens }: Arrival): string {
  const content = `Request ${number}:${filling.slice(0, 5 * Math.max(1, inputTokens - promptTokensBase))}`;
  return JSON.stringify({ model: load.model, messages: [{ role: 'user', content }], max_tokens: outputTokens, reasoning_effort: 'max' });
}

function codeOf(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string') return error.code;
  return error instanceof Error ? error.name : 'unknown';
}

function definedOnly(fields: Readonly<Record<string, number | undefined>>): Readonly<Record<string, number>> {
  return Object.fromEntries(Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}

function report(): void {
  ending.abort();
  writeFileSync(load.answersFile, JSON.stringify(answers));
  const sorted = lateness.toSorted((left, right) => left - right);
  const result: OpenLoadResult = {
    sent: next,
    unsent: load.arrivals.length - next,
    cutOff: next - answers.length,
    lateP99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0));
}
