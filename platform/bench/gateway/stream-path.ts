/**
 * What reading completion streams costs, against a bare undici pipe that looks at nothing:
 * `node platform/bench/gateway/stream-path.ts [streams] [eventsPerSecond]`. The upstream is a process of its own.
 */
import { createParser } from 'eventsource-parser';
import { Pool } from 'undici';
import { OpenAiCompatibleProvider } from '../../src/adapters/openai-compatible/openai-compatible-provider.ts';
import { createInference } from '../../src/inference/deployments.ts';
import type { CompletionStream } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { startPart } from '../support/part.ts';
import { table, whole } from '../support/table.ts';

const streams = Number(process.argv[2] ?? 2_000);
const eventsPerSecond = Number(process.argv[3] ?? 5);
const eventsPerStream = Math.ceil(eventsPerSecond * 6);
const body = { model: 'bench', stream: true, messages: [{ role: 'user', content: 'ping' }] };
const { signal } = new AbortController();

await using upstream = await startPart({ name: 'upstream', script: 'mock-upstream.ts' });
await fetch(`${upstream.url}/pace?events=${eventsPerStream}&perSecond=${eventsPerSecond}`, { method: 'PUT' });

const pool = new Pool(upstream.url, { connections: streams, allowH2: false, headersTimeout: 60_000 });
const provider = new OpenAiCompatibleProvider(
  {
    id: 'bench',
    kind: 'openai-compatible',
    baseUrl: `${upstream.url}/v1`,
    headersTimeoutMs: 60_000,
    idleTimeoutMs: 60_000,
    connectionsMax: streams,
    promptCacheSalt: false,
  },
  systemClock,
);
const inference = createInference({
  models: [
    {
      id: 'bench',
      kind: 'chat',
      contextTokens: 1_000,
      outputTokensMax: 16_384,
      deployments: [{ provider: 'bench', model: 'bench', limits: { concurrency: streams } }],
    },
  ],
  providers: [provider],
  clock: systemClock,
  waitMaxMs: 1_000,
});
const call = { upstreamModel: 'bench', requestId: 'req_bench', body, size: { inputTokens: 10, outputTokens: 100 } };

const readers: Readonly<Record<string, () => Promise<number>>> = {
  'bare undici pipe': () => readBytes(() => 0),
  'undici, eventsource-parser, JSON': () => readBytes(readWithLibrary()),
  provider: async () => readEvents(await provider.stream(call, signal)),
  'provider behind the inference stage': async () => {
    const route = inference.resolve('bench', {});
    if (route === undefined) throw new Error('the model has no route');
    return readEvents((await inference.stream(route, call, signal)).stream);
  },
};

const rows: (string | number)[][] = [];
for (let round = 0; round < 2; round++) {
  for (const [name, reader] of Object.entries(readers)) {
    const row = await measure(name, reader);
    // The first round opens connections and compiles.
    if (round > 0) rows.push(row);
  }
}
process.stdout.write(`${table(['reader', 'events', 'events/s', 'CPU µs an event', '% of a core', 'events/s a core'], rows)}\n`);
await provider.close();
await pool.destroy();

async function measure(name: string, reader: () => Promise<number>): Promise<(string | number)[]> {
  const startedMs = performance.now();
  const before = process.cpuUsage();
  const counts = await Promise.all(Array.from({ length: streams }, reader));
  const { user, system } = process.cpuUsage(before);
  const events = streams * eventsPerStream;
  const seconds = (performance.now() - startedMs) / 1_000;
  const read = counts.reduce((sum, count) => sum + count, 0);
  if (name !== 'bare undici pipe' && read < events) throw new Error(`${name} lost ${events - read} events`);
  const perEvent = (user + system) / events;
  return [
    name,
    whole(events),
    whole(events / seconds),
    perEvent.toFixed(1),
    ((user + system) / 10_000 / seconds).toFixed(1),
    whole(1e6 / perEvent),
  ];
}

async function readBytes(accept: (chunk: Buffer) => number): Promise<number> {
  const headers = { 'content-type': 'application/json' };
  const response = await pool.request({ method: 'POST', path: '/v1/chat/completions', headers, body: JSON.stringify(body) });
  let events = 0;
  for await (const chunk of response.body) events += accept(chunk as Buffer);
  return events;
}

function readWithLibrary(): (chunk: Buffer) => number {
  let events = 0;
  const decoder = new TextDecoder();
  const parser = createParser({
    onEvent: ({ data }) => {
      if (data !== '[DONE]') JSON.parse(data);
      events++;
    },
  });
  return (chunk) => {
    events = 0;
    parser.feed(decoder.decode(chunk, { stream: true }));
    return events;
  };
}

async function readEvents(stream: CompletionStream): Promise<number> {
  let events = 0;
  for await (const batch of stream.batches) events += batch.length;
  return events;
}
