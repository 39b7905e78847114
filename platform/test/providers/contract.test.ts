import { AnthropicProvider } from '../../src/adapters/anthropic/anthropic-provider.ts';
import { OpenAiCompatibleProvider } from '../../src/adapters/openai-compatible/openai-compatible-provider.ts';
import type { SimulatedProvider } from '../../src/adapters/simulated/simulated-provider.ts';
import type { Completion, Provider, ProviderCall } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { deltaText, never, type ProviderUnderTest, testProviderContract } from '../contracts/provider.ts';
import { accepting, beginStream, eventsOf, framed, message, textBlock, usageCounts } from '../support/anthropic-upstream.ts';
import { anthropicConfig, openAiConfig, simulated } from '../support/providers.ts';
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

function plainMessages(turns: unknown): unknown {
  return (turns as readonly { readonly role: string; readonly content: readonly { readonly text: string }[] }[]).map(
    ({ role, content }) => ({
      role,
      content: content.map(({ text }) => text).join(''),
    }),
  );
}
