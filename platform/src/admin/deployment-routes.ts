/** `/admin/v1/deployments`: how much each provider takes now and why, and an operator's word against it. Of this process; it is forgotten with it. */
import { z } from 'zod';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import type { Answer, Exchange } from '../gateway/exchange.ts';
import type { OperatorRoute } from '../gateway/route.ts';
import { validateBody } from '../gateway/validate.ts';
import type { Inference } from '../inference/deployments.ts';

type Snapshot = ReturnType<Inference['deployments']>[number];

/** The id is in the body: names of models have slashes. */
const overrideSchema = z.strictObject({ id: z.string().min(1).max(512), to: z.enum(['auto', 'open', 'closed']) });

export function deploymentRoutes(parts: Pick<Inference, 'deployments' | 'override'>): readonly OperatorRoute[] {
  const common = { auth: 'operator', spends: false } as const;
  return [
    {
      ...common,
      method: 'GET',
      path: '/admin/v1/deployments',
      body: 'none',
      handle: async () => json({ object: 'list', data: parts.deployments().map(deploymentShape), has_more: false }),
    },
    {
      ...common,
      method: 'POST',
      path: '/admin/v1/deployments',
      body: 'json',
      handle: async (exchange) => override(parts, exchange),
    },
  ];
}

function override(parts: Pick<Inference, 'override'>, { body }: Exchange): Answer {
  const { id, to } = validateBody(overrideSchema, body);
  const snapshot = parts.override(id, to);
  if (snapshot === undefined) throw new BulkheadError('not_found', `there is no deployment ${quoteInput(id)}`);
  return json(deploymentShape(snapshot));
}

function deploymentShape(deployment: Snapshot) {
  return {
    id: deployment.id,
    object: 'deployment',
    provider: deployment.provider,
    upstream_model: deployment.upstreamModel,
    state: deployment.state,
    override: deployment.override,
    resumes_in_ms: deployment.resumesInMs,
    concurrency: {
      configured: deployment.concurrency,
      adaptive: deployment.adaptiveLimit,
      now: deployment.permits,
      in_flight: deployment.inFlight,
    },
    quota: Object.fromEntries(Object.entries(deployment.quota).map(([dimension, level]) => [snakeCase(dimension), level])),
    answers: deployment.answers,
    failures: deployment.failures,
    refusals: deployment.refusals,
  };
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function json(body: unknown): Answer {
  return { kind: 'json', status: 200, body };
}
