import { describe, expect, it } from 'vitest';
import { checkAgainst, describedRoutes, eventTypesOf, expectValid, streamValidatorFor, validatorFor } from './openai-schema.ts';
import * as samples from './samples.ts';

const good: readonly (readonly [route: string, status: number, sample: unknown])[] = [
  ['POST /v1/chat/completions', 200, samples.chatCompletion()],
  ['POST /v1/responses', 200, samples.response()],
  ['GET /v1/responses/resp_1', 200, samples.response()],
  ['POST /v1/embeddings', 200, samples.embeddings()],
  ['GET /v1/models', 200, samples.modelList()],
  ['GET /v1/files/file-1', 200, samples.file()],
  ['POST /v1/vector_stores', 200, samples.vectorStore()],
  ['POST /v1/vector_stores/vs_1/search', 200, samples.searchPage()],
  ['GET /v1/files/file-2', 404, samples.errorBody()],
];

/** One planted fault each: where, what it becomes (undefined removes it), and what the report must say. */
const faults: readonly (readonly [route: string, path: string, value: unknown, report: string])[] = [
  ['POST /v1/chat/completions', 'choices.0.logprobs', undefined, "$.choices.0 must have required property 'logprobs'"],
  ['POST /v1/chat/completions', 'choices.0.message.refusal', undefined, "$.choices.0.message must have required property 'refusal'"],
  ['POST /v1/chat/completions', 'choices.0.finish_reason', 'stopped', '$.choices.0.finish_reason must be equal to one of'],
  ['POST /v1/chat/completions', 'usage.total_tokens', undefined, "$.usage must have required property 'total_tokens'"],
  ['POST /v1/chat/completions', 'created', 1_767_225_600_123, '$.created must match format "unixtime"'],
  ['POST /v1/responses', 'usage.input_tokens_details.cache_write_tokens', undefined, "must have required property 'cache_write_tokens'"],
  ['POST /v1/responses', 'output.0.content.0.logprobs', undefined, "$.output.0.content.0 must have required property 'logprobs'"],
  ['POST /v1/responses', 'output.0.status', 'done', '$.output.0.status must be equal to one of'],
  ['POST /v1/responses', 'incomplete_details', undefined, "$ must have required property 'incomplete_details'"],
  ['POST /v1/embeddings', 'data.0.embedding.1', 'x', '$.data.0.embedding.1 must be number'],
  ['GET /v1/models', 'object', 'models', '$.object must be equal to one of'],
  ['GET /v1/files/file-1', 'purpose', 'anything', '$.purpose must be equal to one of'],
  ['POST /v1/vector_stores', 'file_counts.total', undefined, "$.file_counts must have required property 'total'"],
  ['POST /v1/vector_stores/vs_1/search', 'search_query', 'notice period', '$.search_query must be array, got "notice period"'],
];

describe('the OpenAI schemas', () => {
  it('compile for every described route and stream', () => {
    const compiled = describedRoutes().map((route) => [validatorFor(route), streamValidatorFor(route)?.violations({})]);
    expect(compiled.length).toBeGreaterThan(50);
    expect(eventTypesOf('POST /v1/responses')).toHaveLength(58);
  });

  it.each(good)('accept a good answer of %s %i', (route, status, sample) => {
    expect(validatorFor(route, status)?.violations(sample)).toEqual([]);
  });

  it.each(faults)('refuse an answer of %s whose %s became %j', (route, path, value, report) => {
    const sample = good.find(([candidate]) => candidate === route)?.[2];
    const broken = planted(sample, path, value);
    const found = validatorFor(route)?.violations(broken) ?? [];
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(report);
  });

  it.each(['message', 'type', 'param', 'code'])('refuse an error without %s on any route', (key) => {
    expect(checkAgainst('ErrorResponse').violations(planted(samples.errorBody(), `error.${key}`, undefined))).toEqual([
      `$.error must have required property '${key}'`,
    ]);
  });

  it('name no schema for an answer that has none', () => {
    expect(validatorFor('GET /v1/files/file-1/content')).toBeUndefined();
    expect(validatorFor('GET /v1/unheard-of')).toBeUndefined();
    expect(() => expectValid('NoSuchSchema', {})).toThrow('no OpenAI schema is called NoSuchSchema');
  });

  it('list every fault of a value in the error that expectValid throws', () => {
    const broken = planted(planted(samples.chatCompletion(), 'id', 7), 'choices.0.logprobs', undefined);
    expect(() => expectValid('CreateChatCompletionResponse', broken)).toThrow(/\$\.id must be string, got 7[\s\S]*'logprobs'/);
  });
});

describe('the schemas of streamed events', () => {
  it('accept each event of a good response by its type', () => {
    const check = streamValidatorFor('POST /v1/responses');
    expect(samples.responseEvents().flatMap((event) => check?.violations(event) ?? ['no check'])).toEqual([]);
  });

  it('refuse an event without sequence_number, a delta without logprobs and a type nobody knows', () => {
    const check = streamValidatorFor('POST /v1/responses');
    const events = samples.responseEvents();
    for (const event of events) {
      expect(check?.violations({ ...event, sequence_number: undefined })).toEqual(["$ must have required property 'sequence_number'"]);
    }
    expect(check?.violations({ ...events[4], logprobs: undefined })).toEqual(["$ must have required property 'logprobs'"]);
    expect(check?.violations({ type: 'response.output_text.chunk' })).toEqual([expect.stringContaining('names no event of this stream')]);
  });

  it('hold a chunk to the chunk schema and an error in its place to the error schema', () => {
    const check = streamValidatorFor('POST /v1/chat/completions');
    const good = [samples.chatChunk(), samples.lastChatChunk(), samples.usageChunk(), samples.errorBody()];
    expect(good.flatMap((chunk) => check?.violations(chunk) ?? ['no check'])).toEqual([]);
    expect(check?.violations(samples.chatChunk({ object: 'chat.completion' }))).toHaveLength(1);
    expect(check?.violations({ error: { message: 'x' } })).toHaveLength(3);
  });
});

/** A copy with the value at a dotted path replaced, or removed when it is undefined. */
function planted(sample: unknown, path: string, value: unknown): unknown {
  const copy: unknown = structuredClone(sample);
  const keys = path.split('.');
  const last = keys.pop() ?? '';
  const holder = keys.reduce<unknown>((inner, key) => Reflect.get(Object(inner), key), copy);
  if (!Reflect.has(Object(holder), last)) throw new Error(`the sample has no ${path}: nothing was planted`);
  if (value === undefined) Reflect.deleteProperty(Object(holder), last);
  else Reflect.set(Object(holder), last, value);
  return copy;
}
