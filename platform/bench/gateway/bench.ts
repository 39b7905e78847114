/** What every scenario is given, and what it gives back. */
import type { ClosedLoad, ClosedResult } from '../support/load-closed.ts';
import type { StreamLoad, StreamResult } from '../support/load-streams.ts';
import { type Pinning, processorSeconds } from '../support/machine.ts';
import { type RunningPart, runPart } from '../support/part.ts';

export interface Target {
  readonly name: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly pid: number;
}

export interface Bench {
  readonly quick: boolean;
  readonly rounds: number;
  readonly pinning: Pinning;
  readonly upstream: RunningPart;
  readonly signal: AbortSignal;
  say(text: string): void;
}

export interface Finding {
  readonly title: string;
  /** Markdown: what was done, and the table. */
  readonly markdown: string;
  readonly raw: unknown;
}

export const chatPath = '/v1/chat/completions';
const slackMs = 30_000;

export function chatBody(stream: boolean): string {
  return JSON.stringify({ model: 'bench', messages: [{ role: 'user', content: 'ping ping ping' }], ...(stream && { stream }) });
}

export type ClosedShape = Pick<ClosedLoad, 'connections' | 'warmupMs' | 'measureMs'> &
  Partial<Pick<ClosedLoad, 'keysFile' | 'requestsMax'>>;

export interface ClosedRun extends ClosedResult {
  /** Processor time the target used for one request, all its threads, microseconds. NaN where the system does not tell. */
  readonly processorMicros: number;
}

/** One run of closed-loop chat requests. Throws when any request failed: a figure with errors in it is none. */
export async function closedChat(bench: Bench, target: Target, shape: ClosedShape): Promise<ClosedRun> {
  const before = processorSeconds(target.pid);
  const load: ClosedLoad = { url: target.url, path: chatPath, headers: target.headers, body: chatBody(false), expect: 'pong', ...shape };
  const result = await runPart<ClosedResult>({
    name: 'load-closed',
    script: 'load-closed.ts',
    args: [JSON.stringify(load)],
    cpus: bench.pinning.load,
    withinMs: shape.warmupMs + shape.measureMs + slackMs,
    signal: bench.signal,
  });
  if (result.errors > 0) throw new Error(`${target.name}: ${result.errors} requests failed, the first with: ${result.firstError}`);
  return { ...result, processorMicros: ((processorSeconds(target.pid) - before) / result.answered) * 1e6 };
}

export type StreamShape = Pick<StreamLoad, 'streams' | 'opensPerSecond' | 'eventsPerStream' | 'eventsPerSecond'>;

export interface StreamRun extends StreamResult {
  /** Processor time the target used for one event delivered, opening and closing of the streams included, microseconds. */
  readonly processorMicros: number;
}

export async function openStreams(bench: Bench, target: Target, shape: StreamShape): Promise<StreamRun> {
  await fetch(`${bench.upstream.url}/pace?events=${shape.eventsPerStream}&perSecond=${shape.eventsPerSecond}`, { method: 'PUT' });
  const graceMs = 10_000;
  const load: StreamLoad = { url: target.url, path: chatPath, headers: target.headers, body: chatBody(true), graceMs, ...shape };
  const idealMs = (shape.streams / shape.opensPerSecond + shape.eventsPerStream / shape.eventsPerSecond) * 1_000;
  const before = processorSeconds(target.pid);
  const result = await runPart<StreamResult>({
    name: 'load-streams',
    script: 'load-streams.ts',
    args: [JSON.stringify(load)],
    cpus: bench.pinning.load,
    withinMs: idealMs + graceMs + slackMs,
    signal: bench.signal,
  });
  return { ...result, processorMicros: ((processorSeconds(target.pid) - before) / result.events) * 1e6 };
}
