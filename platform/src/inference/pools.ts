import type { ModelConfig } from '../config/schema.ts';

/**
 * The pool of every model, by model id. Models that share a deployment share a pool, because they compete for the same slots; so a
 * pool is a connected set of models, named after the first of them in the configuration.
 */
export function assignPools(models: readonly ModelConfig[]): ReadonlyMap<string, string> {
  const pools = new Map<string, string>();
  const poolOfDeployment = new Map<string, string>();
  for (const model of models) {
    const keys = model.deployments.map(deploymentKey);
    const shared = new Set(keys.flatMap((key) => poolOfDeployment.get(key) ?? []));
    const poolId = [...pools.values()].find((earlier) => shared.has(earlier)) ?? model.id;
    pools.set(model.id, poolId);
    for (const key of keys) poolOfDeployment.set(key, poolId);
    merge(pools, shared, poolId);
    merge(poolOfDeployment, shared, poolId);
  }
  return pools;
}

/** Two entries of the configuration with this key are one deployment. */
export function deploymentKey({ provider, model }: ModelConfig['deployments'][number]): string {
  return JSON.stringify([provider, model]);
}

function merge(pools: Map<string, string>, from: ReadonlySet<string>, into: string): void {
  for (const [key, poolId] of pools) if (from.has(poolId)) pools.set(key, into);
}
