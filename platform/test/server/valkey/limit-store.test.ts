/** Limits in a real Valkey: the same contract as in memory, then what only several replicas and a server can do. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startValkey } from '../../../../scripts/services.mjs';
import { ValkeyLimitStore } from '../../../src/adapters/valkey/limit-store.ts';
import { ValkeyConnection, ValkeyUnavailable } from '../../../src/adapters/valkey/valkey-connection.ts';
import type { BudgetSource, LimitScope } from '../../../src/admission/limit-store.ts';
import { ManualClock, systemClock } from '../../../src/primitives/clock.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { describeLimitStore } from '../../contracts/limit-store.ts';
import { used } from '../../contracts/limit-store-histories.ts';

const noMoney: BudgetSource = { spentNanoUsd: async () => 0 };
let server: Awaited<ReturnType<typeof startValkey>>;
const opened: ValkeyConnection[] = [];
const servers: { stop(signal?: NodeJS.Signals): Promise<void> }[] = [];

beforeAll(async () => {
  server = await startValkey();
});
afterAll(async () => {
  for (const connection of opened) await connection[Symbol.asyncDispose]();
  for (const each of [server, ...servers]) await each.stop();
});

async function connect(url = server.url): Promise<ValkeyConnection> {
  const connection = ValkeyConnection.open({ url, commandTimeoutMs: 2_000, logger: silentLogger });
  opened.push(connection);
  await expect.poll(() => connection.isReady, { timeout: 10_000, interval: 10 }).toBe(true);
  return connection;
}

/** For tests that count the server's calls. */
async function ownServer() {
  const own = await startValkey();
  servers.push(own);
  return own;
}

let shared: Promise<ValkeyConnection> | undefined;
describeLimitStore('limits in Valkey', async (clock, budgets = noMoney) => {
  shared ??= connect();
  return new ValkeyLimitStore({ connection: await shared, clock, budgets, prefix: randomUUID(), nowUs: () => clock.monotonicMs() * 1_000 });
});

const tenantOf = (limits: LimitScope['limits']): readonly LimitScope[] => [{ name: 'tenant', key: 't:4.acme', limits }];
const requestOf = (reservationId: string, scopes: readonly LimitScope[], tokens = 0) => ({
  reservationId,
  leaseMs: 30_000,
  amounts: used(tokens),
  scopes,
});

async function replicas(count: number, changes: { readonly prefix?: string } = {}) {
  const prefix = changes.prefix ?? randomUUID();
  const stores: ValkeyLimitStore[] = [];
  for (let index = 0; index < count; index++) {
    stores.push(new ValkeyLimitStore({ connection: await connect(), clock: systemClock, budgets: noMoney, prefix }));
  }
  return stores as [ValkeyLimitStore, ...ValkeyLimitStore[]];
}

describe('several replicas', () => {
  it('admit together what one would, from 64 requests at once on each', async () => {
    const stores = await replicas(4);
    const scopes = tenantOf({ requestsPerMinute: 50, tokensPerMinute: 100_000, concurrency: 40 });
    const outcomes = await Promise.all(
      stores.flatMap((store, replica) =>
        Array.from({ length: 64 }, (_, index) => store.reserve(requestOf(`${replica}-${index}`, scopes, 100))),
      ),
    );
    expect(outcomes.filter(({ kind }) => kind === 'reserved')).toHaveLength(40);
  });

  it('spend no more of a budget than there is', async () => {
    const stores = await replicas(4);
    const budget = { limitNanoUsd: 1_000, isHard: true, isKept: true, period: { id: '2026-11', endsAtMs: Date.now() + 1e9 } };
    const scopes: readonly LimitScope[] = [{ name: 'tenant', key: 't:4.acme', limits: {}, budget }];
    const spend = (store: ValkeyLimitStore, id: string) =>
      store.reserve({ reservationId: id, leaseMs: 30_000, amounts: { inputTokens: 0, outputTokens: 0, costNanoUsd: 30 }, scopes });
    const outcomes = await Promise.all(
      stores.flatMap((store, replica) => Array.from({ length: 50 }, (_, index) => spend(store, `${replica}-${index}`))),
    );
    expect(outcomes.filter(({ kind }) => kind === 'reserved')).toHaveLength(33);
  });

  // Planted: remembered whatever the source of the budgets says.
  it('remember no reservation that failed before it was made', async () => {
    const budgets: BudgetSource = { spentNanoUsd: () => Promise.reject(new Error('no ledger')) };
    const store = new ValkeyLimitStore({ connection: await connect(), clock: systemClock, budgets, prefix: randomUUID() });
    const budget = { limitNanoUsd: 1_000, isHard: true, isKept: true, period: { id: '2026-11', endsAtMs: Date.now() + 1e9 } };
    const scope: LimitScope = { name: 'tenant', key: 't:4.acme', limits: {}, budget };
    await expect(store.reserve(requestOf('r', [scope]))).rejects.toThrow('no ledger');
    expect(store.liveIn(scope)).toBe(0);
  });

  // Planted: reaping by what this process remembers.
  it('give back what one of them held when it died, once', async () => {
    const [dead, ...alive] = await replicas(3);
    const scopes = tenantOf({ concurrency: 5, tokensPerMinute: 1_000 });
    for (let index = 0; index < 5; index++) await dead.reserve({ ...requestOf(`d${index}`, scopes, 100), leaseMs: 150 });
    const [first, second] = alive as [ValkeyLimitStore, ValkeyLimitStore];
    expect((await first.reserve(requestOf('early', scopes))).kind).toBe('denied');
    await second.reserve(requestOf('early too', scopes));
    await new Promise((resolve) => setTimeout(resolve, 200));
    const reaped = await Promise.all([first.reap(), second.reap(), first.reap()]);
    expect(reaped.reduce((sum, each) => sum + each, 0)).toBe(5);
    const after = await first.reserve(requestOf('after', scopes));
    expect(after).toMatchObject({
      kind: 'reserved',
      states: [
        { dimension: 'tokens', remaining: 1_000 },
        { dimension: 'concurrency', remaining: 4 },
      ],
    });
    // It was not dead after all.
    expect(await dead.settle('d0', used(90))).toBe('corrected_after_reap');
    expect(await dead.settle('d0', used(90))).toBe('unknown');
  });

  // Planted: reaping what this replica holds alone; 64 leases and no more.
  it('give back, within a lease after it ran out, what a dead one held of a tenant they had not seen for long', async () => {
    const [dead, alive] = (await replicas(2)) as [ValkeyLimitStore, ValkeyLimitStore];
    const scopes = tenantOf({ concurrency: 200 });
    await alive.reserve(requestOf('long ago', scopes));
    await alive.settle('long ago', used(0));
    expect(await alive.reap()).toBe(0);
    const leaseMs = 2_000;
    await Promise.all(Array.from({ length: 200 }, (_, index) => dead.reserve({ ...requestOf(`d${index}`, scopes), leaseMs })));
    const ranOutAtMs = performance.now() + leaseMs;
    const kinds: string[] = [];
    // The tenant goes on with the other one, which reaps every third of a lease.
    for (let number = 0; kinds.at(-1) !== 'reserved'; number++) {
      kinds.push((await alive.reserve(requestOf(`a${number}`, scopes))).kind);
      if (kinds.at(-1) !== 'reserved') await new Promise((resolve) => setTimeout(resolve, leaseMs / 3));
      await alive.reap();
      expect(performance.now()).toBeLessThan(ranOutAtMs + leaseMs);
    }
    expect(kinds[0]).toBe('denied');
    expect(await alive.reserve(requestOf('b', scopes))).toMatchObject({ states: [{ remaining: 198 }] });
  });

  // Planted: every tenant that was ever here.
  it('ask for the leases of those tenants alone that were here since, or have some', async () => {
    const connection = await connect((await ownServer()).url);
    const store = new ValkeyLimitStore({ connection, clock: systemClock, budgets: noMoney });
    const tenant = (index: number): readonly LimitScope[] => [{ name: 'tenant', key: `t:${index}`, limits: { concurrency: 1 } }];
    for (let index = 0; index < 300; index++) {
      await store.reserve(requestOf(`r${index}`, tenant(index)));
      if (index > 0) await store.settle(`r${index}`, used(0));
    }
    const callsOf = async (work: () => Promise<unknown>) => {
      await connection.send(['CONFIG', 'RESETSTAT']);
      await work();
      return Number(/cmdstat_evalsha:calls=(\d+)/.exec(await connection.send<string>(['INFO', 'commandstats']))?.[1] ?? 0);
    };
    await store.reap();
    expect(await callsOf(() => store.reap())).toBe(1);
    await store.settle('r0', used(0));
    await store.reap();
    expect(await callsOf(() => store.reap())).toBe(0);
    expect(await store.liveCount()).toBe(0);
  });

  // Planted: leaving a lease whose reservation is gone; its place is the first of every look.
  it('do not trip over a lease whose reservation is not there any more', async () => {
    const prefix = randomUUID();
    const [store] = await replicas(1, { prefix });
    const connection = await connect();
    const scopes = tenantOf({ concurrency: 5 });
    const old = Array.from({ length: 64 }, (_, index) => ['1', `gone${index}`]).flat();
    await connection.send(['ZADD', `${prefix}:2:{t:4.acme}:leases`, ...old]);
    await store.reserve({ ...requestOf('r', scopes), leaseMs: 1 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await store.reap()).toBe(1);
    expect(await store.liveCount()).toBe(0);
  });

  // Planted: charging again; charging a scope at a time.
  it('charge a debt once, in all its scopes', async () => {
    const [store] = await replicas(1);
    const user: LimitScope = { name: 'user', key: 't:4.acme:u:3.ann', limits: { requestsPerMinute: 60, outputTokensPerMinute: 900 } };
    const scopes = [...tenantOf({ tokensPerMinute: 6_000 }), user];
    const debt = { id: 'debt_1', scopes, used: used(300), requests: 3 };
    for (let count = 0; count < 3; count++) await store.charge(debt);
    const outcome = await store.reserve(requestOf('a', scopes));
    const left =
      outcome.kind === 'reserved' ? Object.fromEntries(outcome.states.map(({ dimension, remaining }) => [dimension, remaining])) : {};
    // Refilled a little since: by 100, 1 and 15 a second.
    expect([left['tokens'], left['requests'], left['output_tokens']].map((each) => Math.floor((each ?? 0) / 40) * 40)).toEqual([
      5_680, 40, 680,
    ]);
    expect(left['requests']).toBe(56);
  });

  it('count what runs in a scope, without what has ended and cannot be told', async () => {
    const [store] = await replicas(1);
    const tenant = tenantOf({ concurrency: 9 });
    const key: LimitScope = { name: 'key', key: 't:4.acme:k:2.k1', limits: { concurrency: 9 } };
    for (const id of ['a', 'b', 'c']) await store.reserve(requestOf(id, [...tenant, key]));
    await store.reserve(requestOf('a', [...tenant, key]));
    await store.reserve(requestOf('d', tenant));
    store.endsLater('a');
    store.endsLater('a');
    await store.settle('b', used(0));
    store.forget('c');
    expect([store.liveIn(key), store.liveIn(tenant[0] as LimitScope)]).toEqual([0, 1]);
    // Told at last.
    expect(await store.settle('a', used(0))).toBe('settled');
    expect([store.liveIn(key), store.liveIn(tenant[0] as LimitScope)]).toEqual([0, 1]);
  });

  // Planted: the replica's clock where Valkey's time is asked for.
  it('are as they were when the clock of one jumps by an hour, forth and back (invariant 21)', async () => {
    const prefix = randomUUID();
    const clock = new ManualClock(Date.now());
    const jumping = new ValkeyLimitStore({ connection: await connect(), clock, budgets: noMoney, prefix });
    const [steady] = await replicas(1, { prefix });
    const scopes = tenantOf({ requestsPerMinute: 5, tokensPerMinute: 600, concurrency: 5 });
    await jumping.reserve(requestOf('a', scopes, 300));
    for (const [number, jumpMs] of [3_600_000, -7_200_000, 3_600_000].entries()) {
      clock.stepWallClock(jumpMs);
      if (jumpMs > 0) clock.advance(jumpMs);
      expect(await jumping.reap()).toBe(0);
      expect(await jumping.renew('a', 30_000, used(0))).toBe(true);
      // The other half of the bucket, and nothing of an hour's worth after that.
      expect((await jumping.reserve(requestOf(`j${number}`, scopes, 300))).kind).toBe(number === 0 ? 'reserved' : 'denied');
      const probe = await steady.reserve(requestOf(`s${number}`, scopes, 600));
      expect(probe).toMatchObject({ kind: 'denied', binding: { dimension: 'tokens' } });
      expect(probe.kind === 'denied' && probe.retryAfterMs > 45_000).toBe(true);
    }
    expect(await steady.liveCount()).toBe(2);
  });

  it('do not look at their own clocks', async () => {
    const prefix = randomUUID();
    const clocks = [new ManualClock(Date.now() - 3_600_000), new ManualClock(Date.now() + 3_600_000)] as const;
    const [slow, fast] = await Promise.all(
      clocks.map(async (clock) => new ValkeyLimitStore({ connection: await connect(), clock, budgets: noMoney, prefix })),
    );
    const scopes = tenantOf({ requestsPerMinute: 3 });
    const kinds = [];
    for (let index = 0; index < 6; index++)
      kinds.push((await (index % 2 === 0 ? slow : fast)?.reserve(requestOf(`r${index}`, scopes)))?.kind);
    expect(kinds).toEqual(['reserved', 'reserved', 'reserved', 'denied', 'denied', 'denied']);
  });
});

describe('keys', () => {
  it('of a tenant are in one slot of a cluster, hold no other tenant’s, and go away when nobody uses them', async () => {
    const cluster = await startValkey({ isCluster: true });
    const connection = await connect(cluster.url);
    await expect.poll(() => connection.send<string>(['CLUSTER', 'INFO']), { timeout: 10_000 }).toContain('cluster_state:ok');
    const store = new ValkeyLimitStore({ connection, clock: systemClock, budgets: noMoney, prefix: 'p' });
    const user: LimitScope = { name: 'user', key: 't:4.acme:u:7.{x}:s:y', limits: { requestsPerMinute: 5 } };
    const scopes = [...tenantOf({ tokensPerMinute: 100 }), user];
    await store.reserve({ ...requestOf('r', scopes, 50), leaseMs: 50 });
    await store.reserve(requestOf('s', scopes, 20));
    await store.renew('s', 30_000, used(5));
    expect(await store.settle('s', used(10))).toBe('settled');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await store.reap()).toBe(1);
    const keys = await connection.send<readonly string[]>(['KEYS', '*']);
    expect(keys.toSorted()).toEqual([
      'p:2:{t:4.acme}:r:r',
      'p:2:{t:4.acme}:r:s',
      'p:2:{t:4.acme}:s:t:4.acme',
      'p:2:{t:4.acme}:s:t:4.acme:u:7.{x}:s:y',
    ]);
    for (const key of keys) expect(await connection.send<number>(['PTTL', key])).toBeGreaterThan(800_000);
    await cluster.stop();
  });
});

describe('a Valkey that is not there', () => {
  it('is heard of at once, and used again when it is there', async () => {
    const own = await startValkey();
    const connection = await connect(own.url);
    const store = new ValkeyLimitStore({ connection, clock: systemClock, budgets: noMoney });
    const scopes = tenantOf({ requestsPerMinute: 100 });
    expect((await store.reserve(requestOf('a', scopes))).kind).toBe('reserved');
    await own.stop('SIGKILL');
    await expect.poll(() => connection.isReady, { timeout: 5_000 }).toBe(false);
    const from = performance.now();
    await expect(store.reserve(requestOf('b', scopes))).rejects.toBeInstanceOf(ValkeyUnavailable);
    expect(performance.now() - from).toBeLessThan(50);
    const again = await startValkey({ port: own.port as number });
    await expect.poll(() => connection.isReady, { timeout: 10_000 }).toBe(true);
    // Scripts and counts are gone with it.
    expect((await store.reserve(requestOf('c', scopes))).kind).toBe('reserved');
    await again.stop();
  });

  it('that hangs is waited for no longer than the time of a command', async () => {
    const own = await startValkey();
    const connection = ValkeyConnection.open({ url: own.url, commandTimeoutMs: 50, logger: silentLogger });
    opened.push(connection);
    await expect.poll(() => connection.isReady, { timeout: 10_000 }).toBe(true);
    const other = await connect(own.url);
    const sleeping = other.send(['CLIENT', 'PAUSE', '1000', 'ALL']);
    await sleeping;
    const from = performance.now();
    await expect(connection.send(['PING'])).rejects.toBeInstanceOf(ValkeyUnavailable);
    expect(performance.now() - from).toBeLessThan(300);
    await own.stop('SIGKILL');
  });
});
