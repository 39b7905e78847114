/**
 * A model provider that costs next to nothing: answers are made once, streams are driven by one timer.
 * `POST /v1/chat/completions` answers at once or streams; `POST /v1/embeddings` answers one vector.
 * `PUT /pace?events=50&perSecond=5` sets the streams to come, `GET /counts` tells what was served. Both are the benchmark's own.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { serveAsPart } from './part-life.ts';
import { StreamWheel } from './stream-wheel.ts';

const counts = { answers: 0, streams: 0, events: 0, streamsOpen: 0, streamsOpenMax: 0, streamsCut: 0 };
const pace = { events: 50, perSecond: 5 };
const identity = { id: 'chatcmpl-bench', created: 1_767_225_600, model: 'bench' };
const usage = { prompt_tokens: 12, completion_tokens: 4, total_tokens: 16 };

const answer = jsonAnswer({
  ...identity,
  object: 'chat.completion',
  choices: [{ index: 0, message: { role: 'assistant', content: 'pong pong pong', refusal: null }, logprobs: null, finish_reason: 'stop' }],
  usage,
});
const embedding = jsonAnswer({
  object: 'list',
  data: [{ object: 'embedding', index: 0, embedding: Array.from({ length: 384 }, (_, index) => Math.fround(Math.sin(index) / 14)) }],
  model: 'bench',
  usage: { prompt_tokens: 4, total_tokens: 4 },
});
const eventHeaders = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' };
const eventTexts: Buffer[] = [];
const wheel = new StreamWheel();

serveAsPart(createServer({ keepAliveTimeout: 60_000, noDelay: true }, serve));

function serve(request: IncomingMessage, response: ServerResponse): void {
  const url = request.url ?? '/';
  if (url.startsWith('/pace')) setPace(url);
  if (url.startsWith('/pace') || url === '/counts') {
    response.end(JSON.stringify({ ...pace, ...counts }));
    return;
  }
  let body = '';
  request.setEncoding('latin1');
  request.on('data', (chunk: string) => {
    body += chunk;
  });
  request.on('end', () => {
    if (url.endsWith('/embeddings')) send(response, embedding);
    else if (/"stream":\s*true/.test(body)) stream(response, /"include_usage":\s*true/.test(body));
    else send(response, answer);
  });
}

function setPace(url: string): void {
  const query = new URL(url, 'http://upstream').searchParams;
  pace.events = Number(query.get('events') ?? pace.events);
  pace.perSecond = Number(query.get('perSecond') ?? pace.perSecond);
  counts.streamsOpenMax = 0;
}

function send(response: ServerResponse, fixed: { readonly headers: Record<string, string>; readonly body: Buffer }): void {
  counts.answers++;
  response.writeHead(200, fixed.headers);
  response.end(fixed.body);
}

function stream(response: ServerResponse, usageAsked: boolean): void {
  counts.streams++;
  counts.streamsOpen++;
  counts.streamsOpenMax = Math.max(counts.streamsOpenMax, counts.streamsOpen);
  const events = pace.events;
  let next = 0;
  response.writeHead(200, eventHeaders);
  response.once('close', () => {
    counts.streamsOpen--;
    if (next < events) counts.streamsCut++;
    next = events;
  });
  wheel.add(1_000 / pace.perSecond, () => {
    if (next >= events) return false;
    counts.events++;
    response.write(eventText(next++));
    if (next === events) response.end(endOfStream(usageAsked));
    return next < events;
  });
}

/** The text of an event is its number, so that a reader can tell a lost one from a doubled one. */
function eventText(number: number): Buffer {
  const known = eventTexts[number];
  if (known) return known;
  const role = number === 0 ? { role: 'assistant' } : {};
  const made = chunkText({ choices: [{ index: 0, delta: { ...role, content: String(number) }, logprobs: null, finish_reason: null }] });
  eventTexts[number] = made;
  return made;
}

function endOfStream(usageAsked: boolean): Buffer {
  const last = chunkText({ choices: [{ index: 0, delta: {}, logprobs: null, finish_reason: 'stop' }] });
  const final = usageAsked ? [last, chunkText({ choices: [], usage })] : [last];
  return Buffer.concat([...final, Buffer.from('data: [DONE]\n\n')]);
}

function chunkText(fields: object): Buffer {
  return Buffer.from(`data: ${JSON.stringify({ ...identity, object: 'chat.completion.chunk', ...fields })}\n\n`);
}

function jsonAnswer(value: object): { readonly headers: Record<string, string>; readonly body: Buffer } {
  const body = Buffer.from(JSON.stringify(value));
  return { headers: { 'content-type': 'application/json', 'content-length': String(body.length) }, body };
}
