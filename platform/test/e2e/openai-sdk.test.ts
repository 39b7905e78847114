import OpenAI, { toFile } from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRecordingFetch } from '../conformance/recording-fetch.ts';
import { type RunningBulkhead, startBulkhead } from '../support/running-bulkhead.ts';

let bulkhead: RunningBulkhead;
beforeAll(async () => {
  bulkhead = await startBulkhead();
});
afterAll(async () => {
  await bulkhead[Symbol.asyncDispose]();
});

/** The unchanged SDK; every answer and every stream event it sees is checked against OpenAI's schema. */
function clientOf(tenant: string, credential: 'apiKey' | 'jwt' = 'apiKey'): OpenAI {
  const recording = createRecordingFetch();
  return new OpenAI({
    baseURL: `${bulkhead.baseUrl}/v1`,
    apiKey: bulkhead.tenant(tenant)[credential],
    fetch: recording.fetch,
    maxRetries: 0,
  });
}

/** Without the schema check, for what the schema does not describe: base64 vectors, and errors that the check would wrap. */
function plainClientOf(tenant: string): OpenAI {
  return new OpenAI({ baseURL: `${bulkhead.baseUrl}/v1`, apiKey: bulkhead.tenant(tenant).apiKey, maxRetries: 0 });
}

const question = 'What is the code word of the launch?';
const wordOf: Readonly<Record<string, string>> = { acme: 'kestrel', globex: 'marzipan' };

async function uploadKnowledge(client: OpenAI, tenant: string): Promise<string> {
  const text = `# Launch\n\nThe code word of the launch is ${wordOf[tenant]}. It is spoken once.\n\n# Canteen\n\nThe canteen opens at noon.\n`;
  const file = await client.files.create({ file: await toFile(Buffer.from(text), 'launch.md'), purpose: 'assistants' });
  const store = await client.vectorStores.create({ name: 'launch' });
  const attached = await client.vectorStores.files.createAndPoll(store.id, { file_id: file.id });
  expect(attached.status).toBe('completed');
  return store.id;
}

describe('the unchanged openai SDK', () => {
  it('chats, with an API key and with a JWT', async () => {
    for (const credential of ['apiKey', 'jwt'] as const) {
      const answer = await clientOf('acme', credential).chat.completions.create({
        model: 'sim-fast',
        messages: [{ role: 'user', content: 'hello' }],
      });
      expect(answer.choices[0]?.message.content).toBeTruthy();
      expect(answer.usage?.total_tokens).toBeGreaterThan(0);
    }
  });

  it('streams, with usage only when asked', async () => {
    const client = clientOf('acme');
    const ask = (usage: boolean) =>
      client.chat.completions.create({
        model: 'sim-fast',
        stream: true,
        messages: [{ role: 'user', content: 'hello' }],
        ...(usage && { stream_options: { include_usage: true } }),
      });
    for (const usageWanted of [false, true]) {
      let text = '';
      let usageChunks = 0;
      for await (const chunk of await ask(usageWanted)) {
        text += chunk.choices[0]?.delta.content ?? '';
        if (chunk.usage) usageChunks++;
      }
      expect(text).not.toBe('');
      expect(usageChunks).toBe(usageWanted ? 1 : 0);
    }
  });

  it('calls tools and keeps to a JSON schema', async () => {
    const client = clientOf('acme');
    const called = await client.chat.completions.create({
      model: 'sim-fast',
      messages: [{ role: 'user', content: 'What is the weather in Phoenix?' }],
      tools: [
        {
          type: 'function',
          function: { name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } },
        },
      ],
    });
    const call = called.choices[0]?.message.tool_calls?.[0];
    expect(call?.type === 'function' && JSON.parse(call.function.arguments)).toHaveProperty('city');
    const shaped = await client.chat.completions.create({
      model: 'sim-fast',
      messages: [{ role: 'user', content: 'A person, please.' }],
      response_format: {
        type: 'json_schema',
        json_schema: {
          name: 'person',
          schema: { type: 'object', properties: { name: { type: 'string' }, age: { type: 'integer' } }, required: ['name', 'age'] },
        },
      },
    });
    const person = JSON.parse(shaped.choices[0]?.message.content ?? '') as { readonly age: unknown };
    expect(Number.isInteger(person.age)).toBe(true);
  });

  it('embeds, as floats and as the base64 the SDK asks for by itself', async () => {
    const client = clientOf('acme');
    const defaults = await plainClientOf('acme').embeddings.create({ model: 'local-hash-384', input: ['one', 'two'] });
    const floats = await client.embeddings.create({ model: 'local-hash-384', input: ['one', 'two'], encoding_format: 'float' });
    expect(defaults.data[0]?.embedding).toHaveLength(384);
    expect(Array.from(defaults.data[0]?.embedding ?? [])).toEqual(floats.data[0]?.embedding.map(Math.fround));
  });

  it('lists the models', async () => {
    const ids = (await clientOf('acme').models.list()).data.map((model) => model.id);
    expect(ids).toEqual(expect.arrayContaining(['sim-fast', 'local-hash-384']));
  });

  it("answers two tenants' same question from each one's own documents, cited, streamed and not", async () => {
    for (const tenant of ['acme', 'globex']) {
      const client = clientOf(tenant);
      const storeId = await uploadKnowledge(client, tenant);
      const ask = { model: 'sim-fast', input: question, tools: [{ type: 'file_search' as const, vector_store_ids: [storeId] }] };
      const whole = await client.responses.create(ask);
      const other = tenant === 'acme' ? 'globex' : 'acme';
      expect(whole.output_text).toContain(wordOf[tenant]);
      expect(whole.output_text).not.toContain(wordOf[other]);
      expect(JSON.stringify(whole.output)).toContain('"type":"file_citation"');

      let streamed = '';
      let citations = 0;
      for await (const event of await client.responses.create({ ...ask, stream: true })) {
        if (event.type === 'response.output_text.delta') streamed += event.delta;
        if (event.type === 'response.output_text.annotation.added') citations++;
      }
      expect(streamed).toContain(wordOf[tenant]);
      expect(citations).toBeGreaterThan(0);
    }
  });

  it("answers another tenant's store, file and response exactly as absent ones", async () => {
    const acme = clientOf('acme');
    const storeId = await uploadKnowledge(acme, 'acme');
    const response = await acme.responses.create({ model: 'sim-fast', input: 'remember me' });
    const fileId = (await acme.files.list()).data[0]?.id ?? '';
    const foreign: readonly [string, string][] = [
      [`/vector_stores/${storeId}`, '/vector_stores/vs_00000000000000000000000000'],
      [`/files/${fileId}`, '/files/file-00000000000000000000000000'],
      [`/files/${fileId}/content`, '/files/file-00000000000000000000000000/content'],
      [`/responses/${response.id}`, '/responses/resp_00000000000000000000000000'],
    ];
    for (const [theirs, absent] of foreign) {
      const [a, b] = [await rawGet('globex', theirs), await rawGet('globex', absent)];
      expect(a.status).toBe(404);
      expect({ ...a, body: withoutIds(a.body) }).toEqual({ ...b, body: withoutIds(b.body) });
    }
    const search = await clientOf('globex')
      .responses.create({ model: 'sim-fast', input: question, tools: [{ type: 'file_search', vector_store_ids: [storeId] }] })
      .catch((error: unknown) => error);
    expect(search).toMatchObject({ status: 404 });
  });

  it('continues a stored response', async () => {
    const client = clientOf('acme');
    const first = await client.responses.create({ model: 'sim-fast', input: 'My name is Ada.' });
    const second = await client.responses.create({ model: 'sim-fast', input: 'What is my name?', previous_response_id: first.id });
    expect(second.previous_response_id).toBe(first.id);
    expect(second.usage?.input_tokens).toBeGreaterThan(first.usage?.input_tokens ?? 0);
    expect((await client.responses.retrieve(first.id)).id).toBe(first.id);
    const items = await client.responses.inputItems.list(first.id);
    expect(JSON.stringify(items.data)).toContain('My name is Ada.');
  });

  it('bills each tenant for its own calls', async () => {
    const before = await usageOf('initech');
    const answer = await clientOf('initech').chat.completions.create({ model: 'sim-fast', messages: [{ role: 'user', content: 'hello' }] });
    const after = await usageOf('initech');
    expect(after.requests - before.requests).toBe(1);
    expect(after.input - before.input).toBe(answer.usage?.prompt_tokens);
    expect(after.output - before.output).toBe(answer.usage?.completion_tokens);
    expect(after.cost).toBeGreaterThan(before.cost);
  });

  it('refuses beyond the limit with what the SDK needs to wait', async () => {
    const client = plainClientOf('initech');
    const outcomes = await Promise.allSettled(
      Array.from({ length: 80 }, () => client.embeddings.create({ model: 'local-hash-384', input: 'x' })),
    );
    const refused = outcomes.find((outcome) => outcome.status === 'rejected');
    expect(refused?.reason).toBeInstanceOf(OpenAI.RateLimitError);
    const error = refused?.reason as InstanceType<typeof OpenAI.APIError>;
    expect(Number(error.headers?.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(error.headers?.get('x-ratelimit-limit-requests') ?? error.code).toBeTruthy();
  });
});

async function rawGet(tenant: string, path: string) {
  const answer = await fetch(`${bulkhead.baseUrl}/v1${path}`, { headers: { authorization: `Bearer ${bulkhead.tenant(tenant).apiKey}` } });
  const headers = [...answer.headers.keys()].sort();
  return { status: answer.status, headers, body: await answer.text() };
}

/** Bodies repeat the id that was asked for and the request's own; both have a fixed length. */
function withoutIds(body: string): string {
  return body.replaceAll(/(vs_|file-|resp_|req_)[0-9a-z]{26}/g, '$1');
}

async function usageOf(tenant: string) {
  const { adminToken } = bulkhead.quickstart();
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1/tenants/${tenant}/usage`, {
    headers: { authorization: `Bearer ${adminToken}` },
  });
  const { data } = (await answer.json()) as {
    readonly data: readonly {
      readonly requests: number;
      readonly input_tokens: number;
      readonly output_tokens: number;
      readonly cost_nano_usd: string;
    }[];
  };
  const row = data[0];
  return {
    requests: row?.requests ?? 0,
    input: row?.input_tokens ?? 0,
    output: row?.output_tokens ?? 0,
    cost: Number(row?.cost_nano_usd ?? 0),
  };
}
