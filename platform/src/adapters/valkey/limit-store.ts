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
import type { Amounts, BudgetSource, LimitScope, ReserveOutcome, ReserveRequest, SettleOutcome } from '../../admission/limit-store.ts';
import type { ChargedDebt, SharedLimitStore } from '../../admission/replicated-limits.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import { chargeScript, expiredScript, renewScript, reserveScript, scopesScript, settleScript } from './limit-scripts.ts';
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
  scopes: new Script(scopesScript),
  expired: new Script(expiredScript),
  charge: new Script(chargeScript),
};
const fieldsPerScope = 8;
/** A budget is told and still missing only when its hash was lost in between. */
const loadsMax = 3;
/** Scopes that are remembered for a time without Valkey. */
const scopesMax = 20_000;
/** Tenants whose leases this process looks after at a time. */
const tenantsMax = 50_000;
/** Tenants that are asked for at once, which one round trip carries. */
const tenantsAtOnce = 64;
/** Leases of one tenant; what is not done after so many rounds is next time's. */
const expiredAtOnce = 64;
const roundsMax = 16;
/**
 * What the settling of a reservation says that is not there. One that has ended is there for a quarter of an hour more, so the server was restarted, or a copy took over that had not
 * heard of it: what was used is charged as it is.
 */
const lost = -1;
const nothing: Amounts = { inputTokens: 0, outputTokens: 0, costNanoUsd: 0 };

interface Held {
  readonly tenant: string;
  readonly scopes: readonly LimitScope[];
  hasEnded: boolean;
}

function isSomething({ inputTokens, outputTokens, costNanoUsd }: Amounts): boolean {
  return inputTokens + outputTokens + costNanoUsd > 0;
}

type Reply = readonly [string, ...string[]];

/** Of the values behind the keys. Another one is another place: processes of two versions never read what the other wrote. */
const format = 2;

export class ValkeyLimitStore implements SharedLimitStore {
  readonly #parts: ValkeyLimitStoreParts;
  readonly #prefix: string;
  /** Where this process's live reservations are. */
  readonly #live = new Map<string, Held>();
  /** How many of them run, by scope. */
  readonly #liveIn = new Map<string, number>();
  /** How scopes stood when Valkey last told of them. */
  readonly #seen = new LRUCache<string, { readonly atMs: number; readonly aheadUs: readonly number[] }>({ max: scopesMax });
  /** What is being asked of the source: once for all who wait. */
  readonly #loading = new Map<string, Promise<number>>();
  /** Tenants that were here since their leases were last looked at, or had some then. */
  readonly #tenants = new Set<string>();

  constructor(parts: ValkeyLimitStoreParts) {
    this.#parts = parts;
    this.#prefix = `${parts.prefix ?? 'bulkhead'}:${format}`;
  }

  async reserve(request: ReserveRequest): Promise<ReserveOutcome> {
    const { reservationId, scopes, amounts } = request;
    assertWhole(amounts);
    const tenant = tenantOf(scopes);
    if (this.#tenants.size < tenantsMax) this.#tenants.add(tenant);
    const spent = new Map<number, number>();
    // Before it is asked: an answer that comes too late must find its reservation to end.
    const wasLive = this.#live.has(reservationId);
    if (!wasLive) this.#hold(reservationId, { tenant, scopes, hasEnded: false });
    let holdsNothing = true;
    try {
      const outcome = await this.#untilDecided(tenant, request, spent);
      holdsNothing = outcome.kind !== 'reserved';
      return outcome;
    } catch (error) {
      holdsNothing = !(error instanceof ValkeyUnavailable);
      throw error;
    } finally {
      if (holdsNothing && !wasLive) this.forget(reservationId);
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
    if (ended === lost && isSomething(actual)) await this.charge({ id: reservationId, scopes: held.scopes, used: actual, requests: 1 });
    this.forget(reservationId);
    if (ended === lost) return 'unknown';
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

  /**
   * Leases, of whatever replica, of tenants that were here. A tenant is asked for while it has any: those of a replica that died are given back by every other one that
   * the tenant comes to, and held against nobody while it comes to none.
   */
  async reap(): Promise<number> {
    const counts = await this.#ofTenants((tenant) => this.#reapTenant(tenant));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async liveCount(): Promise<number> {
    const counts = await this.#ofTenants((tenant) => this.#parts.connection.send<number>(['ZCARD', this.#leases(tenant)]));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  /** Adds what was used without asking. */
  async charge({ id, scopes, used, requests }: ChargedDebt): Promise<void> {
    const tenant = tenantOf(scopes);
    const args = [this.#now(), used.costNanoUsd, requests, ...amountsOf(used).slice(1)];
    for (const { limits, budget } of scopes) args.push(budget?.period.id ?? '', ...ratesOf(limits));
    const keys = [`${this.#prefix}:{${tenant}}:d:${id}`, ...this.#scopeKeys({ tenant, scopes })];
    await this.#parts.connection.run(scripts.charge, keys, args.map(String));
  }

  /** How far a scope's rates were ahead of now when Valkey last told of it, less what has passed since, in microseconds. */
  lastKnown({ key }: LimitScope): readonly number[] | undefined {
    const seen = this.#seen.get(key);
    if (seen === undefined) return undefined;
    const passedUs = (this.#parts.clock.monotonicMs() - seen.atMs) * 1_000;
    return seen.aheadUs.map((ahead) => Math.max(0, ahead - passedUs));
  }

  liveIn({ key }: Pick<LimitScope, 'key'>): number {
    return this.#liveIn.get(key) ?? 0;
  }

  endsLater(reservationId: string): void {
    const held = this.#live.get(reservationId);
    if (held === undefined || held.hasEnded) return;
    held.hasEnded = true;
    for (const { key } of held.scopes) {
      const left = this.liveIn({ key }) - 1;
      if (left === 0) this.#liveIn.delete(key);
      else this.#liveIn.set(key, left);
    }
  }

  forget(reservationId: string): void {
    this.endsLater(reservationId);
    this.#live.delete(reservationId);
  }

  #hold(reservationId: string, held: Held): void {
    this.#live.set(reservationId, held);
    for (const scope of held.scopes) this.#liveIn.set(scope.key, this.liveIn(scope) + 1);
  }

  async #ofTenants(ask: (tenant: string) => Promise<number>): Promise<readonly number[]> {
    const tenants = [...this.#tenants];
    const counts: number[] = [];
    for (let from = 0; from < tenants.length; from += tenantsAtOnce) {
      counts.push(...(await Promise.all(tenants.slice(from, from + tenantsAtOnce).map(ask))));
    }
    return counts;
  }

  async #reapTenant(tenant: string): Promise<number> {
    // Before it is asked: who comes meanwhile is asked for again.
    this.#tenants.delete(tenant);
    let reaped = 0;
    try {
      for (let round = 0; round < roundsMax; round++) {
        const args = [this.#now(), String(expiredAtOnce)];
        const [live, ...ids] = await this.#parts.connection.run<readonly [number, ...string[]]>(
          scripts.expired,
          [this.#leases(tenant)],
          args,
        );
        for (const reservationId of ids) reaped += await this.#reap(tenant, reservationId);
        if (live === ids.length) return reaped;
        if (ids.length < expiredAtOnce) break;
      }
      this.#tenants.add(tenant);
      return reaped;
    } catch (error) {
      this.#tenants.add(tenant);
      throw error;
    }
  }

  async #reap(tenant: string, reservationId: string): Promise<number> {
    const [, record] = this.#keys(tenant, reservationId);
    const keys = await this.#parts.connection.run<readonly string[]>(scripts.scopes, [record], []);
    return Math.max(0, await this.#end({ reservationId, tenant, keys }, 'reap', nothing));
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
