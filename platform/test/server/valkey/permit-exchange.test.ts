/** Permits in a real Valkey: the contract that its model is held to as well, then what only a server can do. */
import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startValkey } from '../../../../scripts/services.mjs';
import { ValkeyPermitExchange } from '../../../src/adapters/valkey/permit-exchange.ts';
import { ValkeyConnection } from '../../../src/adapters/valkey/valkey-connection.ts';
import { ManualClock } from '../../../src/primitives/clock.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { describePermitExchange, head, type PermitReplica, statement } from '../../contracts/permit-exchange.ts';
import { MemoryPermits } from '../../support/memory-permits.ts';

let server: Awaited<ReturnType<typeof startValkey>>;
const opened: ValkeyConnection[] = [];

beforeAll(async () => {
  server = await startValkey();
});
afterAll(async () => {
  for (const connection of opened) await connection[Symbol.asyncDispose]();
  await server.stop();
});

async function connect(url = server.url): Promise<ValkeyConnection> {
  const connection = ValkeyConnection.open({ url, commandTimeoutMs: 2_000, logger: silentLogger });
  opened.push(connection);
  await expect.poll(() => connection.isReady, { timeout: 10_000, interval: 10 }).toBe(true);
  return connection;
}

function listening(exchange: ValkeyPermitExchange): PermitReplica {
  const heard: string[] = [];
  exchange.listen({
    granted: (poolId, { granted }) => heard.push(`granted ${poolId} ${granted}`),
    wanted: (poolId) => heard.push(`wanted ${poolId}`),
  });
  return {
    exchange,
    async hears(message) {
      await expect.poll(() => heard, { timeout: 2_000, interval: 2 }).toContain(message);
    },
  };
}

let shared: Promise<ValkeyConnection> | undefined;
describePermitExchange('permits in Valkey', async (clock, names) => {
  shared ??= connect();
  const connection = await shared;
  const prefix = randomUUID();
  const replicas = names.map((replicaId) =>
    listening(new ValkeyPermitExchange({ connection, replicaId, prefix, nowMs: () => clock.monotonicMs() })),
  );
  await connection.send(['PING']);
  return replicas;
});

const spoken = fc.record({
  replica: fc.integer({ min: 0, max: 2 }),
  freed: fc.integer({ min: 0, max: 4 }),
  idle: fc.integer({ min: 0, max: 2 }),
  waiting: fc.array(fc.record({ tenant: fc.integer({ min: 0, max: 3 }), queued: fc.integer({ min: 1, max: 5 }), isBatch: fc.boolean() }), {
    maxLength: 3,
  }),
  units: fc.integer({ min: -500, max: 1_000 }),
  creditMax: fc.integer({ min: 0, max: 400 }),
  startedAfter: fc.option(fc.integer({ min: 0, max: 300 }), { nil: undefined }),
  hasBegun: fc.boolean(),
  capacity: fc.option(fc.integer({ min: 0, max: 12 }), { nil: undefined }),
  afterMs: fc.constantFrom(0, 1, 100, 600, 1_100, 5_000),
  isHeard: fc.boolean(),
});

describe('the script', () => {
  // Planted: a condition turned round in one of the two.
  it('says the same as its model, whatever it is told', async () => {
    const connection = await connect();
    await fc.assert(
      fc.asyncProperty(fc.array(spoken, { minLength: 1, maxLength: 25 }), async (steps) => {
        const clock = new ManualClock();
        const nowMs = () => clock.monotonicMs();
        const prefix = randomUUID();
        const model = new MemoryPermits(nowMs);
        const said = [0, 1, 2].map(() => ({ held: 0, granted: 0, number: 0 }));
        for (const step of steps) {
          clock.advance(step.afterMs);
          const replicaId = `r${step.replica}`;
          const own = said[step.replica] as (typeof said)[0];
          own.number++;
          const held = Math.max(0, own.held - step.freed);
          const heads = new Map(
            step.waiting.map(({ tenant, queued, isBatch }) => {
              const place = head(`t${tenant}`, 10 * tenant + 3, queued, isBatch ? 'batch' : 'interactive');
              return [`${place.workClass} ${tenant}`, place];
            }),
          );
          const { units, creditMax, startedAfter, hasBegun, capacity = 8 } = step;
          const said_ = statement({
            ...own,
            held,
            running: Math.max(0, held - step.idle),
            runningBatch: held >> 1,
            capacity,
            isCapacityNew: step.capacity !== undefined,
            charges: (['interactive', 'batch', 'classes'] as const).map((level) => {
              const key = level === 'classes' ? 'batch' : `t${step.freed}`;
              return { level, key, units, creditMax, startedAfter, hasBegun };
            }),
            heads: [...heads.values()],
          });
          const { era: _, ...real } = await new ValkeyPermitExchange({ connection, replicaId, prefix, nowMs }).exchange(said_);
          const { era: __, ...modelled } = model.exchange(replicaId, said_);
          expect(real).toEqual(modelled);
          if (step.isHeard) Object.assign(own, { held: held + real.granted - own.granted - real.lost, granted: real.granted });
          if (own.held < 0) own.held = 0;
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('keys', () => {
  it('of a pool are in one slot of a cluster, and go away when nobody uses them', async () => {
    const cluster = await startValkey({ isCluster: true });
    const connection = await connect(cluster.url);
    await expect.poll(() => connection.send<string>(['CLUSTER', 'INFO']), { timeout: 10_000 }).toContain('cluster_state:ok');
    const exchange = new ValkeyPermitExchange({ connection, replicaId: 'r', prefix: 'p' });
    const charges = [{ level: 'interactive' as const, key: 'acme', hasBegun: true, startedAfter: 0, units: 5, creditMax: 0 }];
    await exchange.exchange(statement({ poolId: 'gpt {4} o', number: 1, charges, heads: [head('acme')] }));
    const keys = await connection.send<readonly string[]>(['KEYS', '*']);
    expect(keys.toSorted()).toEqual(['p:2:{p:gpt {4} o}:pool', 'p:2:{p:gpt {4} o}:replicas', 'p:2:{p:gpt {4} o}:times']);
    for (const key of keys) expect(await connection.send<number>(['PTTL', key])).toBeGreaterThan(80_000_000);
    await exchange.leave('gpt {4} o');
    // Gone with its last replica, and made anew.
    await connection.send(['DEL', 'p:2:{p:gpt {4} o}:times']);
    await exchange.exchange(statement({ poolId: 'gpt {4} o', number: 2 }));
    await exchange.exchange(statement({ poolId: 'gpt {4} o', number: 3, charges }));
    for (const key of keys) expect(await connection.send<number>(['PTTL', key])).toBeGreaterThan(80_000_000);
    await exchange.leave('gpt {4} o');
    await cluster.stop();
  });

  // Planted: keeping every tenant that ever was.
  it('hold no tenant whose time has passed, once there are many', async () => {
    const connection = await connect();
    const prefix = randomUUID();
    const exchange = new ValkeyPermitExchange({ connection, replicaId: 'r', prefix });
    const charge = { level: 'interactive' as const, hasBegun: true, startedAfter: 0, creditMax: 0 };
    for (let number = 1; number <= 40; number++) {
      const charges = Array.from({ length: 100 }, (_, index) => ({ ...charge, key: `t${number}-${index}`, units: 1 }));
      await exchange.exchange(statement({ number, charges }));
    }
    await exchange.exchange(statement({ number: 10_000, charges: [{ ...charge, key: 'late', units: 5, startedAfter: 1_000 }] }));
    for (let number = 0; number < 200; number++) await exchange.exchange(statement({ number: 10_000 }));
    expect(await connection.send<number>(['HLEN', `${prefix}:2:{p:pool}:times`])).toBeLessThanOrEqual(1_001);
  });
});
