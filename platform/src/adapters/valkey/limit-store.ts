/**
 * Limits that any number of replicas share. Every call is one script in the slot of one tenant, and time is Valkey's, so no clock of a replica matters. What a
 * script did to a scope comes back as the scope's numbers, and `admission/limit-arithmetic.ts` says of them what it says of those in memory.
 */
import { LRUCache } from 'lru-cache';
import {
  assertWhole,
  type Found,
  newState,
  rateAmountOf,
  rateDimensions,
  rateLimitOf,
  refusalOf,
  type ScopeState,
  tightestStates,
} from '../../admission/limit-arithmetic.ts';
import type {
  Amounts,
  BudgetSource,
  LimitScope,
  LimitStore,
  ReserveOutcome,
  ReserveRequest,
  SettleOutcome,
} from '../../admission/limit-store.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import { chargeScript, expiredScript, renewScript, reserveScript, settleScript } from './limit-scripts.ts';
import { Script, type ValkeyConnection, ValkeyUnavailable } from './valkey-connection.ts';

export interface ValkeyLimitStoreParts {
  readonly connection: ValkeyConnection;
  readonly clock: Clock;
  readonly budgets: BudgetSource;
  /** Apart from others on the same server. */
  readonly prefix?: string;
  /** Tests move time by hand; absent: the server's. Microseconds. */
  readonly nowUs?: () => number;
}

const scripts = {
  reserve: new Script(reserveScript),
  settle: new Script(settleScript),
  renew: new Script(renewScript),
  expired: new Script(expiredScript),
  charge: new Script(chargeScript),
};
const fieldsPerScope = 8;
/** A budget is told and still missing only when its hash was lost in between. */
const loadsMax = 3;
/** Scopes that are remembered for a time without Valkey. */
const scopesMax = 20_000;
/** Tenants whose leases this process looks after. */
const tenantsMax = 50_000;

type Reply = readonly [string, ...string[]];

export class ValkeyLimitStore implements LimitStore {
  readonly #parts: ValkeyLimitStoreParts;
  readonly #prefix: string;
  /** Where this process's live reservations are. */
  readonly #live = new Map<string, { readonly tenant: string; readonly scopes: readonly LimitScope[] }>();
  /** How scopes stood when Valkey last told of them. */
  readonly #seen = new LRUCache<string, { readonly atMs: number; readonly aheadUs: readonly number[] }>({ max: scopesMax });
  /** What is being asked of the source: once for all who wait. */
  readonly #loading = new Map<string, Promise<number>>();
  /** Tenants that were here, the oldest first. */
  readonly #tenants = new Set<string>();

  constructor(parts: ValkeyLimitStoreParts) {
    this.#parts = parts;
    this.#prefix = parts.prefix ?? 'bulkhead';
  }

  async reserve(request: ReserveRequest): Promise<ReserveOutcome> {
    const { reservationId, scopes, amounts } = request;
    assertWhole(amounts);
    const tenant = tenantOf(scopes);
    this.#remember(tenant);
    const spent = new Map<number, number>();
    // Before it is asked: an answer that comes too late must find its reservation to end.
    const wasLive = this.#live.has(reservationId);
    this.#live.set(reservationId, { tenant, scopes });
    let holdsNothing = true;
    try {
      const outcome = await this.#untilDecided(tenant, request, spent);
      holdsNothing = outcome.kind !== 'reserved';
      return outcome;
    } catch (error) {
      holdsNothing = !(error instanceof ValkeyUnavailable);
      throw error;
    } finally {
      if (holdsNothing && !wasLive) this.#live.delete(reservationId);
    }
  }

  async #untilDecided(tenant: string, request: ReserveRequest, spent: Map<number, number>): Promise<ReserveOutcome> {
    const { scopes } = request;
    for (let load = 0; load <= loadsMax; load++) {
      const reply = await this.#reserve(tenant, request, spent);
      switch (reply[0]) {
        case 'spent':
          return { kind: 'spent' };
        case 'load':
          await this.#load(scopes, reply.slice(1).map(Number), spent);
          break;
        case 'denied':
          return this.#refusal(request, reply);
        default: {
          const { found, now } = this.#read(scopes, reply);
          return { kind: 'reserved', states: tightestStates(found, now) };
        }
      }
    }
    throw new Error('a budget was told and is not there');
  }

  async settle(reservationId: string, actual: Amounts): Promise<SettleOutcome> {
    assertWhole(actual);
    const held = this.#live.get(reservationId);
    if (held === undefined) return 'unknown';
    const ended = await this.#end({ reservationId, tenant: held.tenant, keys: this.#scopeKeys(held) }, 'settle', actual);
    this.#live.delete(reservationId);
    return (['unknown', 'settled', 'corrected_after_reap'] as const)[ended] ?? 'unknown';
  }

  async renew(reservationId: string, leaseMs: number, progress: Amounts): Promise<boolean> {
    assertWhole(progress);
    const held = this.#live.get(reservationId);
    if (held === undefined) return false;
    const { inputTokens, outputTokens, costNanoUsd } = progress;
    const args = [reservationId, leaseMs, this.#now(), costNanoUsd, inputTokens + outputTokens, inputTokens, outputTokens].map(String);
    return (await this.#parts.connection.run<number>(scripts.renew, this.#keys(held.tenant, reservationId), args)) === 1;
  }

  /** Leases of every tenant that was here, of whatever replica. */
  async reap(): Promise<number> {
    let reaped = 0;
    for (const tenant of this.#tenants) {
      const ids = await this.#parts.connection.run<readonly string[]>(scripts.expired, [this.#leases(tenant)], [this.#now()]);
      for (const reservationId of ids) reaped += await this.#reap(tenant, reservationId);
    }
    return reaped;
  }

  async liveCount(): Promise<number> {
    let count = 0;
    for (const tenant of this.#tenants) count += await this.#parts.connection.send<number>(['ZCARD', this.#leases(tenant)]);
    return count;
  }

  /** Adds what was used without asking. */
  async charge({
    scopes,
    used,
    requests,
  }: {
    readonly scopes: readonly LimitScope[];
    readonly used: Amounts;
    readonly requests: number;
  }): Promise<void> {
    const tenant = tenantOf(scopes);
    const amounts = [requests, ...amountsOf(used).slice(1)];
    const keys = this.#scopeKeys({ tenant, scopes });
    for (const [index, { limits, budget }] of scopes.entries()) {
      const args = [this.#now(), budget?.period.id ?? '', used.costNanoUsd, ...ratesOf(limits), ...amounts];
      await this.#parts.connection.run(scripts.charge, [keys[index] as string], args.map(String));
    }
  }

  /** How far a scope's rates were ahead of now when Valkey last told of it, less what has passed since, in microseconds. */
  lastKnown({ key }: LimitScope): readonly number[] | undefined {
    const seen = this.#seen.get(key);
    if (seen === undefined) return undefined;
    const passedUs = (this.#parts.clock.monotonicMs() - seen.atMs) * 1_000;
    return seen.aheadUs.map((ahead) => Math.max(0, ahead - passedUs));
  }

  /** Reservations of this process in a scope, but for these. */
  liveIn({ key }: LimitScope, ended: ReadonlyMap<string, unknown>): number {
    let live = 0;
    for (const [reservationId, { scopes }] of this.#live)
      if (!ended.has(reservationId) && scopes.some((scope) => scope.key === key)) live++;
    return live;
  }

  async #reap(tenant: string, reservationId: string): Promise<number> {
    const [, record] = this.#keys(tenant, reservationId);
    const count = Number(await this.#parts.connection.send<string | null>(['HGET', record, 'scopes']));
    const names = Array.from({ length: count }, (_, index) => `k${index + 1}`);
    const keys = count === 0 ? [] : await this.#parts.connection.send<readonly (string | null)[]>(['HMGET', record, ...names]);
    const nothing: Amounts = { inputTokens: 0, outputTokens: 0, costNanoUsd: 0 };
    return this.#end({ reservationId, tenant, keys: keys.map((key) => key ?? '') }, 'reap', nothing);
  }

  #reserve(tenant: string, request: ReserveRequest, spent: ReadonlyMap<number, number>): Promise<Reply> {
    const { reservationId, leaseMs, amounts, scopes, share = 1 } = request;
    const args = [reservationId, leaseMs, this.#now(), share, amounts.costNanoUsd, ...amountsOf(amounts)];
    for (const [index, { limits, budget }] of scopes.entries()) {
      args.push(
        limits.concurrency ?? -1,
        budget?.limitNanoUsd ?? -1,
        budget?.isHard === true ? 1 : 0,
        budget?.period.id ?? '',
        spent.get(index) ?? '',
      );
      args.push(...ratesOf(limits));
    }
    const keys = [...this.#keys(tenant, reservationId), ...this.#scopeKeys({ tenant, scopes })];
    return this.#parts.connection.run(scripts.reserve, keys, args.map(String));
  }

  #end(
    { reservationId, tenant, keys }: { readonly reservationId: string; readonly tenant: string; readonly keys: readonly string[] },
    mode: 'settle' | 'reap',
    actual: Amounts,
  ): Promise<number> {
    const args = [reservationId, mode, this.#now(), actual.costNanoUsd, ...amountsOf(actual)].map(String);
    return this.#parts.connection.run(scripts.settle, [...this.#keys(tenant, reservationId), ...keys], args);
  }

  async #load(scopes: readonly LimitScope[], numbers: readonly number[], spent: Map<number, number>): Promise<void> {
    for (const number of numbers) {
      const { key, budget } = scopes[number - 1] as LimitScope;
      assert(budget !== undefined, 'only a budget has to be told');
      spent.set(number - 1, await this.#spentOf(key, budget));
    }
  }

  #spentOf(key: string, budget: NonNullable<LimitScope['budget']>): Promise<number> {
    const slot = `${key} ${budget.period.id}`;
    const known = this.#loading.get(slot);
    if (known !== undefined) return known;
    const loading = this.#askSource(key, budget).finally(() => this.#loading.delete(slot));
    this.#loading.set(slot, loading);
    return loading;
  }

  async #askSource(key: string, budget: NonNullable<LimitScope['budget']>): Promise<number> {
    if (!budget.isKept) return 0;
    try {
      return await this.#parts.budgets.spentNanoUsd(key, budget.period.id);
    } catch (error) {
      // What refuses nothing must not fail a request either.
      if (budget.isHard) throw error;
      return 0;
    }
  }

  #refusal(request: ReserveRequest, reply: Reply): ReserveOutcome {
    const { found, now } = this.#read(request.scopes, reply);
    const refusal = refusalOf(request, found, now);
    assert(refusal !== undefined, 'what Valkey refuses is refused here');
    return refusal;
  }

  #read(scopes: readonly LimitScope[], [, at = '0', ...fields]: Reply) {
    const now = { us: Number(at), wallMs: this.#parts.clock.nowMs() };
    const found = scopes.map(
      (scope, index): Found => ({
        scope,
        state: stateOf(scope, fields.slice(index * fieldsPerScope, (index + 1) * fieldsPerScope)),
        money: undefined,
      }),
    );
    const atMs = this.#parts.clock.monotonicMs();
    for (const { scope, state } of found) this.#seen.set(scope.key, { atMs, aheadUs: state.tats.map((tat) => Math.max(0, tat - now.us)) });
    return { found, now };
  }

  #now(): string {
    return this.#parts.nowUs === undefined ? '' : String(this.#parts.nowUs());
  }

  /** One hash tag a tenant, so that all of it is in one slot. */
  #keys(tenant: string, reservationId: string): readonly [string, string] {
    return [this.#leases(tenant), `${this.#prefix}:{${tenant}}:r:${reservationId}`];
  }

  #leases(tenant: string): string {
    return `${this.#prefix}:{${tenant}}:leases`;
  }

  #scopeKeys({ tenant, scopes }: { readonly tenant: string; readonly scopes: readonly LimitScope[] }): readonly string[] {
    return scopes.map(({ key }) => `${this.#prefix}:{${tenant}}:s:${key}`);
  }

  #remember(tenant: string): void {
    this.#tenants.delete(tenant);
    this.#tenants.add(tenant);
    if (this.#tenants.size <= tenantsMax) return;
    const [oldest] = this.#tenants;
    if (oldest !== undefined) this.#tenants.delete(oldest);
  }
}

/** The outermost scope: every other key begins with its. */
function tenantOf(scopes: readonly LimitScope[]): string {
  return scopes[0]?.key ?? '';
}

/** As the scripts take them: 0 where there is no limit. */
function ratesOf(limits: LimitScope['limits']): readonly number[] {
  return rateDimensions.map((_, rate) => rateLimitOf(limits, rate) ?? 0);
}

function amountsOf(amounts: Amounts): readonly number[] {
  return rateDimensions.map((_, rate) => rateAmountOf(amounts, rate));
}

function stateOf({ budget }: LimitScope, [t1, t2, t3, t4, inFlight, period = '', spent, reserved]: readonly string[]): ScopeState {
  const money =
    budget !== undefined && period === budget.period.id
      ? { periodId: period, spent: Number(spent), reserved: Number(reserved) }
      : undefined;
  return { ...newState(), tats: [t1, t2, t3, t4].map((tat) => Number(tat)), inFlight: Number(inFlight), money };
}
