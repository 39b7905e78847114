/**
 * Stage 7: inference. After the scheduler has granted a permit, before metering settles it.
 *
 * Turns a public model id into a route, picks a deployment for each call, and moves to another one when the first fails before its
 * first byte. Invariants: a deployment never has more calls in flight than its concurrency; a slot is held from the call to the end
 * of its answer and always comes back; at most three upstream calls for a request; once anything was delivered, no second attempt.
 * No tenant is known here.
 */
import type { ModelConfig } from '../config/schema.ts';
import { BulkheadError, quoteInput } from '../errors/bulkhead-error.ts';
import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import type { TierPolicy } from '../tenancy/tenant.ts';
import { concurrencyDefault, Deployment, type DeploymentSlot, type DeploymentSnapshot } from './deployment.ts';
import { withFailover } from './failover.ts';
import { LeasedStream } from './leased-stream.ts';
import { assignPools, deploymentKey } from './pools.ts';
import type { Completion, CompletionStream, Provider, ProviderCall } from './provider.ts';

export interface ModelRoute {
  readonly model: ModelConfig;
  /** The fair queue's name for the slots this model competes for. */
  readonly poolId: string;
  readonly deployments: readonly Deployment[];
}

export type RoutedCall = Omit<ProviderCall, 'upstreamModel'>;

/** Which deployment answered, for metering. */
export interface AnswerSource {
  readonly provider: string;
  readonly upstreamModel: string;
}

export interface RoutedCompletion {
  readonly completion: Completion;
  readonly source: AnswerSource;
}

export interface RoutedStream {
  readonly stream: CompletionStream;
  readonly source: AnswerSource;
}

export interface PoolCapacity {
  readonly poolId: string;
  /** Permits for the fair queue: the concurrency of the pool's deployments together. */
  readonly permits: number;
}

type ModelPolicy = Pick<TierPolicy, 'models'>;

export interface Inference {
  /** Undefined for a model that does not exist or that the policy does not grant: the two look the same. */
  readonly resolve: (modelId: string, policy: ModelPolicy) => ModelRoute | undefined;
  readonly modelsFor: (policy: ModelPolicy) => readonly ModelConfig[];
  /** These three throw `upstream_*`, `embedding_failed`, `capacity_unavailable`, or the signal's reason. */
  readonly complete: (route: ModelRoute, call: RoutedCall, signal: AbortSignal) => Promise<RoutedCompletion>;
  readonly embed: (route: ModelRoute, call: RoutedCall, signal: AbortSignal) => Promise<RoutedCompletion>;
  /** Resolves when the first events are there. The stream must be iterated or disposed of. */
  readonly stream: (route: ModelRoute, call: RoutedCall, signal: AbortSignal) => Promise<RoutedStream>;
  readonly pools: () => readonly PoolCapacity[];
  readonly deployments: () => readonly DeploymentSnapshot[];
  /** Closes every provider. */
  readonly close: () => Promise<void>;
}

export interface InferenceOptions {
  readonly models: readonly ModelConfig[];
  readonly providers: readonly Provider[];
  readonly clock: Clock;
}

/** Throws `invalid_value` when a model names a provider that is not there, or two models share an id. */
export function createInference(options: InferenceOptions): Inference {
  const routes = buildRoutes(options);
  const grants = (modelId: string, { models }: ModelPolicy) => models === undefined || models.includes(modelId);
  return {
    resolve: (modelId, policy) => (grants(modelId, policy) ? routes.get(modelId) : undefined),
    modelsFor: (policy) => options.models.filter((model) => grants(model.id, policy)),
    complete: (route, call, signal) => answerWhole('complete', { route, call, signal }),
    embed: (route, call, signal) => answerWhole('embed', { route, call, signal }),
    stream: (route, call, signal) => answerStream({ route, call, signal }),
    pools: () => poolCapacities([...routes.values()]),
    deployments: () => distinctDeployments([...routes.values()]).map((deployment) => deployment.snapshot()),
    close: async () => {
      await Promise.all(options.providers.map((provider) => provider.close()));
    },
  };
}

interface Routing {
  readonly route: ModelRoute;
  readonly call: RoutedCall;
  readonly signal: AbortSignal;
}

async function answerWhole(method: 'complete' | 'embed', { route, call, signal }: Routing): Promise<RoutedCompletion> {
  return withFailover(route.deployments, signal, async (deployment, held) => {
    using _slot = held;
    const completion = await deployment.provider[method]({ ...call, upstreamModel: deployment.upstreamModel }, signal);
    return { completion, source: sourceOf(deployment) };
  });
}

async function answerStream({ route, call, signal }: Routing): Promise<RoutedStream> {
  return withFailover(route.deployments, signal, async (deployment: Deployment, slot: DeploymentSlot) => {
    const stream = await deployment.provider.stream({ ...call, upstreamModel: deployment.upstreamModel }, signal);
    return { stream: await LeasedStream.open(stream, slot), source: sourceOf(deployment) };
  });
}

function sourceOf(deployment: Deployment): AnswerSource {
  return { provider: deployment.provider.id, upstreamModel: deployment.upstreamModel };
}

function buildRoutes({ models, providers, clock }: InferenceOptions): ReadonlyMap<string, ModelRoute> {
  const deployments = buildDeployments(models, { providers, clock });
  const pools = assignPools(models);
  const routes = new Map<string, ModelRoute>();
  for (const model of models) {
    if (routes.has(model.id)) throw new BulkheadError('invalid_value', `model ${quoteInput(model.id)} is configured twice`);
    const poolId = pools.get(model.id);
    assert(poolId !== undefined, 'every model has a pool');
    const own = new Set(model.deployments.map((entry) => deployments.get(deploymentKey(entry))));
    routes.set(model.id, { model, poolId, deployments: [...own].filter((entry) => entry !== undefined) });
  }
  return routes;
}

/** One deployment for each provider and upstream model; where two entries disagree about its limit, the lower one holds. */
function buildDeployments(models: readonly ModelConfig[], { providers, clock }: Omit<InferenceOptions, 'models'>): Map<string, Deployment> {
  const byId = new Map(providers.map((provider) => [provider.id, provider]));
  const deployments = new Map<string, Deployment>();
  for (const entry of models.flatMap((model) => model.deployments)) {
    const provider = byId.get(entry.provider);
    if (provider === undefined) throw new BulkheadError('invalid_value', `there is no provider ${quoteInput(entry.provider)}`);
    const key = deploymentKey(entry);
    const concurrency = Math.min(
      entry.limits.concurrency ?? concurrencyDefault,
      deployments.get(key)?.concurrency ?? Number.POSITIVE_INFINITY,
    );
    deployments.set(key, new Deployment({ provider, upstreamModel: entry.model, concurrency, clock }));
  }
  return deployments;
}

function poolCapacities(routes: readonly ModelRoute[]): PoolCapacity[] {
  const poolIds = new Set(routes.map((route) => route.poolId));
  return [...poolIds].map((poolId) => {
    const deployments = distinctDeployments(routes.filter((route) => route.poolId === poolId));
    return { poolId, permits: deployments.reduce((sum, deployment) => sum + deployment.concurrency, 0) };
  });
}

function distinctDeployments(routes: readonly ModelRoute[]): Deployment[] {
  return [...new Set(routes.flatMap((route) => route.deployments))];
}
