/** One call to a provider, and what is done when it fails before its first byte. */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { ErrorCode } from '../errors/catalogue.ts';
import { assert } from '../primitives/assert.ts';
import type { Clock } from '../primitives/clock.ts';
import { chooseDeployment } from './choose-deployment.ts';
import type { Deployment, DeploymentSlot } from './deployment.ts';
import { type DeploymentPool, resumesAtMs } from './deployment-pool.ts';
import { type ProviderCall, UpstreamRefusal } from './provider.ts';
import type { CallSize } from './quota-mirror.ts';

/** Upstream calls for one request. More would turn one tenant's bad minute into a storm on every provider. */
export const attemptsMax = 3;

const busyRetryMs = 1_000;
const failedOver: ReadonlySet<ErrorCode> = new Set([
  'upstream_rate_limited',
  'upstream_error',
  'upstream_timeout',
  'upstream_misconfigured',
]);

/** An adapter cannot say this request in its provider's dialect, and has not sent it; another may. */
const notSaid: ReadonlySet<ErrorCode> = new Set(['unsupported_parameter', 'invalid_value']);

/** The provider is well and says that the request is not. */
const refusedAsWrong: ReadonlySet<ErrorCode> = new Set(['upstream_rejected', 'context_length_exceeded']);

export interface Placement {
  readonly deployments: readonly Deployment[];
  readonly pool: DeploymentPool;
  readonly call: Pick<ProviderCall, 'body' | 'cacheSalt'>;
  readonly size: CallSize;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly hasWaited?: boolean | undefined;
  /** Nobody waits longer for a deployment. */
  readonly waitMaxMs: number;
  /** Gives the permit back and waits for the next one, before those who came later. Absent: the caller holds none. */
  readonly requeue?: (() => Promise<void>) | undefined;
}

type Attempt<T> = (deployment: Deployment, slot: DeploymentSlot) => Promise<T>;

/**
 * Calls `attempt` with one deployment after the other until one succeeds. Only failures before the first byte may reach here, so
 * nothing is ever delivered twice. The attempt owns the slot when it succeeds. While none can take the call it waits: in the queue when the whole
 * pool stands still, so that whoever is due goes first afterwards, else here. Throws the failure that tells the client most,
 * `request_too_large_for_limit`, or `capacity_unavailable`.
 */
export function withFailover<T>(placement: Placement, attempt: Attempt<T>): Promise<T> {
  return new Failover(placement, attempt).run();
}

class Failover<T> {
  readonly #placement: Placement;
  readonly #attempt: Attempt<T>;
  readonly #deadlineMs: number;
  /** Failed in a way that the next call would too, or cannot be asked this. */
  readonly #broken = new Set<Deployment>();
  #attempts = 0;
  #failure: BulkheadError | undefined;

  constructor(placement: Placement, attempt: Attempt<T>) {
    this.#placement = placement;
    this.#attempt = attempt;
    this.#deadlineMs = placement.clock.monotonicMs() + placement.waitMaxMs;
  }

  async run(): Promise<T> {
    this.#assertFits();
    for (;;) {
      const candidates = this.#candidates();
      const deployment = chooseDeployment(
        candidates.filter(({ hasRoom }) => hasRoom),
        this.#placement.call,
      );
      if (deployment === undefined) await this.#wait(candidates);
      else if (deployment.reserves(this.#placement.size)) {
        const slot = deployment.begin(this.#placement.size, this.#placement.hasWaited);
        try {
          return await this.#attempt(deployment, slot);
        } catch (error) {
          slot.wasSent = !isNotSaid(error);
          slot.release();
          this.#failed(deployment, error);
        }
      } else assert(!deployment.hasRoom, 'a deployment without quota has no room');
    }
  }

  #candidates(): readonly Deployment[] {
    const { deployments } = this.#placement;
    return this.#broken.size === 0 ? deployments : deployments.filter((each) => !this.#broken.has(each));
  }

  /** Returns when there is a reason to try again. */
  #failed(deployment: Deployment, error: unknown): void {
    const { signal, call } = this.#placement;
    if (signal.aborted || !(error instanceof BulkheadError)) throw error;
    if (isNotSaid(error)) {
      this.#notSaidBy(deployment, error);
      return;
    }
    if (refusedAsWrong.has(error.code)) deployment.reached();
    if (!failedOver.has(error.code)) throw error;
    deployment.failed(error, call.cacheSalt ?? '');
    this.#attempts++;
    this.#failure = moreTelling(this.#failure, error);
    if (!(error instanceof UpstreamRefusal) || error.limit === 'account') this.#broken.add(deployment);
    if (this.#attempts >= attemptsMax || this.#candidates().length === 0) throw this.#failure;
  }

  /** It cost nothing, so it is no attempt. What another said when it failed tells more. */
  #notSaidBy(deployment: Deployment, error: BulkheadError): void {
    this.#broken.add(deployment);
    this.#failure ??= error;
    if (this.#candidates().length === 0) throw this.#failure;
  }

  async #wait(candidates: readonly Deployment[]): Promise<void> {
    const { pool, signal, clock, requeue } = this.#placement;
    const nowMs = clock.monotonicMs();
    const isServing = candidates.some(({ permits }) => permits > 0);
    const againAtMs = isServing ? nowMs : resumesAtMs(candidates);
    if (againAtMs === undefined || nowMs >= this.#deadlineMs || againAtMs > this.#deadlineMs) throw this.#unserved(againAtMs);
    if (requeue === undefined || pool.permits > 0) {
      await pool.change(this.#deadlineMs - nowMs, signal);
      return;
    }
    try {
      await requeue();
    } catch (error) {
      throw signal.aborted ? error : (this.#failure ?? error);
    }
  }

  #unserved(againAtMs: number | undefined): BulkheadError {
    const { clock } = this.#placement;
    if (this.#failure !== undefined) return this.#failure;
    const retryAfterMs = againAtMs === undefined ? busyRetryMs : Math.max(busyRetryMs, Math.ceil(againAtMs - clock.monotonicMs()));
    return new BulkheadError('capacity_unavailable', 'No deployment of this model can take the request now.', { retryAfterMs });
  }

  /** Refused once: no wait makes the provider's limit larger. */
  #assertFits(): void {
    const { deployments, size } = this.#placement;
    const limits = deployments.map((each) => each.limitExceeded(size));
    if (limits.some((limit) => limit === undefined)) return;
    const largest = Math.max(...limits.map((limit) => limit ?? 0));
    throw new BulkheadError(
      'request_too_large_for_limit',
      `The request needs about ${size.inputTokens + size.outputTokens} tokens; this model takes ${largest} a minute.`,
    );
  }
}

function isNotSaid(error: unknown): boolean {
  return error instanceof BulkheadError && notSaid.has(error.code);
}

/** A rate limit says when to come back; the others only that something broke. */
function moreTelling(earlier: BulkheadError | undefined, later: BulkheadError): BulkheadError {
  return earlier?.code === 'upstream_rate_limited' ? earlier : later;
}
