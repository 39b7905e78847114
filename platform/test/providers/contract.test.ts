import type { ServerResponse } from 'node:http';
import { AiSdkProvider } from '../../src/adapters/ai-sdk/ai-sdk-provider.ts';
import { AnthropicProvider } from '../../src/adapters/anthropic/anthropic-provider.ts';
import { OpenAiCompatibleProvider } from '../../src/adapters/openai-compatible/openai-compatible-provider.ts';
import type { SimulatedProvider } from '../../src/adapters/simulated/simulated-provider.ts';
import type { Completion, Provider, ProviderCall } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { deltaText, never, type ProviderUnderTest, testProviderContract } from '../contracts/provider.ts';
import { accepting, beginStream, eventsOf, framed, message, textBlock, usageCounts } from '../support/anthropic-upstream.ts';
import { bedrockFrame, beginBedrock } from '../support/bedrock-upstream.ts';
import { beginGemini, geminiEvent, response as geminiResponse } from '../support/gemini-upstream.ts';
import { anthropicConfig, bedrockConfig, geminiConfig, openAiConfig, simulated } from '../support/providers.ts';
import { answer, ScriptedUpstream, type UpstreamScript } from '../support/scripted-upstream.ts';

const slow = { timeToFirstTokenMs: 0, tokensPerSecond: 4 };
const models = { chatModel: 'sim-chat', embeddingModel: 'sim-embedding' };

testProviderContract('the simulated provider', { ...models, openFast: async () => inProcess({}), openSlow: async () => inProcess(slow) });

testProviderContract('the OpenAI-compatible provider', { ...models, openFast: () => overHttp({}), openSlow: () => overHttp(slow) });

testProviderContract('the Anthropic provider', {
  ...models,
  embeddingModel: undefined,
  openFast: () => asAnthropic({}),
  openSlow: () => asAnthropic(slow),
});

testProviderContract('the AI SDK provider with Gemini', {
  ...models,
  embedsTokens: false,
  countsEmbeddings: false,
  openFast: () => asGemini({}),
  openSlow: () => asGemini(slow),
});

testProviderContract('the AI SDK provider with Bedrock', {
  ...models,
  embedsTokens: false,
  openFast: () => asBedrock({}),
  openSlow: () => asBedrock(slow),
});

function inProcess(pace: Partial<typeof slow>): ProviderUnderTest {
  const provider = simulated(pace);
  return { provider, inFlight: () => provider.inFlight, [Symbol.asyncDispose]: () => provider.close() };
}

/** The same simulation behind HTTP, so that both adapters are asked the same and only the transport differs. */
async function overHttp(pace: Partial<typeof slow>): Promise<ProviderUnderTest> {
  const upstream = await ScriptedUpstream.start(serving(simulated(pace)));
  return underTest(upstream, new OpenAiCompatibleProvider(openAiConfig(upstream.baseUrl), systemClock));
}

/** And behind the Messages API. */
async function asAnthropic(pace: Partial<typeof slow>): Promise<ProviderUnderTest> {
  const upstream = await ScriptedUpstream.start(accepting(servingMessages(simulated(pace))));
  return underTest(upstream, new AnthropicProvider(anthropicConfig(upstream.baseUrl), systemClock));
}

/** And behind Google's API. */
async function asGemini(pace: Partial<typeof slow>): Promise<ProviderUnderTest> {
  const upstream = await ScriptedUpstream.start(servingGemini(simulated(pace)));
  return underTest(upstream, await AiSdkProvider.open(geminiConfig(upstream.baseUrl), systemClock));
}

/** And behind Amazon's. */
async function asBedrock(pace: Partial<typeof slow>): Promise<ProviderUnderTest> {
  const upstream = await ScriptedUpstream.start(servingBedrock(simulated(pace)));
  return underTest(upstream, await AiSdkProvider.open(bedrockConfig(upstream.baseUrl), systemClock));
}

function underTest(upstream: ScriptedUpstream, provider: Provider): ProviderUnderTest {
  return {
    provider,
    inFlight: () => upstream.running,
    async [Symbol.asyncDispose]() {
      await provider.close();
      await upstream[Symbol.asyncDispose]();
    },
  };
}

function serving(model: SimulatedProvider): UpstreamScript {
  return async (response, { path, body }) => {
    const call: ProviderCall = { upstreamModel: String(body['model']), requestId: 'req_upstream', body };
    const gone = new AbortController();
    response.on('close', () => gone.abort());
    const send = (answered: Completion) => response.setHeader('content-type', 'application/json').end(answered.body);
    try {
      if (path.endsWith('/embeddings')) send(await model.embed(call, never()));
      else if (body['stream'] !== true) send(await model.complete(call, gone.signal));
      else {
        response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
        const stream = await model.stream(call, gone.signal);
        for await (const batch of stream.batches) for (const event of batch) response.write(`data: ${event.json}\n\n`);
        response.end('data: [DONE]\n\n');
      }
    } catch (error) {
      if (!gone.signal.aborted) throw error;
    }
  };
}

function servingMessages(model: SimulatedProvider): UpstreamScript {
  return async (response, request) => {
    const { body } = request;
    const name = String(body['model']);
    const call: ProviderCall = { upstreamModel: name, requestId: 'req_upstream', body: { messages: plainMessages(body['messages']) } };
    const gone = new AbortController();
    response.on('close', () => gone.abort());
    try {
      if (body['stream'] !== true) {
        const { parsed, usage } = await model.complete(call, gone.signal);
        const [choice] = parsed['choices'] as readonly { readonly message: { readonly content: string } }[];
        const counts = usageCounts({ input_tokens: usage?.inputTokens ?? 0, output_tokens: usage?.outputTokens ?? 0 });
        await answer(200, message([textBlock(choice?.message.content ?? '')], { model: name, usage: counts }))(response, request);
        return;
      }
      const [start, ping, open, ...rest] = eventsOf(message([textBlock('')], { model: name }));
      beginStream(response);
      for (const event of [start, ping, open]) if (event !== undefined) response.write(framed(event));
      const stream = await model.stream(call, gone.signal);
      for await (const batch of stream.batches) {
        for (const text of batch.map(deltaText).filter((piece) => piece !== '')) {
          response.write(framed({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } }));
        }
      }
      response.end(rest.map(framed).join(''));
    } catch (error) {
      if (!gone.signal.aborted) throw error;
    }
  };
}

function servingGemini(model: SimulatedProvider): UpstreamScript {
  return (response, request) =>
    untilGone(response, async (signal) => {
      const { path, body } = request;
      const [, name = '', method = ''] = /models\/([^:]+):(\w+)/.exec(path) ?? [];
      if (method.startsWith('embed') || method.startsWith('batchEmbed')) {
        const vectors = await vectorsOf(model, method.startsWith('batch') ? (body['requests'] as readonly unknown[]).length : 1);
        const embeddings = vectors.map((values) => ({ values }));
        return answer(200, method.startsWith('batch') ? { embeddings } : { embedding: embeddings[0] })(response, request);
      }
      const contents = body['contents'] as readonly { readonly role: string; readonly parts: readonly { readonly text: string }[] }[];
      const call = callOf(
        name,
        contents.map(({ role, parts }) => ({ role, content: parts })),
      );
      if (method === 'generateContent') {
        const { text, input, output } = await wholeOf(model, call, signal);
        const usage = { promptTokenCount: input, candidatesTokenCount: output, totalTokenCount: input + output };
        return answer(200, geminiResponse({ parts: [{ text }], finishReason: 'STOP', usage }))(response, request);
      }
      beginGemini(response);
      for await (const text of textsOf(model, call, signal)) response.write(geminiEvent(geminiResponse({ parts: [{ text }] })));
      const usage = { promptTokenCount: 3, candidatesTokenCount: 5, totalTokenCount: 8 };
      response.end(geminiEvent(geminiResponse({ parts: [], finishReason: 'STOP', usage })));
    });
}

function servingBedrock(model: SimulatedProvider): UpstreamScript {
  return (response, request) =>
    untilGone(response, async (signal) => {
      const { path, body } = request;
      const [, name = '', method = ''] = /model\/([^/]+)\/([\w-]+)/.exec(path) ?? [];
      if (method === 'invoke') {
        const [embedding] = await vectorsOf(model, 1);
        return answer(200, { embedding, inputTextTokenCount: 4 })(response, request);
      }
      const call = callOf(decodeURIComponent(name), body['messages'] as readonly Turn[]);
      if (method === 'converse') {
        const { text, input, output } = await wholeOf(model, call, signal);
        const message = { role: 'assistant', content: [{ text }] };
        const usage = { inputTokens: input, outputTokens: output, totalTokens: input + output };
        return answer(200, { output: { message }, stopReason: 'end_turn', usage, metrics: { latencyMs: 1 } })(response, request);
      }
      beginBedrock(response);
      response.write(bedrockFrame('messageStart', { role: 'assistant' }));
      for await (const text of textsOf(model, call, signal)) {
        response.write(bedrockFrame('contentBlockDelta', { contentBlockIndex: 0, delta: { text } }));
      }
      response.write(bedrockFrame('contentBlockStop', { contentBlockIndex: 0 }));
      response.write(bedrockFrame('messageStop', { stopReason: 'end_turn' }));
      response.end(bedrockFrame('metadata', { usage: { inputTokens: 3, outputTokens: 5, totalTokens: 8 }, metrics: { latencyMs: 1 } }));
    });
}

interface Turn {
  readonly role: string;
  readonly content: readonly { readonly text: string }[];
}

function callOf(upstreamModel: string, turns: readonly Turn[]): ProviderCall {
  return { upstreamModel, requestId: 'req_upstream', body: { messages: plainMessages(turns) } };
}

async function untilGone(response: ServerResponse, serve: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  try {
    await serve(gone.signal);
  } catch (error) {
    if (!gone.signal.aborted) throw error;
  }
}

async function wholeOf(model: SimulatedProvider, call: ProviderCall, signal: AbortSignal) {
  const { parsed, usage } = await model.complete(call, signal);
  const [choice] = parsed['choices'] as readonly { readonly message: { readonly content: string } }[];
  return { text: choice?.message.content ?? '', input: usage?.inputTokens ?? 0, output: usage?.outputTokens ?? 0 };
}

async function* textsOf(model: SimulatedProvider, call: ProviderCall, signal: AbortSignal): AsyncGenerator<string> {
  const stream = await model.stream(call, signal);
  for await (const batch of stream.batches) yield* batch.map(deltaText).filter((piece) => piece !== '');
}

async function vectorsOf(model: SimulatedProvider, count: number): Promise<readonly (readonly number[])[]> {
  const input = Array.from({ length: count }, (_, index) => `text ${index}`);
  const { parsed } = await model.embed({ upstreamModel: 'sim-embedding', requestId: 'req_upstream', body: { input } }, never());
  return (parsed['data'] as readonly { readonly embedding: readonly number[] }[]).map(({ embedding }) => embedding);
}

function plainMessages(turns: unknown): unknown {
  return (turns as readonly { readonly role: string; readonly content: readonly { readonly text: string }[] }[]).map(
    ({ role, content }) => ({
      role,
      content: content.map(({ text }) => text).join(''),
    }),
  );
}
