import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClosedLoad, ClosedResult } from '../../bench/support/load-closed.ts';
import type { StreamLoad, StreamResult } from '../../bench/support/load-streams.ts';
import { type RunningPart, runPart, startPart } from '../../bench/support/part.ts';

/** A server with a planted fault, for as long as `use` takes. */
async function withServer<Result>(listener: RequestListener, use: (url: string) => Promise<Result>): Promise<Result> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

function run<Result>(script: string, load: object): Promise<Result> {
  const signal = AbortSignal.timeout(30_000);
  return runPart<Result>({ name: script, script, args: [JSON.stringify(load)], withinMs: 30_000, signal });
}

const streamLoad: Omit<StreamLoad, 'url'> = {
  path: '/v1/chat/completions',
  headers: {},
  body: '{"stream":true}',
  streams: 20,
  opensPerSecond: 200,
  eventsPerStream: 10,
  eventsPerSecond: 100,
  graceMs: 2_000,
};
const closedLoad: Omit<ClosedLoad, 'url'> = {
  path: '/v1/chat/completions',
  headers: {},
  body: '{}',
  expect: 'pong',
  connections: 4,
  warmupMs: 0,
  measureMs: 300,
};

let upstream: RunningPart;
let proxy: RunningPart;
beforeAll(async () => {
  upstream = await startPart({ name: 'mock upstream', script: 'mock-upstream.ts' });
  proxy = await startPart({ name: 'bare proxy', script: 'bare-proxy.ts', args: [upstream.url] });
});
afterAll(async () => {
  await proxy.stop();
  await upstream.stop();
});

/** Streams whose events have the given numbers. */
const streamOf =
  (numbers: readonly number[], end = 'data: [DONE]\n\n'): RequestListener =>
  (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(numbers.map((number) => `data: {"choices":[{"delta":{"content":"${number}"}}]}\n\n`).join('') + end);
  };
const inOrder = Array.from({ length: streamLoad.eventsPerStream }, (_, number) => number);

describe('the stream load', () => {
  it('reads every event of every stream through the bare proxy at the pace the upstream was set', async () => {
    await fetch(`${upstream.url}/pace?events=10&perSecond=100`, { method: 'PUT' });
    const result = await run<StreamResult>('load-streams.ts', { ...streamLoad, url: proxy.url });
    expect(result).toMatchObject({ streams: 20, complete: 20, refused: 0, events: 200, lost: 0, extra: 0 });
    expect(result.firstError).toBeUndefined();
    expect(result.ttftP50Ms).toBeGreaterThan(0);
  });

  const faults: readonly (readonly [fault: string, listener: RequestListener, result: Partial<StreamResult>])[] = [
    ['lost event', streamOf(inOrder.filter((number) => number !== 3)), { complete: 0, lost: 140, extra: 120 }],
    ['lost last event', streamOf(inOrder.slice(0, -1)), { complete: 0, lost: 20, extra: 0 }],
    ['doubled event', streamOf([...inOrder, 9]), { lost: 0, extra: 20 }],
    ['missing [DONE]', streamOf(inOrder, ''), { complete: 0, lost: 0, firstError: 'a stream ended after 10 of 10 events, without [DONE]' }],
    ['refusal', (_request, response) => void response.writeHead(429).end(), { complete: 0, refused: 20, lost: 200 }],
  ];
  it.each(faults)('tells a %s', async (_fault, listener, expected) => {
    const result = await withServer(listener, (url) => run<StreamResult>('load-streams.ts', { ...streamLoad, url }));
    expect(result).toMatchObject(expected);
  });
});

describe('the closed-loop load', () => {
  it('counts what the upstream served and takes credentials in turn', async () => {
    const result = await run<ClosedResult>('load-closed.ts', { ...closedLoad, url: proxy.url });
    expect(result.errors).toBe(0);
    expect(result.requests).toBeGreaterThan(0);
    expect(result.answered).toBeGreaterThanOrEqual(result.requests);
    expect(result.p50Ms).toBeLessThanOrEqual(result.p99Ms);
  });

  it('ends after as many requests as it was told, each of them counted', async () => {
    const result = await run<ClosedResult>('load-closed.ts', { ...closedLoad, url: upstream.url, measureMs: 20_000, requestsMax: 37 });
    expect(result.requests).toBe(37);
  });

  it('counts an error status and an answer with other content as errors, and says the first', async () => {
    const refused = await withServer(
      (_request, response) => void response.writeHead(503, { 'content-length': '4' }).end('busy'),
      (url) => run<ClosedResult>('load-closed.ts', { ...closedLoad, url }),
    );
    expect(refused).toMatchObject({ requests: 0, firstError: 'status 503: busy' });
    const foreign = await withServer(
      (_request, response) => void response.end('{}'),
      (url) => run<ClosedResult>('load-closed.ts', { ...closedLoad, url }),
    );
    expect(foreign).toMatchObject({ requests: 0, firstError: 'an answer without pong' });
  });
});

describe('a part of a benchmark', () => {
  it('ends when its time is up, with its name in the error', async () => {
    const load = { ...closedLoad, url: upstream.url, measureMs: 60_000 };
    const options = {
      name: 'load-closed',
      script: 'load-closed.ts',
      args: [JSON.stringify(load)],
      withinMs: 300,
      signal: new AbortController().signal,
    };
    await expect(runPart(options)).rejects.toThrow('load-closed ended with code');
  });

  it('is refused when it ends before it is ready, with what it wrote', async () => {
    await expect(startPart({ name: 'bare proxy', script: 'bare-proxy.ts' })).rejects.toThrow(
      /bare proxy ended with code 1 before it was ready:[\s\S]*Invalid URL/,
    );
  });
});
