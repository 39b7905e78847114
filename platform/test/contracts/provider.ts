/** What every adapter of the `Provider` port owes its callers. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { CompletionEvent, CompletionStream, Provider, ProviderCall } from '../../src/inference/provider.ts';
import { extractUsage } from '../../src/primitives/token-usage.ts';
import { expectValid } from '../conformance/openai-schema.ts';

export interface ProviderUnderTest extends AsyncDisposable {
  readonly provider: Provider;
  /** Calls that run upstream right now, as the upstream sees it. */
  inFlight(): number;
}

export interface ProviderContract {
  readonly chatModel: string;
  /** Undefined: the provider has no embeddings. */
  readonly embeddingModel: string | undefined;
  /** False: the provider takes texts alone. */
  readonly embedsTokens?: false;
  /** False: the provider does not say what embeddings cost. */
  readonly countsEmbeddings?: false;
  /** Answers at once. */
  openFast(): Promise<ProviderUnderTest>;
  /** Takes many seconds over an answer, one event after the other, the first at once. */
  openSlow(): Promise<ProviderUnderTest>;
}

const question = { role: 'user', content: 'What does the lease say about pets?' };
/** The port's promise: an abort reaches the upstream within a second. */
const abortMs = 1_000;

export function testProviderContract(name: string, contract: ProviderContract): void {
  const chat = (extra: Record<string, unknown> = {}): ProviderCall => ({
    upstreamModel: contract.chatModel,
    requestId: 'req_contract',
    body: deepFreeze({ model: 'public-name', messages: [question], ...extra }),
  });
  const embeds = contract.embeddingModel !== undefined;
  const embeddings = (input: unknown, extra: Record<string, unknown> = {}): ProviderCall => ({
    upstreamModel: contract.embeddingModel ?? 'none',
    requestId: 'req_contract',
    body: deepFreeze({ model: 'public-name', input, ...extra }),
  });

  describe(`${name}: an answer`, () => {
    let subject: ProviderUnderTest;
    beforeEach(async () => {
      subject = await contract.openFast();
    });
    afterEach(() => subject[Symbol.asyncDispose]());

    test('is a completion with its usage, as bytes and parsed alike', async () => {
      const { body, parsed, usage } = await subject.provider.complete(chat(), never());
      expectValid('CreateChatCompletionResponse', parsed);
      expect(JSON.parse(body.toString())).toEqual(parsed);
      expect(usage).toEqual(extractUsage(parsed['usage']));
      expect(usage?.outputTokens).toBeGreaterThan(0);
      expect(parsed['model']).toBe(contract.chatModel);
    });

    test('streams chunks that are each one line of JSON, and says its usage once, at the end', async () => {
      const events = await collect(await subject.provider.stream(chat({ stream: true }), never()));
      for (const event of events) {
        expect(event.json).not.toMatch(/[\r\n]/);
        expect(JSON.parse(event.json)).toEqual(event.parsed);
        expectValid('CreateChatCompletionStreamResponse', event.parsed);
      }
      expect(events.filter((event) => extractUsage(event.parsed['usage']) !== undefined)).toEqual([events.at(-1)]);
      expect(events.at(-1)?.parsed['choices']).toEqual([]);
    });

    test('is the same text streamed and whole', async () => {
      const { parsed } = await subject.provider.complete(chat({ seed: 7 }), never());
      const events = await collect(await subject.provider.stream(chat({ seed: 7, stream: true }), never()));
      expect(events.map(deltaText).join('')).toBe(choice(parsed)?.message?.content);
    });

    test('leaves nothing running', async () => {
      await subject.provider.complete(chat(), never());
      await collect(await subject.provider.stream(chat({ stream: true }), never()));
      if (embeds) await subject.provider.embed(embeddings('x'), never());
      await vi.waitFor(() => expect(subject.inFlight()).toBe(0), abortMs);
    });

    test.runIf(!embeds)('to a request for embeddings is that the operator has to act', async () => {
      await expect(subject.provider.embed(embeddings('x'), never())).rejects.toMatchObject({ code: 'upstream_misconfigured' });
    });

    test.runIf(embeds).each([
      ['a text', 'one text', 1],
      ['texts', ['one', 'two', 'three'], 3],
      ...(contract.embedsTokens === false
        ? []
        : ([
            ['tokens', [1, 2, 3], 1],
            ['lists of tokens', [[1, 2], [3]], 2],
          ] as const)),
    ] as const)('to %s is one vector for each', async (_name, input, count) => {
      const { parsed, body, usage } = await subject.provider.embed(embeddings(input), never());
      expectValid('CreateEmbeddingResponse', parsed);
      expect(JSON.parse(body.toString())).toEqual(parsed);
      expect(parsed['data']).toHaveLength(count);
      if (contract.countsEmbeddings === false) expect(usage).toBeUndefined();
      else expect(usage?.inputTokens).toBeGreaterThan(0);
    });

    test.runIf(embeds && contract.embedsTokens === false)('to tokens is that it does not read them', async () => {
      for (const input of [
        [1, 2, 3],
        [[1, 2], [3]],
      ]) {
        await expect(subject.provider.embed(embeddings(input), never())).rejects.toMatchObject({ code: 'unsupported_parameter' });
      }
    });

    test.runIf(embeds)('has the same vector in both encodings', async () => {
      const asFloats = await subject.provider.embed(embeddings('same', { encoding_format: 'float' }), never());
      const asBase64 = await subject.provider.embed(embeddings('same', { encoding_format: 'base64' }), never());
      const floats = vectorOf<number[]>(asFloats.parsed);
      const bytes = Buffer.from(vectorOf<string>(asBase64.parsed), 'base64');
      expect(floats.map((_, index) => bytes.readFloatLE(index * 4))).toEqual(floats.map(Math.fround));
      expect(bytes).toHaveLength(floats.length * 4);
    });

    test('is refused before it is asked for when the caller has gone', async () => {
      const gone = AbortSignal.abort(new Error('gone'));
      await expect(subject.provider.complete(chat(), gone)).rejects.toThrow('gone');
      await expect(subject.provider.stream(chat({ stream: true }), gone)).rejects.toThrow('gone');
      await expect(subject.provider.embed(embeddings('x'), gone)).rejects.toThrow('gone');
    });
  });

  describe(`${name}: an answer that takes long`, () => {
    let subject: ProviderUnderTest;
    beforeEach(async () => {
      subject = await contract.openSlow();
    });
    afterEach(() => subject[Symbol.asyncDispose]());

    const isRunning = () => vi.waitFor(() => expect(subject.inFlight()).toBe(1), abortMs);
    const hasStopped = () => vi.waitFor(() => expect(subject.inFlight()).toBe(0), abortMs);

    test('comes in several batches', async () => {
      const sizes: number[] = [];
      await using stream = await subject.provider.stream(chat({ stream: true }), never());
      for await (const batch of stream.batches) if (sizes.push(batch.length) === 3) break;
      expect(Math.min(...sizes)).toBeGreaterThan(0);
    });

    test('stops upstream when the reader breaks off', async () => {
      const stream = await subject.provider.stream(chat({ stream: true }), never());
      for await (const _batch of stream.batches) {
        await isRunning();
        break;
      }
      await hasStopped();
    });

    test('stops upstream when the stream is disposed of, read or unread', async () => {
      const unread = await subject.provider.stream(chat({ stream: true }), never());
      await isRunning();
      await unread[Symbol.asyncDispose]();
      await hasStopped();
      const read = await subject.provider.stream(chat({ stream: true }), never());
      const iterator = read.batches[Symbol.asyncIterator]();
      await iterator.next();
      const pending = Promise.allSettled([iterator.next(), iterator.next()]);
      await read[Symbol.asyncDispose]();
      await hasStopped();
      await pending;
    });

    test('stops upstream, with the reason of the caller, when the caller goes', async () => {
      const leaving = new AbortController();
      const reading = collect(await subject.provider.stream(chat({ stream: true }), leaving.signal));
      await isRunning();
      leaving.abort(new Error('left'));
      await expect(reading).rejects.toThrow('left');
      await hasStopped();
    });

    test('stops upstream, with the reason of the caller, while the whole is waited for', async () => {
      const leaving = new AbortController();
      const waiting = subject.provider.complete(chat(), leaving.signal);
      const refused = expect(waiting).rejects.toThrow('left');
      await isRunning();
      leaving.abort(new Error('left'));
      await refused;
      await hasStopped();
    });

    test('fails when the provider is closed', async () => {
      const reading = collect(await subject.provider.stream(chat({ stream: true }), never()));
      const refused = expect(reading).rejects.toMatchObject({ code: 'upstream_error' });
      await isRunning();
      await subject.provider.close();
      await refused;
      await hasStopped();
    });
  });
}

export async function collect(stream: CompletionStream): Promise<CompletionEvent[]> {
  const events: CompletionEvent[] = [];
  for await (const batch of stream.batches) events.push(...batch);
  return events;
}

export function deltaText(event: CompletionEvent): string {
  return choice(event.parsed)?.delta?.content ?? '';
}

export function never(): AbortSignal {
  return new AbortController().signal;
}

interface Choice {
  readonly message?: { readonly content?: string | null };
  readonly delta?: { readonly content?: string | null };
}

function choice(parsed: Readonly<Record<string, unknown>>): Choice | undefined {
  return (parsed['choices'] as readonly Choice[])[0];
}

function vectorOf<T>(parsed: Readonly<Record<string, unknown>>): T {
  return (parsed['data'] as readonly { readonly embedding: T }[])[0]?.embedding as T;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) Object.values(Object.freeze(value)).forEach(deepFreeze);
  return value;
}
