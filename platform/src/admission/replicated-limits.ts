/**
 * Limits shared by replicas, and what they are while the store that shares them cannot be asked: every replica holds its part of every limit, beginning where the
 * shared buckets stood, so that all of them together admit what one would. A budget that refuses has a small grace beyond what the ledger says is spent, and
 * then refuses. When the store is back it is charged with what was used meanwhile.
 *
 * One call that fails or is late is enough: the store is asked no more, and tried again every half second. Counting failures first would make as many requests
 * wait for it.
 */
import { BulkheadError } from '../errors/bulkhead-error.ts';
import type { IdSource } from '../primitives/ids.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { LimitPolicy } from '../tenancy/tenant.ts';
import type { Amounts, BudgetSource, LimitScope, LimitStore, ReserveOutcome, ReserveRequest, SettleOutcome } from './limit-store.ts';

/** Port: the store that all replicas share. Its calls reject with `isUnavailable` errors when it cannot be asked. */
export interface SharedLimitStore extends LimitStore {
  /** All scopes of a debt or none, and once for an id, however often it is asked for within a quarter of an hour. */
  charge(debt: ChargedDebt): Promise<void>;
  /** How far the rates of a scope were ahead of now; undefined when this process has not seen it. */
  lastKnown(scope: LimitScope): readonly number[] | undefined;
  /** Reservations of this process that run in a scope. O(1). */
  liveIn(scope: LimitScope): number;
  /** The reservation has ended here, though the store cannot be told yet. */
  endsLater(reservationId: string): void;
  /** It has ended and nobody will tell: its lease runs out. */
  forget(reservationId: string): void;
}

/** Port: limits in this process alone. */
export interface LocalLimitStore extends LimitStore {
  begin(scope: Pick<LimitScope, 'key'>, aheadUs: readonly number[]): void;
}

/** Which of how many replicas this is. */
export interface Place {
  readonly rank: number;
  readonly count: number;
}

export interface ReplicatedLimitsParts {
  readonly shared: SharedLimitStore;
  /** A new one for each time without the shared one. */
  readonly openLocal: () => LocalLimitStore;
  readonly place: () => Place;
  readonly isUnavailable: (error: unknown) => boolean;
  /** Resolves when the shared store answers. */
  readonly probe: () => Promise<unknown>;
  readonly budgets: BudgetSource;
  readonly ids: IdSource;
  readonly logger: Logger;
}

const probeEveryMs = 500;
/** Of a budget without the shared store: a hundredth, and at most a dollar, on each replica. */
const graceShare = 0.01;
const graceMaxNanoUsd = 1e9;
/** Endings that wait for the shared store; beyond them a lease runs out by itself. */
const waitingMax = 50_000;
/** Calls that wait for an answer at once when the store is back: one round trip carries them. */
const callsAtOnce = 64;
const nothing: Amounts = { inputTokens: 0, outputTokens: 0, costNanoUsd: 0 };

interface LocalUse {
  readonly store: LocalLimitStore;
  readonly scopes: readonly LimitScope[];
}

export interface Debt {
  readonly scopes: readonly LimitScope[];
  readonly used: Amounts;
  readonly requests: number;
}

export interface ChargedDebt extends Debt {
  readonly id: string;
}

export class ReplicatedLimits implements LimitStore, Disposable {
  readonly #parts: ReplicatedLimitsParts;
  /** Set while the shared store is not asked. */
  #local: LocalLimitStore | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;
  readonly #localUses = new Map<string, LocalUse>();
  /** What each budget had cost when the local store began, by scope and period. */
  #spentAtStart = new Map<string, Promise<number>>();
  readonly #endings = new Map<string, Amounts>();
  /** One for every chain of scopes and periods, however many calls it had. */
  readonly #debts = new Map<string, Debt>();
  /** Asked for and not answered: with the same ids until they are, so that no answer that was lost charges twice. */
  #charging: readonly ChargedDebt[] = [];
  #repaying: Promise<void> | undefined;

  constructor(parts: ReplicatedLimitsParts) {
    this.#parts = parts;
  }

  get isAlone(): boolean {
    return this.#local !== undefined;
  }

  async reserve(request: ReserveRequest): Promise<ReserveOutcome> {
    if (this.#local !== undefined) return this.#reserveLocally(this.#local, request);
    try {
      return await this.#parts.shared.reserve(request);
    } catch (error) {
      if (!this.#parts.isUnavailable(error)) throw error;
      // It may have been reserved all the same: then it is to end, and meanwhile its lease bounds it.
      this.#wait(request.reservationId, nothing);
      return this.#reserveLocally(this.#leave(), request);
    }
  }

  async settle(reservationId: string, actual: Amounts): Promise<SettleOutcome> {
    const use = this.#localUses.get(reservationId);
    if (use !== undefined) return this.#settleLocally(use, reservationId, actual);
    if (this.#local !== undefined) {
      this.#wait(reservationId, actual);
      return 'settled';
    }
    try {
      return await this.#parts.shared.settle(reservationId, actual);
    } catch (error) {
      if (!this.#parts.isUnavailable(error)) throw error;
      this.#wait(reservationId, actual);
      this.#leave();
      return 'settled';
    }
  }

  async renew(reservationId: string, leaseMs: number, progress: Amounts): Promise<boolean> {
    const use = this.#localUses.get(reservationId);
    if (use !== undefined) return use.store.renew(reservationId, leaseMs, progress);
    if (this.#local !== undefined) return false;
    try {
      return await this.#parts.shared.renew(reservationId, leaseMs, progress);
    } catch (error) {
      if (!this.#parts.isUnavailable(error)) throw error;
      this.#leave();
      return false;
    }
  }

  async reap(): Promise<number> {
    const stores = new Set([...this.#localUses.values()].map(({ store }) => store));
    let reaped = 0;
    for (const store of stores) reaped += await store.reap();
    if (this.#local !== undefined) return reaped;
    try {
      return reaped + (await this.#parts.shared.reap());
    } catch (error) {
      if (!this.#parts.isUnavailable(error)) throw error;
      this.#leave();
      return reaped;
    }
  }

  async liveCount(): Promise<number> {
    return this.#localUses.size + (this.#local === undefined ? await this.#parts.shared.liveCount() : 0);
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  async #reserveLocally(local: LocalLimitStore, request: ReserveRequest): Promise<ReserveOutcome> {
    const scopes: LimitScope[] = [];
    for (const scope of request.scopes) {
      const part = await this.#partOf(local, scope);
      if (part === undefined) return this.#notHere(request);
      const { concurrency } = part.limits;
      if (concurrency !== undefined && concurrency <= 0) return slotsTaken(scope);
      scopes.push(part);
    }
    const outcome = await local.reserve({ ...request, scopes });
    if (outcome.kind === 'reserved') this.#localUses.set(request.reservationId, { store: local, scopes: request.scopes });
    return outcome.kind === 'too_large' ? this.#wholeAnswer(request, outcome) : outcome;
  }

  async #settleLocally({ store, scopes }: LocalUse, reservationId: string, actual: Amounts): Promise<SettleOutcome> {
    this.#localUses.delete(reservationId);
    const settled = await store.settle(reservationId, actual);
    this.#owe({ scopes, used: actual, requests: 1 });
    if (this.#local === undefined) await this.#repay();
    return settled;
  }

  /** This replica's part of a limit. Undefined: it has none, because there are more replicas than there is of it. */
  async #partOf(local: LocalLimitStore, scope: LimitScope): Promise<LimitScope | undefined> {
    const { count, rank } = this.#parts.place();
    let isEmpty = false;
    const part = (limit: number | undefined) => {
      if (limit === undefined) return undefined;
      const whole = Math.floor(limit / count) + (rank < limit % count ? 1 : 0);
      if (whole === 0) isEmpty = true;
      return whole;
    };
    const { requestsPerMinute, tokensPerMinute, inputTokensPerMinute, outputTokensPerMinute, concurrency } = scope.limits;
    const limits: LimitPolicy = {
      requestsPerMinute: part(requestsPerMinute),
      tokensPerMinute: part(tokensPerMinute),
      inputTokensPerMinute: part(inputTokensPerMinute),
      outputTokensPerMinute: part(outputTokensPerMinute),
      concurrency: part(concurrency),
    };
    if (isEmpty) return undefined;
    const aheadUs = this.#parts.shared.lastKnown(scope);
    if (aheadUs !== undefined) local.begin(scope, aheadUs);
    // What ran before goes on, and has its slots.
    const running = this.#parts.shared.liveIn(scope);
    const slots = limits.concurrency === undefined ? undefined : limits.concurrency - running;
    return { ...scope, limits: { ...limits, concurrency: slots }, budget: scope.budget && (await this.#budgetOf(scope, scope.budget)) };
  }

  async #budgetOf({ key }: LimitScope, budget: NonNullable<LimitScope['budget']>): Promise<LimitScope['budget']> {
    if (!(budget.isHard && budget.isKept)) return budget;
    const slot = `${key} ${budget.period.id}`;
    const asked = this.#spentAtStart.get(slot) ?? this.#parts.budgets.spentNanoUsd(key, budget.period.id);
    this.#spentAtStart.set(slot, asked);
    asked.catch(() => this.#spentAtStart.delete(slot));
    const grace = Math.min(graceMaxNanoUsd, Math.floor(budget.limitNanoUsd * graceShare));
    return { ...budget, limitNanoUsd: Math.min(budget.limitNanoUsd, (await asked) + grace) };
  }

  /** What is too large for a part may fit the whole: it has to wait for the shared store, and is not refused for good. */
  #wholeAnswer(request: ReserveRequest, outcome: ReserveOutcome & { readonly kind: 'too_large' }): ReserveOutcome {
    const { scope: name, dimension } = outcome.binding;
    const scope = request.scopes.find((each) => each.name === name);
    const limit = scope === undefined ? undefined : limitOf(scope.limits, dimension);
    if (limit === undefined || outcome.requested > limit * (request.share ?? 1)) return outcome;
    return this.#notHere(request);
  }

  #notHere({ scopes }: ReserveRequest): never {
    const [scope] = scopes;
    throw new BulkheadError('capacity_unavailable', 'Limits cannot be shared at the moment, and this replica has no part of this one.', {
      retryAfterMs: probeEveryMs * 2,
      details: { scope: scope?.name ?? 'tenant' },
    });
  }

  #leave(): LocalLimitStore {
    if (this.#local !== undefined) return this.#local;
    const local = this.#parts.openLocal();
    this.#local = local;
    this.#spentAtStart = new Map();
    this.#parts.logger.warn({ component: 'limits' }, 'limits cannot be shared: this replica holds its part of them');
    this.#timer = setTimeout(() => void this.#tryAgain(), probeEveryMs);
    this.#timer.unref();
    return local;
  }

  async #tryAgain(): Promise<void> {
    try {
      await this.#parts.probe();
      await this.#endWaiting();
      this.#local = undefined;
      this.#parts.logger.info({ component: 'limits' }, 'limits are shared again');
      await this.#repay();
    } catch {
      if (this.#isClosed) return;
      this.#timer = setTimeout(() => void this.#tryAgain(), probeEveryMs);
      this.#timer.unref();
    }
  }

  #wait(reservationId: string, actual: Amounts): void {
    if (this.#endings.size >= waitingMax) {
      this.#parts.shared.forget(reservationId);
      return;
    }
    this.#parts.shared.endsLater(reservationId);
    this.#endings.set(reservationId, actual);
  }

  async #endWaiting(): Promise<void> {
    while (this.#endings.size > 0) {
      const some = this.#endings.entries().take(callsAtOnce).toArray();
      const calls = some.map(([reservationId, actual]) => this.#parts.shared.settle(reservationId, actual));
      const { answered, unanswered, reason } = this.#sortedOut(some, await Promise.allSettled(calls));
      for (const [reservationId] of answered) this.#endings.delete(reservationId);
      if (unanswered.length > 0) throw reason;
    }
  }

  /** Beyond so many chains the tenant alone is charged: of tenants there are fewer than of their users and sessions. */
  #owe({ scopes, used, requests }: Debt): void {
    const key = scopes.map((scope) => `${scope.key} ${scope.budget?.period.id ?? ''}`).join(' ');
    const before = this.#debts.get(key);
    if (before === undefined && scopes.length > 1 && this.#debts.size >= waitingMax) {
      this.#owe({ scopes: scopes.slice(0, 1), used, requests });
      return;
    }
    this.#debts.set(key, { scopes, used: sumOf(before?.used ?? nothing, used), requests: (before?.requests ?? 0) + requests });
  }

  /** One batch after another, whoever asks and however often. Never rejects. */
  #repay(): Promise<void> {
    this.#repaying ??= this.#repayAll().finally(() => {
      this.#repaying = undefined;
    });
    return this.#repaying;
  }

  async #repayAll(): Promise<void> {
    while (this.#local === undefined && !this.#isClosed) {
      if (this.#charging.length === 0) this.#charging = this.#takeDebts();
      if (this.#charging.length === 0) return;
      const results = await Promise.allSettled(this.#charging.map((debt) => this.#parts.shared.charge(debt)));
      this.#charging = this.#sortedOut(this.#charging, results).unanswered;
      if (this.#charging.length > 0) this.#leave();
    }
  }

  #takeDebts(): readonly ChargedDebt[] {
    const some = this.#debts.entries().take(callsAtOnce).toArray();
    for (const [key] of some) this.#debts.delete(key);
    return some.map(([, debt]) => ({ ...debt, id: this.#parts.ids.next('debt_') }));
  }

  /** What fails for another reason than the store's absence would fail again, and must hold up neither the others nor whoever came by: the log hears of it. */
  #sortedOut<Item>(items: readonly Item[], results: readonly PromiseSettledResult<unknown>[]) {
    const answered: Item[] = [];
    const unanswered: Item[] = [];
    let reason: unknown;
    for (const [index, item] of items.entries()) {
      const result = results[index];
      if (result?.status === 'rejected' && this.#parts.isUnavailable(result.reason)) {
        unanswered.push(item);
        reason = result.reason;
        continue;
      }
      answered.push(item);
      if (result?.status !== 'rejected') continue;
      this.#parts.logger.error(
        { component: 'limits', code: nameOf(result.reason) },
        'what was used without the shared limits is not charged',
      );
    }
    return { answered, unanswered, reason };
  }
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error;
}

function sumOf(a: Amounts, b: Amounts): Amounts {
  return {
    inputTokens: a.inputTokens + b.inputTokens,
    outputTokens: a.outputTokens + b.outputTokens,
    costNanoUsd: a.costNanoUsd + b.costNanoUsd,
  };
}

function slotsTaken({ name, limits: { concurrency: limit = 0 } }: LimitScope): ReserveOutcome {
  return {
    kind: 'denied',
    binding: { scope: name, dimension: 'concurrency', limit, remaining: 0, resetMs: 0 },
    used: limit,
    retryAfterMs: 1_000,
  };
}

function limitOf(limits: LimitPolicy, dimension: string): number | undefined {
  switch (dimension) {
    case 'requests':
      return limits.requestsPerMinute;
    case 'tokens':
      return limits.tokensPerMinute;
    case 'input_tokens':
      return limits.inputTokensPerMinute;
    default:
      return limits.outputTokensPerMinute;
  }
}
