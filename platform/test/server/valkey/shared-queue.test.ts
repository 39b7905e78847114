/** Two servers with one Valkey: the queue is one, and its operator sees that. */
import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type RunningValkey, startValkey } from '../../../../scripts/services.mjs';
import { type RunningBulkhead, startBulkhead } from '../../support/running-bulkhead.ts';

const adminToken = 'an-admin-token-for-tests';
const asOperator = { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' };
let valkey: RunningValkey;
const servers: { readonly bulkhead: RunningBulkhead; readonly tenant: string; readonly key: string }[] = [];

beforeAll(async () => {
  valkey = await startValkey();
  const config = JSON.stringify({
    auth: { adminToken },
    valkey: { url: valkey.url },
    bounds: { valkeyCommandTimeoutMs: 250 },
    tiers: { test: { weight: 1 } },
    providers: [{ id: 'sim', kind: 'simulated', timeToFirstTokenMs: 20, tokensPerSecond: 400, concurrency: 6 }],
    models: [{ id: 'chat', deployments: [{ provider: 'sim', model: 'chat', limits: { concurrency: 6 } }] }],
  });
  for (const tenant of ['acme', 'globex']) {
    const bulkhead = await startBulkhead({ config });
    const post = async (path: string, body: unknown) => {
      const answer = await fetch(`${bulkhead.baseUrl}${path}`, { method: 'POST', headers: asOperator, body: JSON.stringify(body) });
      return (await answer.json()) as Record<string, unknown>;
    };
    await post('/admin/v1/tenants', { id: tenant, tier: 'test' });
    const { key } = await post(`/admin/v1/tenants/${tenant}/keys`, { name: 'test' });
    servers.push({ bulkhead, tenant, key: String(key) });
  }
});
afterAll(async () => {
  for (const { bulkhead } of servers) await bulkhead[Symbol.asyncDispose]();
  await valkey.stop('SIGKILL');
});

interface Pool {
  readonly capacity: number;
  readonly permits: number;
  readonly in_flight: number;
  readonly utilisation: number | null;
  readonly elsewhere: { readonly replicas: number; readonly in_flight: number; readonly queued: number } | null;
  readonly tenants: readonly { readonly tenant: string; readonly started: number }[];
}

async function poolOf({ bulkhead }: (typeof servers)[number]): Promise<Pool> {
  const answer = await fetch(`${bulkhead.baseUrl}/admin/v1/fairness`, { headers: asOperator });
  return ((await answer.json()) as { readonly data: readonly [Pool] }).data[0];
}

const chat = async ({ bulkhead, key }: (typeof servers)[number], maxTokens: number) => {
  const answer = await fetch(`${bulkhead.baseUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'chat',
      messages: [{ role: 'user', content: 'Tell a long story about the sea.' }],
      max_tokens: maxTokens,
    }),
  });
  await answer.arrayBuffer();
  return answer.status;
};

// Planted: a queue that is composed without its sharing; permits of each replica reported as the pool's.
it('a tenant alone on each gets half of the pool, and a server that is killed leaves it to the other', async () => {
  await expect
    .poll(async () => (await Promise.all(servers.map(poolOf))).map((pool) => pool.elsewhere?.replicas), { timeout: 10_000 })
    .toEqual([1, 1]);
  await wait(3_000);
  let isOver = false;
  const statuses = new Set<number>();
  const load = servers.map((server) =>
    Promise.all(
      Array.from({ length: 12 }, async () => {
        while (!isOver) statuses.add(await chat(server, 60).catch(() => 0));
      }),
    ),
  );
  await wait(4_000);
  const sums: number[] = [];
  const permits: number[] = [];
  for (let count = 0; count < 20; count++) {
    const pools = await Promise.all(servers.map(poolOf));
    sums.push(pools.reduce((sum, pool) => sum + pool.in_flight, 0));
    permits.push(pools[0]?.permits ?? 0);
    await wait(50);
  }
  // Two looks at two moments: a permit may be seen on its way on both.
  expect(sums.reduce((sum, each) => sum + each, 0) / sums.length).toBeLessThan(6.5);
  const [one, other] = (await Promise.all(servers.map(poolOf))) as [Pool, Pool];
  expect(one).toMatchObject({ capacity: 6, elsewhere: { replicas: 1 } });
  expect(one.elsewhere?.queued).toBeGreaterThan(0);
  // All six may be here for a moment, not all the time.
  expect(permits.reduce((sum, each) => sum + each, 0) / permits.length).toBeLessThan(5);
  expect(one.utilisation).toBeGreaterThan(0.8);
  const ratio = (one.tenants[0]?.started ?? 0) / (other.tenants[0]?.started ?? 1);
  expect(ratio).toBeGreaterThan(0.7);
  expect(ratio).toBeLessThan(1.4);
  expect([...statuses]).toEqual([200]);
  await servers[0]?.bulkhead.stop('SIGKILL');
  await expect.poll(async () => (await poolOf(servers[1] as (typeof servers)[number])).in_flight, { timeout: 10_000 }).toBe(6);
  isOver = true;
  await Promise.all(load);
});
