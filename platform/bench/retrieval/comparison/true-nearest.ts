import type { BenchTenant, Question, Workload } from './workload.ts';

export interface Truth {
  /** How many results a complete answer has. */
  readonly possible: number;
  /** How many of the found are as near as the nearest `possible`; each vector counts once. */
  hitsOf(found: readonly number[]): number;
}

/** Two systems round cosines differently: a vector that is this little farther away is as near. */
const tolerance = 1e-5;

let latest: { readonly tenant: BenchTenant; readonly workload: Workload; readonly vectors: Float32Array } | undefined;

/** By comparing with every vector of the tenant. Keeps those of the tenant it was asked for last. */
export function trueNearest(workload: Workload, { tenant, vector }: Question, limit: number): Truth {
  if (latest?.tenant !== tenant || latest.workload !== workload) latest = { tenant, workload, vectors: workload.vectorsOf(tenant) };
  const { vectors } = latest;
  const cosines = new Float32Array(tenant.size);
  for (let index = 0; index < tenant.size; index++) {
    let sum = 0;
    const at = index * vector.length;
    for (let dimension = 0; dimension < vector.length; dimension++) sum += (vectors[at + dimension] ?? 0) * (vector[dimension] ?? 0);
    cosines[index] = sum;
  }
  const possible = Math.min(limit, tenant.size);
  const farthest = (cosines.toSorted()[tenant.size - possible] ?? 0) - tolerance;
  return { possible, hitsOf: (found) => [...new Set(found)].filter((index) => (cosines[index] ?? -2) >= farthest).length };
}
