import { OpenAiCompatibleProvider } from '../../src/adapters/openai-compatible/openai-compatible-provider.ts';
import type { SimulatedProvider } from '../../src/adapters/simulated/simulated-provider.ts';
import type { Completion, ProviderCall } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { never, type ProviderUnderTest, testProviderContract } from '../contracts/provider.ts';
import { openAiConfig, simulated } from '../support/providers.ts';
import { ScriptedUpstream, type UpstreamScript } from '../support/scripted-upstream.ts';

const slow = { timeToFirstTokenMs: 0, tokensPerSecond: 4 };
const models = { chatModel: 'sim-chat', embeddingModel: 'sim-embedding' };

testProviderContract('the simulated provider', { ...models, openFast: async () => inProcess({}), openSlow: async () => inProcess(slow) });

testProviderContract('the OpenAI-compatible provider', { ...models, openFast: () => overHttp({}), openSlow: () => overHttp(slow) });

function inProcess(pace: Partial<typeof slow>): ProviderUnderTest {
  const provider = simulated(pace);
  return { provider, inFlight: () => provider.inFlight, [Symbol.asyncDispose]: () => provider.close() };
}

/** The same simulation behind HTTP, so that both adapters are asked the same and only the transport differs. */
async function overHttp(pace: Partial<typeof slow>): Promise<ProviderUnderTest> {
  const upstream = await ScriptedUpstream.start(serving(simulated(pace)));
  const provider = new OpenAiCompatibleProvider(openAiConfig(upstream.baseUrl), systemClock);
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
