/**
 * Stage 5: reserve what a request may use, over the limits of everybody it counts for together, all or nothing. Before it the request's size is
 * known; after it the scheduler. A reservation ends exactly once, by `settle` or `release`; one that its holder forgot runs out with its lease.
 */
import type { Clock } from '../primitives/clock.ts';
import type { IdSource } from '../primitives/ids.ts';
import { Slots } from '../primitives/slots.ts';
import type { WorkClass } from '../primitives/work-class.ts';
import type { TenantScope } from '../tenancy/tenant-scope.ts';
import { refusalOf } from './admission-refusals.ts';
import type { OutputReserve } from './estimate.ts';
import { type Caller, LimitScopes } from './limit-scopes.ts';
import type { Amounts, LimitScope, LimitScopeName, LimitState, LimitStore } from './limit-store.ts';

export interface AdmissionParts {
  readonly store: LimitStore;
  readonly clock: Clock;
  readonly ids: IdSource;
  readonly leaseMs: number;
}

export interface Demand {
  readonly scope: TenantScope;
  readonly caller: Caller;
  /** Absent: interactive. */
  readonly workClass?: WorkClass;
  readonly inputTokens: number;
  readonly output: OutputReserve;
  /** Whole nano-dollars; 0 where the model has no price. */
  readonly costOf: (inputTokens: number, outputTokens: number) => number;
}

/** A budget that a call counts for. */
export interface CountedBudget {
  readonly scope: string;
  readonly level: LimitScopeName;
  readonly member?: string | undefined;
  readonly period: string;
  readonly limitNanoUsd: number;
  readonly isHard: boolean;
  readonly endsAtMs: number;
}

export interface Reservation {
  /** Of each dimension the tightest limit as it stood right after reserving, for the response headers. */
  readonly states: readonly LimitState[];
  /** Where the money of the call is counted, for the ledger. */
  readonly budgets: readonly CountedBudget[];
  /** The call is on its way: its input is used, whatever becomes of it. */
  dispatched(): void;
  /** Output tokens delivered since the last call; a lease that runs out charges what was reported. */
  progress(tokens: number): void;
  settle(actual: Amounts): void;
  /** Nothing was used: tokens, money and slot go back. The request stays counted: a retry storm must cost. */
  release(): void;
}

export interface Admission extends AsyncDisposable {
  /** Throws `rate_limit_exceeded`, `concurrency_limit_exceeded`, `budget_exceeded`, `budget_reserved` or `request_too_large_for_limit`. */
  admit(demand: Demand): Promise<Reservation>;
}

interface LiveReservation {
  readonly id: string;
  readonly costOf: Demand['costOf'];
  inputTokens: number;
  outputTokens: number;
}

/** Batch work stops here, so that a tenant's own documents never use up what its people need. */
const batchShare = 0.75;
const nothing: Amounts = { inputTokens: 0, outputTokens: 0, costNanoUsd: 0 };

/** Renews what runs longer than a third of its lease and reaps what was forgotten, on one timer for all. */
export function createAdmission(parts: AdmissionParts): Admission {
  const live = new Slots<LiveReservation>();
  const settling = new Slots<Promise<unknown>>();
  const limitScopes = new LimitScopes();
  const track = (work: Promise<unknown>) => {
    const slot = settling.put(work);
    const done = () => void settling.take(slot);
    // A store that cannot be reached lets the lease run out; the request itself has ended already.
    work.then(done, done);
  };
  const timer = setInterval(() => {
    for (const entry of live) track(parts.store.renew(entry.id, parts.leaseMs, amountsOf(entry)));
    track(parts.store.reap());
  }, parts.leaseMs / 3);
  timer.unref();
  return {
    async admit(demand) {
      const id = parts.ids.next('rsv_');
      const scopes = limitScopes.of(demand.scope, demand.caller, parts.clock.nowMs());
      const outcome = await parts.store.reserve({
        reservationId: id,
        leaseMs: parts.leaseMs,
        amounts: amountsToReserve(demand, scopes),
        scopes,
        share: demand.workClass === 'batch' ? batchShare : 1,
      });
      if (outcome.kind !== 'reserved') throw refusalOf(outcome);
      const entry: LiveReservation = { id, costOf: demand.costOf, inputTokens: 0, outputTokens: 0 };
      let slot: number | undefined = live.put(entry);
      const end = (used: Amounts) => {
        if (slot === undefined) return;
        live.take(slot);
        slot = undefined;
        track(parts.store.settle(id, used));
      };
      return {
        states: outcome.states,
        budgets: countedBudgets(scopes),
        dispatched: () => {
          entry.inputTokens = demand.inputTokens;
        },
        progress: (delivered) => {
          entry.outputTokens += delivered;
        },
        settle: end,
        release: () => end(nothing),
      };
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await Promise.allSettled(settling);
    },
  };
}

function amountsOf({ inputTokens, outputTokens, costOf }: LiveReservation): Amounts {
  return { inputTokens, outputTokens, costNanoUsd: costOf(inputTokens, outputTokens) };
}

/**
 * What the client demanded counts in full; what we only expect shrinks to what the limits can hold, so a small limit still admits a small request. Money is set
 * aside for the longest answer there can be.
 */
function amountsToReserve({ inputTokens, output, costOf }: Demand, scopes: readonly LimitScope[]): Amounts {
  const costNanoUsd = scopes.some(({ budget }) => budget !== undefined) ? costOf(inputTokens, output.tokensMax) : 0;
  if (output.isDemanded) return { inputTokens, outputTokens: output.tokens, costNanoUsd };
  const room = scopes.map(({ limits: { tokensPerMinute = Number.POSITIVE_INFINITY, outputTokensPerMinute = Number.POSITIVE_INFINITY } }) =>
    Math.min(tokensPerMinute - inputTokens, outputTokensPerMinute),
  );
  return { inputTokens, outputTokens: Math.max(0, Math.min(output.tokens, ...room)), costNanoUsd };
}

function countedBudgets(scopes: readonly LimitScope[]): readonly CountedBudget[] {
  return scopes.flatMap(({ key, name, member, budget }) => {
    if (budget?.isKept !== true) return [];
    const { limitNanoUsd, isHard, period } = budget;
    return [{ scope: key, level: name, member, period: period.id, limitNanoUsd, isHard, endsAtMs: period.endsAtMs }];
  });
}
