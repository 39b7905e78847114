import OpenAI from 'openai';
import { describe, expect, it } from 'vitest';
import { createRecordingFetch, type RecordingFetch } from './recording-fetch.ts';
import * as samples from './samples.ts';

const headers = { 'x-request-id': 'req_1' };
const question = { model: 'gpt-4o-mini', messages: [{ role: 'user' as const, content: 'Hi' }] };

/** The official client and the recorder between it and one canned answer. */
function clientOf(
  answer: () => Response,
  onViolation: 'collect' | 'fail' = 'collect',
): { readonly client: OpenAI; readonly recorder: RecordingFetch } {
  const recorder = createRecordingFetch({ inner: async () => answer(), onViolation });
  const client = new OpenAI({ apiKey: 'test', baseURL: 'http://gateway.test/v1', maxRetries: 0, fetch: recorder.fetch });
  return { client, recorder };
}

function json(body: unknown, status = 200, extra: Record<string, string> = headers): Response {
  return Response.json(body, { status, headers: extra });
}

/** Sends the text in pieces of 7 bytes, so that no event arrives whole. */
function sse(text: string): Response {
  const bytes = new TextEncoder().encode(text);
  let offset = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (offset >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(offset, offset + 7));
      offset += 7;
    },
  });
  return new Response(body, { headers: { ...headers, 'content-type': 'text/event-stream; charset=utf-8' } });
}

const unnamed = (...chunks: readonly unknown[]) => chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join('');
const named = (events: readonly { readonly type: string }[]) =>
  events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join('');
const done = 'data: [DONE]\n\n';

async function readChat(client: OpenAI, includeUsage?: boolean): Promise<number> {
  const options = includeUsage === undefined ? {} : { stream_options: { include_usage: includeUsage } };
  const stream = await client.chat.completions.create({ ...question, stream: true, ...options });
  let count = 0;
  for await (const chunk of stream) count += chunk ? 1 : 0;
  return count;
}

async function readResponse(client: OpenAI): Promise<number> {
  const stream = await client.responses.create({ model: 'gpt-4o-mini', input: 'Hi', stream: true });
  let count = 0;
  for await (const event of stream) count += event ? 1 : 0;
  return count;
}

describe('a recording fetch under the official client', () => {
  it('hands a conforming answer on unchanged and keeps it', async () => {
    const { client, recorder } = clientOf(() => json(samples.chatCompletion()));
    const completion = await client.chat.completions.create(question);
    expect(completion.choices[0]?.message.content).toBe('Hello.');
    expect(completion._request_id).toBe('req_1');
    recorder.expectConforming();
    expect(recorder.exchanges).toMatchObject([
      { method: 'POST', path: '/v1/chat/completions', status: 200, requestBody: question, body: samples.chatCompletion() },
    ]);
  });

  it('reports an answer that breaks its schema, with the route', async () => {
    const { client, recorder } = clientOf(() => json({ ...samples.embeddings(), usage: {} }));
    await client.embeddings.create({ model: 'm', input: 'x', encoding_format: 'float' });
    expect(() => recorder.expectConforming()).toThrow(
      "POST /v1/embeddings -> 200 does not conform:\n  $.usage must have required property 'prompt_tokens'",
    );
  });

  it('holds an error to the error object on every route', async () => {
    const conforming = clientOf(() => json(samples.errorBody(), 404));
    await expect(conforming.client.files.retrieve('file-9')).rejects.toThrow(OpenAI.NotFoundError);
    conforming.recorder.expectConforming();
    const broken = clientOf(() => json({ error: 'No such file' }, 404));
    await expect(broken.client.files.retrieve('file-9')).rejects.toThrow(OpenAI.NotFoundError);
    expect(() => broken.recorder.expectConforming()).toThrow('GET /v1/files/file-9 -> 404 does not conform:\n  $.error must be object');
  });

  it('reports an answer without a request id and one in another form than JSON', async () => {
    const { client, recorder } = clientOf(() => json(samples.modelList(), 200, {}));
    await client.models.list();
    expect(() => recorder.expectConforming()).toThrow('no x-request-id header');
    const page = clientOf(() => new Response('<html>', { headers: { ...headers, 'content-type': 'text/html' } }));
    await page.client.models.list();
    expect(() => page.recorder.expectConforming()).toThrow('a ListModelsResponse was due, got content-type text/html');
  });

  it('fails the call itself unless it is told to collect', async () => {
    const { client } = clientOf(() => json(samples.embeddings(), 200, {}), 'fail');
    const call = client.embeddings.create({ model: 'm', input: 'x', encoding_format: 'float' });
    await expect(call).rejects.toMatchObject({ cause: { message: expect.stringContaining('no x-request-id header') } });
    const stream = clientOf(() => sse(unnamed(samples.chatChunk({ object: 'x' }), samples.lastChatChunk()) + done), 'fail');
    await expect(readChat(stream.client)).rejects.toThrow('event 0: $.object must be equal to one of');
    const cut = clientOf(() => sse(unnamed(samples.chatChunk(), samples.lastChatChunk())), 'fail');
    await expect(readChat(cut.client)).rejects.toThrow('the stream ended without [DONE]');
  });

  it('fails when the client never used it', () => {
    expect(() => createRecordingFetch().expectConforming()).toThrow('nothing was recorded');
  });
});

describe('a recorded chat stream', () => {
  it('conforms with and without usage', async () => {
    const plain = clientOf(() => sse(unnamed(samples.chatChunk(), samples.lastChatChunk()) + done));
    expect(await readChat(plain.client)).toBe(2);
    plain.recorder.expectConforming();
    const chunks = [samples.chatChunk({ usage: null }), samples.lastChatChunk({ usage: null }), samples.usageChunk()];
    const withUsage = clientOf(() => sse(unnamed(...chunks) + done));
    expect(await readChat(withUsage.client, true)).toBe(3);
    withUsage.recorder.expectConforming();
    expect(withUsage.recorder.exchanges[0]?.events).toEqual(chunks);
  });

  const broken: readonly (readonly [fault: string, stream: string, includeUsage: boolean | undefined])[] = [
    ['the stream ended without [DONE]', unnamed(samples.chatChunk(), samples.lastChatChunk()), undefined],
    ['a chunk without choices', unnamed(samples.chatChunk(), samples.usageChunk()) + done, undefined],
    ['usage was asked for and no chunk carried it', unnamed(samples.chatChunk({ usage: null })) + done, true],
    ['every chunk carries the key', unnamed(samples.chatChunk(), samples.usageChunk()) + done, true],
    ['carry different ids', unnamed(samples.chatChunk(), samples.lastChatChunk({ id: 'chatcmpl-2' })) + done, undefined],
    [
      'event 0: $.choices.0.delta',
      unnamed(samples.chatChunk({ choices: [{ index: 0, delta: 'x', finish_reason: null }] })) + done,
      undefined,
    ],
  ];
  it.each(broken)('is refused when %s', async (fault, stream, includeUsage) => {
    const { client, recorder } = clientOf(() => sse(stream));
    await readChat(client, includeUsage);
    expect(() => recorder.expectConforming()).toThrow(fault);
  });

  it('may end in an error object, which the client throws', async () => {
    const { client, recorder } = clientOf(() => sse(unnamed(samples.chatChunk(), samples.errorBody())));
    await expect(readChat(client)).rejects.toThrow(OpenAI.APIError);
    recorder.expectConforming();
  });
});

describe('a recorded response stream', () => {
  it('conforms when every event is named, numbered and the last is final', async () => {
    const events = samples.responseEvents();
    const { client, recorder } = clientOf(() => sse(named(events)));
    expect(await readResponse(client)).toBe(events.length);
    recorder.expectConforming();
  });

  it('is refused when a number is skipped, a name differs or the final event is missing', async () => {
    const events = samples.responseEvents();
    const skipped = clientOf(() => sse(named(events.filter((_, index) => index !== 3))));
    await readResponse(skipped.client);
    expect(() => skipped.recorder.expectConforming()).toThrow('event 3: sequence_number 4 follows 2');
    const renamed = clientOf(() => sse(named(events).replace('event: response.in_progress', 'event: response.queued')));
    await readResponse(renamed.client);
    expect(() => renamed.recorder.expectConforming()).toThrow('event: response.queued and data.type response.in_progress differ');
    const cut = clientOf(() => sse(named(events.slice(0, -1))));
    await readResponse(cut.client);
    expect(() => cut.recorder.expectConforming()).toThrow('the stream ended without a final event');
  });
});
