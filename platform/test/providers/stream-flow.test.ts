/** How streams behave on the wire: they stop when the reader does, wait when the reader waits, and come by the thousand. */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { OpenAiCompatibleProvider } from '../../src/adapters/openai-compatible/openai-compatible-provider.ts';
import type { OpenAiCompatibleProviderConfig } from '../../src/config/schema.ts';
import type { ProviderCall } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { never } from '../contracts/provider.ts';
import { openAiConfig } from '../support/providers.ts';
import { openStream, ScriptedUpstream } from '../support/scripted-upstream.ts';

const call: ProviderCall = { upstreamModel: 'm', requestId: 'req_1', body: { messages: [] } };
const event = (content: string) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;

let upstream: ScriptedUpstream;
let provider: OpenAiCompatibleProvider;

beforeEach(async () => {
  upstream = await ScriptedUpstream.start(openStream(event('first')));
});
afterEach(async () => {
  await provider.close();
  await upstream[Symbol.asyncDispose]();
});

function open(config: Partial<OpenAiCompatibleProviderConfig> = {}): OpenAiCompatibleProvider {
  provider = new OpenAiCompatibleProvider(openAiConfig(upstream.baseUrl, config), systemClock);
  return provider;
}

test('a slow reader makes the provider wait instead of filling our memory, and misses nothing', async () => {
  const piece = event('x'.repeat(16_000));
  const pieces = 4_000;
  let sent = 0;
  upstream.answerWith(async (response: ServerResponse) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (; sent < pieces; sent++) if (!response.write(piece)) await once(response, 'drain');
    response.end('data: [DONE]\n\n');
  });
  const stream = await open().stream(call, never());
  let before = -1;
  // It has stopped when nothing more is sent between two looks.
  await vi.waitFor(
    () => {
      const now = sent;
      const isStill = now === before && now > 0;
      before = now;
      expect(isStill).toBe(true);
    },
    { timeout: 5_000, interval: 200 },
  );
  expect(sent * piece.length).toBeLessThan(16 * 1_024 * 1_024);
  expect(sent).toBeLessThan(pieces);
  let received = 0;
  for await (const batch of stream.batches) received += batch.length;
  expect(received).toBe(pieces);
});

test('waiting for a slow reader is not silence of the provider', async () => {
  upstream.answerWith((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(event('x'.repeat(1_000)).repeat(1_000));
  });
  const stream = await open({ idleTimeoutMs: 100 }).stream(call, never());
  await new Promise((resolve) => setTimeout(resolve, 300));
  let received = 0;
  for await (const batch of stream.batches) received += batch.length;
  expect(received).toBe(1_000);
});

test('a caller who goes while waiting for a connection is not sent upstream', async () => {
  open({ connectionsMax: 1 });
  await using _occupying = await provider.stream(call, never());
  const leaving = new AbortController();
  const waiting = provider.stream(call, leaving.signal);
  leaving.abort(new Error('left'));
  await expect(waiting).rejects.toThrow('left');
  await _occupying[Symbol.asyncDispose]();
  await using _next = await provider.stream(call, never());
  expect(upstream.received).toHaveLength(2);
});

test('a caller who goes before the headers come ends the call upstream', async () => {
  upstream.answerWith(() => {});
  const leaving = new AbortController();
  const waiting = open().stream(call, leaving.signal);
  const refused = expect(waiting).rejects.toThrow('left');
  await vi.waitFor(() => expect(upstream.running).toBe(1));
  leaving.abort(new Error('left'));
  await refused;
  await vi.waitFor(() => expect(upstream.running).toBe(0), 1_000);
});

test('a caller who goes while a failure explains itself is gone, not failed', async () => {
  upstream.answerWith((response) => {
    response.writeHead(500, { 'content-type': 'application/json' });
    response.write('{"error":');
  });
  const leaving = new AbortController();
  const waiting = open().stream(call, leaving.signal);
  const refused = expect(waiting).rejects.toThrow('left');
  await vi.waitFor(() => expect(upstream.running).toBe(1));
  leaving.abort(new Error('left'));
  await refused;
});

test('one stream that ends badly leaves the others alone', async () => {
  open();
  const streams = await Promise.all(Array.from({ length: 20 }, () => provider.stream(call, never())));
  const readers = streams.map((stream) => stream.batches[Symbol.asyncIterator]());
  await Promise.all(readers.map((reader) => reader.next()));
  await Promise.all(streams.slice(0, 19).map((stream) => stream[Symbol.asyncDispose]()));
  await vi.waitFor(() => expect(upstream.running).toBe(1), 1_000);
  await readers[19]?.return?.();
  await vi.waitFor(() => expect(upstream.running).toBe(0), 1_000);
});

test('two thousand streams run at once', async () => {
  const finish: (() => void)[] = [];
  upstream.answerWith((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(event('first'));
    finish.push(() => response.end(`${event('second')}data: [DONE]\n\n`));
  });
  open({ connectionsMax: 2_000, headersTimeoutMs: 30_000 });
  const streams = await Promise.all(Array.from({ length: 2_000 }, () => provider.stream(call, never())));
  expect(upstream.running).toBe(2_000);
  for (const end of finish) end();
  const counts = await Promise.all(
    streams.map(async (stream) => {
      let events = 0;
      for await (const batch of stream.batches) events += batch.length;
      return events;
    }),
  );
  expect(new Set(counts)).toEqual(new Set([2]));
});
