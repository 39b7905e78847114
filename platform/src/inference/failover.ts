import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { ErrorCode } from '../errors/catalogue.ts';
import type { Deployment, DeploymentSlot } from './deployment.ts';

/** Upstream calls for one request. More would turn one tenant's bad minute into a storm on every provider. */
export const attemptsMax = 3;

const busyRetryMs = 1_000;

/** For how long a deployment that failed so is avoided, unless it named a time itself. */
const coolDownMs: Partial<Record<ErrorCode, number>> = {
  upstream_rate_limited: 1_000,
  upstream_error: 1_000,
  upstream_timeout: 5_000,
  upstream_misconfigured: 30_000,
};

/**
 * Calls `attempt` with one deployment after the other until one succeeds. Only failures before the first byte may reach here, so
 * nothing is ever delivered twice. The attempt owns the slot when it succeeds. Throws the failure that tells the client most, or
 * `capacity_unavailable` when every slot is taken.
 */
export async function withFailover<T>(
  deployments: readonly Deployment[],
  signal: AbortSignal,
  attempt: (deployment: Deployment, slot: DeploymentSlot) => Promise<T>,
): Promise<T> {
  const tried = new Set<Deployment>();
  let failure: BulkheadError | undefined;
  while (tried.size < attemptsMax) {
    const deployment = choose(deployments.filter((candidate) => candidate.hasRoom && !tried.has(candidate)));
    if (deployment === undefined) break;
    tried.add(deployment);
    const slot = deployment.begin();
    try {
      return await attempt(deployment, slot);
    } catch (error) {
      slot.release();
      if (signal.aborted || !mayFailOver(error)) throw error;
      deployment.coolDown(error.retryAfterMs ?? coolDownMs[error.code] ?? 0);
      failure = moreTelling(failure, error);
    }
  }
  throw failure ?? new BulkheadError('capacity_unavailable', 'Every deployment of this model is busy.', { retryAfterMs: busyRetryMs });
}

/** Healthy before cooling, then the least loaded, then the order of the configuration. */
function choose(candidates: readonly Deployment[]): Deployment | undefined {
  let best: Deployment | undefined;
  for (const candidate of candidates) {
    if (best === undefined || isBetter(candidate, best)) best = candidate;
  }
  return best;
}

function isBetter(candidate: Deployment, best: Deployment): boolean {
  if (candidate.isCooling !== best.isCooling) return best.isCooling;
  return candidate.load < best.load;
}

function mayFailOver(error: unknown): error is BulkheadError {
  return error instanceof BulkheadError && error.code in coolDownMs;
}

/** A rate limit says when to come back; the others only that something broke. */
function moreTelling(earlier: BulkheadError | undefined, later: BulkheadError): BulkheadError {
  return earlier?.code === 'upstream_rate_limited' ? earlier : later;
}
