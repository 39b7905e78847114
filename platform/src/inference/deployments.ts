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
import { type Random, systemRandom } from '../primitives/random.ts';
import type { TierPolicy } from '../tenancy/tenant.ts';
import { Deployment, type DeploymentOverride, type DeploymentSlot, type DeploymentSnapshot } from './deployment.ts';
import { DeploymentPool, type PoolCapacity } from './deployment-pool.ts';
import { type Placement, withFailover } from './failover.ts';
import { LeasedStream, type StreamWatcher } from './leased-stream.ts';
import { assignPools, deploymentKey } from './pools.ts';
import type { Completion, CompletionStream, Provider, ProviderCall } from './provider.ts';
import type { CallSize } from './quota-mirror.ts';

export interface ModelRoute {
  readonly model: ModelConfig;
  /** The fair queue's name for the slots this model competes for. */
  readonly poolId: string;
  readonly pool: DeploymentPool;
  readonly deployments: readonly Deployment[];
}

export interface RoutedCall extends Omit<ProviderCall, 'upstreamModel' | 'outputTokensMax'> {
  /** What it is expected to take of the provider's limits. */
  readonly size: CallSize;
  /** It had to wait for its permit: all of the pool was in use, here or on other replicas. */
  readonly hasWaited?: boolean | undefined;
  /** Gives the caller's permit back and waits for another, before those who came later. */
  readonly requeue?: (() => Promise<void>) | undefined;
}

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
  /** Tells the capacity of every pool, now and whenever it changes. */
  readonly watchPools: (listener: (capacity: PoolCapacity) => void) => void;
  readonly deployments: () => readonly DeploymentSnapshot[];
  /** By an operator's word; `auto` also ends a pause and closes the circuit. Undefined: there is no such deployment. */
  readonly override: (deploymentId: string, override: DeploymentOverride) => DeploymentSnapshot | undefined;
  /** Closes every provider; whoever waits for a deployment is woken. */
  readonly close: () => Promise<void>;
}

export interface InferenceOptions {
  readonly models: readonly ModelConfig[];
  readonly providers: readonly Provider[];
  readonly clock: Clock;
  /** The longest wait for a deployment. */
  readonly waitMaxMs: number;
  readonly random?: Random;
}

/** Throws `invalid_value` when a model names a provider that is not there, or two models share an id. */
export function createInference(options: InferenceOptions): Inference {
  const { clock, waitMaxMs } = options;
  const routes = buildRoutes(options);
  const pools = [...new Set(Array.from(routes.values(), ({ pool }) => pool))];
  const deployments = pools.flatMap((pool) => pool.deployments);
  const grants = (modelId: string, { models }: ModelPolicy) => models === undefined || models.includes(modelId);
  const place = (route: ModelRoute, call: RoutedCall, signal: AbortSignal) => ({ ...route, ...call, call, signal, clock, waitMaxMs });
  return {
    resolve: (modelId, policy) => (grants(modelId, policy) ? routes.get(modelId) : undefined),
    modelsFor: (policy) => options.models.filter((model) => grants(model.id, policy)),
    complete: (route, call, signal) => answerWhole('complete', place(route, call, signal), call),
    embed: (route, call, signal) => answerWhole('embed', place(route, call, signal), call),
    stream: (route, call, signal) => answerStream(place(route, call, signal), call, clock),
    watchPools: (listener) => {
      for (const pool of pools) pool.watch(listener);
    },
    deployments: () => deployments.map((deployment) => deployment.snapshot()),
    override(deploymentId, override) {
      const deployment = deployments.find(({ id }) => id === deploymentId);
      deployment?.override(override);
      return deployment?.snapshot();
    },
    close: async () => {
      for (const pool of pools) pool.close();
      await Promise.all(options.providers.map((provider) => provider.close()));
    },
  };
}

interface Routing extends Placement {
  readonly model: ModelConfig;
}

async function answerWhole(method: 'complete' | 'embed', placement: Routing, call: RoutedCall): Promise<RoutedCompletion> {
  return withFailover(placement, async (deployment, slot) => {
    const completion = await deployment.provider[method](callOf(call, deployment, placement), placement.signal);
    if (completion.usage !== undefined) slot.used = completion.usage;
    deployment.answered(slot, completion);
    slot.release();
    return { completion, source: sourceOf(deployment) };
  });
}

async function answerStream(placement: Routing, call: RoutedCall, clock: Clock): Promise<RoutedStream> {
  return withFailover(placement, async (deployment: Deployment, slot: DeploymentSlot) => {
    const sentAtMs = clock.monotonicMs();
    const stream = await deployment.provider.stream(callOf(call, deployment, placement), placement.signal);
    const leased = await LeasedStream.open(stream, slot, watcherOf(deployment, placement));
    deployment.answered(slot, { quota: stream.quota, firstEventMs: clock.monotonicMs() - sentAtMs });
    return { stream: leased, source: sourceOf(deployment) };
  });
}

/** A caller who has gone says nothing of the provider. */
function watcherOf(deployment: Deployment, { signal, call }: Routing): StreamWatcher {
  return {
    completed: () => deployment.completed(),
    broke: (error) => {
      if (!signal.aborted && error instanceof BulkheadError) deployment.broke(error, call.cacheSalt ?? '');
    },
  };
}

function callOf({ body, requestId, cacheSalt }: RoutedCall, { upstreamModel }: Deployment, { model }: Routing): ProviderCall {
  return { body, requestId, cacheSalt, upstreamModel, outputTokensMax: model.outputTokensMax };
}

function sourceOf(deployment: Deployment): AnswerSource {
  return { provider: deployment.provider.id, upstreamModel: deployment.upstreamModel };
}

function buildRoutes(options: InferenceOptions): ReadonlyMap<string, ModelRoute> {
  const { models, clock } = options;
  const deployments = buildDeployments(options);
  const pools = buildPools(models, deployments, clock);
  const routes = new Map<string, ModelRoute>();
  for (const model of models) {
    if (routes.has(model.id)) throw new BulkheadError('invalid_value', `model ${quoteInput(model.id)} is configured twice`);
    const pool = pools.get(model.id);
    assert(pool !== undefined, 'every model has a pool');
    const own = new Set(model.deployments.map((entry) => deployments.get(deploymentKey(entry))));
    routes.set(model.id, { model, poolId: pool.poolId, pool, deployments: [...own].filter((entry) => entry !== undefined) });
  }
  return routes;
}

const limitNames = ['concurrency', 'requestsPerMinute', 'tokensPerMinute', 'inputTokensPerMinute', 'outputTokensPerMinute'] as const;

/** One deployment for each provider and upstream model; where two entries disagree about a limit, the lower one holds. */
function buildDeployments({ models, providers, clock, random = systemRandom }: InferenceOptions): Map<string, Deployment> {
  const byId = new Map(providers.map((provider) => [provider.id, provider]));
  const entries = models.flatMap((model) => model.deployments);
  const deployments = new Map<string, Deployment>();
  for (const entry of entries) {
    const provider = byId.get(entry.provider);
    if (provider === undefined) throw new BulkheadError('invalid_value', `there is no provider ${quoteInput(entry.provider)}`);
    const key = deploymentKey(entry);
    if (deployments.has(key)) continue;
    const same = entries.filter((each) => deploymentKey(each) === key).map(({ limits }) => limits);
    const limits = Object.fromEntries(
      limitNames.map((name) => {
        const told = same.flatMap((each) => each[name] ?? []);
        return [name, told.length === 0 ? undefined : Math.min(...told)];
      }),
    );
    deployments.set(key, new Deployment({ provider, upstreamModel: entry.model, limits, clock, random }));
  }
  return deployments;
}

function buildPools(
  models: readonly ModelConfig[],
  deployments: ReadonlyMap<string, Deployment>,
  clock: Clock,
): ReadonlyMap<string, DeploymentPool> {
  const poolIds = assignPools(models);
  const pools = new Map<string, DeploymentPool>();
  for (const poolId of new Set(poolIds.values())) {
    const members = models.filter(({ id }) => poolIds.get(id) === poolId).flatMap((model) => model.deployments);
    const own = new Set(members.map((entry) => deployments.get(deploymentKey(entry))));
    pools.set(
      poolId,
      new DeploymentPool(
        poolId,
        [...own].filter((entry) => entry !== undefined),
        clock,
      ),
    );
  }
  return new Map(
    models.flatMap(({ id }) => {
      const pool = pools.get(poolIds.get(id) ?? '');
      return pool === undefined ? [] : [[id, pool] as const];
    }),
  );
}
