/** Model ids are names that providers chose: many hold a slash, which the SDK encodes. */
import { describe, expect, it } from 'vitest';
import type { ModelConfig } from '../../src/config/schema.ts';
import { type InferenceRouteParts, inferenceRoutes } from '../../src/gateway/openai/inference-routes.ts';
import { createInference } from '../../src/inference/deployments.ts';
import type { Provider } from '../../src/inference/provider.ts';
import { systemClock } from '../../src/primitives/clock.ts';
import { expectError, secret, startEdge } from './support/test-edge.ts';

const model: ModelConfig = {
  id: 'openai/gpt-4o',
  kind: 'chat',
  contextTokens: 1_000,
  outputTokensMax: 16_384,
  deployments: [{ provider: 'p', model: 'm', limits: {} }],
};
const inference = createInference({ models: [model], providers: [{ id: 'p' } as Provider], clock: systemClock, waitMaxMs: 1 });
// Reading the list of models touches nothing else.
const routes = inferenceRoutes({ inference, clock: systemClock } as InferenceRouteParts);

describe('GET /v1/models/{id}', () => {
  it.each([
    ['openai%2Fgpt-4o', 200],
    ['openai%2fgpt-4o', 200],
    ['openai%2Fgpt-5', 404],
    ['%2F', 404],
    ['openai%2F..%2Fgpt-4o', 404],
  ])('%s answers %i', async (id, status) => {
    await using edge = await startEdge({ routes });
    const answer = await fetch(`${edge.url}/v1/models/${id}`, { headers: { authorization: `Bearer ${secret}` } });
    const body = await answer.text();
    if (status === 200) expect({ status: answer.status, body: JSON.parse(body) }).toMatchObject({ status, body: { id: model.id } });
    else expectError({ status: answer.status, headers: Object.fromEntries(answer.headers), body }, { status, code: 'model_not_found' });
  });

  it('finds no other route through an encoded slash', async () => {
    await using edge = await startEdge({ routes });
    const answer = await fetch(`${edge.url}/v1%2Fmodels`, { headers: { authorization: `Bearer ${secret}` } });
    expectError(
      { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() },
      { status: 400, code: 'malformed_request' },
    );
  });
});
