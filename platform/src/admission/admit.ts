/**
 * Stage 5: reserve what a request may use, over the tenant's and the key's limits together, all or nothing. Before it the request's size is
 * known; after it the scheduler. A reservation ends exactly once, by `settle` or `release`; one that its holder forgot runs out with its lease.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import { Slots } from '../primitives/slots.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import type { OutputReserve } from './estimate.ts';
import type { LimitScope, LimitState, LimitStore, ReserveOutcome } from './limit-store.ts';
import { rateLimitHeaders } from './rate-limit-headers.ts';

export interface AdmissionParts {
  readonly store: LimitStore;
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly leaseMs: number;
}

export interface Demand {
  readonly scope: TenantScope;
  /** Absent: interactive. */
  readonly workClass?: WorkClass;
  readonly inputTokens: number;
  readonly output: OutputReserve;
}

export interface Reservation {
  /** The limits as they stood right after reserving, for the response headers. */
  readonly states: readonly LimitState[];
  /** Tokens delivered since the last call; a lease that runs out charges what was reported. */
  progress(tokens: number): void;
  /** What was really used, input and output together. */
  settle(actual: { readonly tokens: number }): void;
  /** Nothing was used: tokens and slot go back. The request stays counted: a retry storm must cost. */
  release(): void;
}

export interface Admission extends AsyncDisposable {
  /** Throws `rate_limit_exceeded`, `concurrency_limit_exceeded` or `request_too_large_for_limit`. */
  admit(demand: Demand): Promise<Reservation>;
}

interface LiveReservation {
  readonly id: string;
  tokens: number;
}

/** Batch work stops here, so that a tenant's own documents never use up what its people need. */
const batchShare = 0.75;

/** Renews what runs longer than a third of its lease and reaps what was forgotten, on one timer for all. */
export function createAdmission(parts: AdmissionParts): Admission {
  const live = new Slots<LiveReservation>();
  const settling = new Slots<Promise<unknown>>();
  const track = (work: Promise<unknown>) => {
    const slot = settling.put(work);
    const done = () => void settling.take(slot);
    // A store that cannot be reached lets the lease run out; the request itself has ended already.
    work.then(done, done);
  };
  const timer = setInterval(() => {
    for (const entry of live) track(parts.store.renew(entry.id, parts.leaseMs, { tokens: entry.tokens }));
    track(parts.store.reap());
  }, parts.leaseMs / 3);
  timer.unref();
  return {
    async admit(demand) {
      const id = parts.ids.next('rsv_');
      const scopes = scopesOf(demand.scope);
      const tokens = tokensToReserve(demand, scopes);
      const share = demand.workClass === 'batch' ? batchShare : 1;
      const outcome = await parts.store.reserve({
        reservationId: id,
        leaseMs: parts.leaseMs,
        amounts: { requests: 1, tokens },
        scopes,
        share,
      });
      if (outcome.kind !== 'reserved') throw refusalOf(outcome);
      const entry: LiveReservation = { id, tokens: 0 };
      let slot: number | undefined = live.put(entry);
      const end = (used: number) => {
        if (slot === undefined) return;
        live.take(slot);
        slot = undefined;
        track(parts.store.settle(id, { tokens: used }));
      };
      return {
        states: outcome.states,
        progress: (delivered) => {
          entry.tokens += delivered;
        },
        settle: (actual) => end(actual.tokens),
        release: () => end(0),
      };
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await Promise.allSettled(settling);
    },
  };
}

/** What the client demanded counts in full; what we only expect shrinks to what the limits can hold, so a small limit still admits a small request. */
function tokensToReserve({ inputTokens, output }: Demand, scopes: readonly LimitScope[]): number {
  const tokens = inputTokens + output.tokens;
  if (output.isDemanded) return tokens;
  const limit = Math.min(...scopes.map((scope) => scope.limits.tokensPerMinute ?? Number.POSITIVE_INFINITY));
  return Math.max(inputTokens, Math.min(tokens, limit));
}

/** Length-prefixed parts: no two scopes can share a key, whatever their names contain. */
function scopesOf({ tenantId, policy, principal }: TenantScope): readonly LimitScope[] {
  const tenant: LimitScope = { name: 'tenant', key: `t:${tenantId.length}.${tenantId}`, limits: policy.limits };
  const { keyId, keyLimits } = principal;
  if (keyLimits === undefined || Object.keys(keyLimits).length === 0) return [tenant];
  return [tenant, { name: 'key', key: `${tenant.key}:k:${keyId.length}.${keyId}`, limits: keyLimits }];
}

function refusalOf(outcome: Exclude<ReserveOutcome, { readonly kind: 'reserved' }>): BulkheadError {
  if (outcome.kind === 'spent') throw new Error('a reservation id was used twice');
  const { binding } = outcome;
  const limit = `${binding.scope}.${binding.dimension}`;
  if (outcome.kind === 'too_large') {
    return new BulkheadError(
      'request_too_large_for_limit',
      `The request needs ${outcome.requested} ${binding.dimension}; the ${binding.scope}'s limit is ${binding.limit} a minute, so no wait can help.`,
      { details: { limit, scope: binding.scope, requested: outcome.requested, limit_value: binding.limit } },
    );
  }
  const details = { limit, scope: binding.scope, used: outcome.used, limit_value: binding.limit, reset_ms: binding.resetMs };
  const { retryAfterMs } = outcome;
  if (binding.dimension === 'concurrency') {
    return new BulkheadError(
      'concurrency_limit_exceeded',
      `The ${binding.scope} has ${binding.limit} requests running, which is its limit.`,
      { retryAfterMs, details },
    );
  }
  return new BulkheadError(
    'rate_limit_exceeded',
    `The ${binding.scope}'s limit of ${binding.limit} ${binding.dimension} a minute is reached. Try again in ${retryAfterMs} ms.`,
    { retryAfterMs, details, headers: rateLimitHeaders([binding]) },
  );
}
