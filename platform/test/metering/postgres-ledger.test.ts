import { sql } from 'kysely';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBudgetSource } from '../../src/adapters/postgres/budget-spend.ts';
import { openUsageReader, PostgresOperatorUsage, PostgresUsageLedger } from '../../src/adapters/postgres/usage-ledger.ts';
import type { CostLine, UsageEvent } from '../../src/metering/usage-event.ts';
import { nanoUsd } from '../../src/primitives/money.ts';
import { mintOperatorScope } from '../../src/tenancy/mint-operator-scope.ts';
import type { UsageRow } from '../../src/tenancy/usage.ts';
import { usageEvent } from '../contracts/usage-events.ts';
import { usageLedgerContract } from '../contracts/usage-ledger.ts';
import { openTestDatabase, principalOf, type TestDatabase, tenantId } from '../support/embedded-database.ts';

async function storedEvents(db: TestDatabase): Promise<readonly UsageEvent[]> {
  const rows = await db.database.withClient(
    async (client) => (await client.query('SELECT * FROM app.usage_event')).rows as Record<string, unknown>[],
  );
  return rows.map((row) => ({
    id: String(row['id']),
    tenantId: tenantId(String(row['tenant_id'])),
    keyId: String(row['key_id']),
    user: String(row['user_id']),
    requestId: String(row['request_id']),
    endpoint: row['endpoint'] as UsageEvent['endpoint'],
    model: String(row['model']),
    upstreamModel: String(row['upstream_model']),
    provider: String(row['provider']),
    serviceTier: String(row['service_tier']),
    occurredAtMs: Number(row['occurred_at_ms']),
    usage: row['usage'] as UsageEvent['usage'],
    estimated: row['estimated'] === true,
    outcome: row['outcome'] as UsageEvent['outcome'],
    cost: row['cost_nano_usd'] === null ? null : nanoUsd(BigInt(row['cost_nano_usd'] as string)),
    costLines: (row['cost_lines'] as (Omit<CostLine, 'cost'> & { readonly cost: string })[]).map((line) => ({
      ...line,
      cost: nanoUsd(BigInt(line.cost)),
    })),
    priceVersion: String(row['price_version']),
  }));
}

usageLedgerContract('the ledger in PostgreSQL', async () => {
  const db = await openTestDatabase();
  return {
    ledger: new PostgresUsageLedger(db.database),
    stored: () => storedEvents(db),
    clear: async () => {
      await db.database.withClient((client) => client.query('TRUNCATE app.usage_event, control.usage_daily'));
    },
    close: async () => {
      await db[Symbol.asyncDispose]();
    },
  };
});

describe('the sums of usage', () => {
  let db: TestDatabase;
  let ledger: PostgresUsageLedger;
  const operator = mintOperatorScope('test');
  const days = { fromDay: '2000-01-01', untilDay: '2100-01-01' };
  beforeAll(async () => {
    db = await openTestDatabase();
    ledger = new PostgresUsageLedger(db.database);
  });
  afterAll(async () => {
    await db[Symbol.asyncDispose]();
  });

  const total = (rows: readonly UsageRow[]) =>
    rows.reduce((sum, row) => ({ requests: sum.requests + row.requests, cost: sum.cost + row.cost, input: sum.input + row.inputTokens }), {
      requests: 0,
      cost: 0n,
      input: 0,
    });

  it('grow only by events that are new, so a replay changes nothing, and equal the ledger', async () => {
    const usage = new PostgresOperatorUsage(db.database);
    const events = Array.from({ length: 120 }, (_, index) =>
      usageEvent(index, { model: `m${index % 3}`, tenantId: tenantId(index % 2 === 0 ? 'acme' : 'globex') }),
    );
    await ledger.append(events.slice(0, 80));
    await ledger.append(events.slice(40));
    await ledger.append([...events.slice(0, 10), ...events.slice(0, 10)]);
    const rows = await usage.query(operator, { ...days, groupBy: ['model', 'day', 'key', 'endpoint'] });
    const expected = events.reduce((sum, event) => sum + (event.cost ?? 0n), 0n);
    expect(total(rows)).toEqual({ requests: 120, cost: expected, input: events.reduce((sum, event) => sum + event.usage.inputTokens, 0) });
    for (const tenant of ['acme', 'globex']) {
      const own = await openUsageReader(db.database.forTenant(principalOf(tenant))).query({ ...days, groupBy: ['model'] });
      const same = await usage.query(operator, { ...days, groupBy: ['model'], tenantId: tenantId(tenant) });
      expect(own).toEqual(same);
      expect(own.every((row) => row.tenantId === tenant)).toBe(true);
    }
  });

  it('cannot be changed or removed by the role that writes them to the ledger', async () => {
    for (const statement of ["UPDATE app.usage_event SET model = 'x'", 'DELETE FROM app.usage_event', 'DELETE FROM control.usage_daily']) {
      const attempt = db.database.forLedger().append(async (q) => {
        await sql`SELECT set_config('app.tenant_id', 'acme', true)`.execute(q);
        await sql.raw(statement).execute(q);
      });
      await expect(attempt).rejects.toMatchObject({ sqlState: '42501' });
    }
  });

  it('are written by a role that adds for every tenant and sees none without its context', async () => {
    const read = (tenant: string) =>
      db.database.forLedger().append(async (q) => {
        if (tenant !== '') await sql`SELECT set_config('app.tenant_id', ${tenant}, true)`.execute(q);
        return (await sql<{ readonly tenant_id: string }>`SELECT DISTINCT tenant_id FROM app.usage_event`.execute(q)).rows;
      });
    await expect(read('')).rejects.toMatchObject({ sqlState: '42501' });
    expect(await read('globex')).toEqual([{ tenant_id: 'globex' }]);
  });

  it('take a replayed batch of many tenants once', async () => {
    const usage = new PostgresOperatorUsage(db.database);
    const events = Array.from({ length: 200 }, (_, index) =>
      usageEvent(10_000 + index, { model: 'replayed', tenantId: tenantId(`crowd-${index}`) }),
    );
    await ledger.append(events.slice(0, 120));
    await ledger.append(events);
    await ledger.append(events);
    const rows = await usage.query(operator, { ...days, groupBy: ['model'] });
    const replayed = rows.filter((row) => row.model === 'replayed');
    expect(replayed).toHaveLength(200);
    expect(total(replayed).requests).toBe(200);
  });
});

describe('the sums of budgets', () => {
  let db: TestDatabase;
  let ledger: PostgresUsageLedger;
  beforeAll(async () => {
    db = await openTestDatabase();
    ledger = new PostgresUsageLedger(db.database);
  });
  afterAll(() => db[Symbol.asyncDispose]());

  const now = Date.UTC(2026, 0, 15);
  const budgetOf = (scope: string, period = '2026-01') => ({
    scope,
    level: 'tenant',
    period,
    limitNanoUsd: 1e9,
    isHard: true,
    endsAtMs: Date.UTC(2026, 1, 1),
  });
  const eventOf = (number: number, changes: Partial<UsageEvent> = {}) =>
    usageEvent(number, { occurredAtMs: now, cost: nanoUsd(7n), budgets: [budgetOf('t:4.acme'), budgetOf('t:4.acme:u:3.ann')], ...changes });
  const spent = (scope: string, period = '2026-01') => openBudgetSource(db.database, async () => {}).spentNanoUsd(scope, period);

  // Planted: adding a replayed event again.
  it('grow by each event once, in every level, a period at a time', async () => {
    const events = Array.from({ length: 40 }, (_, index) => eventOf(index));
    await ledger.append(events.slice(0, 30));
    await ledger.append(events.slice(20));
    await ledger.append(events);
    await ledger.append([
      eventOf(100, { cost: null }),
      eventOf(101, { budgets: undefined }),
      eventOf(102, { budgets: [budgetOf('t:4.acme', '2026-02')] }),
    ]);
    expect(await spent('t:4.acme')).toBe(280);
    expect(await spent('t:4.acme:u:3.ann')).toBe(280);
    expect(await spent('t:4.acme', '2026-02')).toBe(7);
    expect(await spent('t:6.globex')).toBe(0);
  });

  it('are forgotten when their period ended long ago', async () => {
    await ledger.append([eventOf(200)]);
    await ledger.append([
      eventOf(201, { occurredAtMs: Date.UTC(2026, 1, 1) + 34 * 86_400_000, budgets: [budgetOf('t:4.acme', '2026-03')] }),
    ]);
    expect(await spent('t:4.acme')).toBeGreaterThan(0);
    const later = Date.UTC(2026, 1, 1) + 36 * 86_400_000;
    await ledger.append([eventOf(202, { occurredAtMs: later, budgets: [{ ...budgetOf('t:4.acme', '2026-03'), endsAtMs: later }] })]);
    expect(await spent('t:4.acme')).toBe(0);
  });

  it('are asked for after what waits in the journal', async () => {
    const source = openBudgetSource(db.database, () => ledger.append([eventOf(300, { budgets: [budgetOf('t:4.acme', '2026-04')] })]));
    expect(await source.spentNanoUsd('t:4.acme', '2026-04')).toBe(7);
  });

  it('are seen by no role that serves requests', async () => {
    const asTenant = db.database.forTenant(principalOf('acme')).read((q) => sql`SELECT * FROM control.budget_spend`.execute(q));
    await expect(asTenant).rejects.toMatchObject({ sqlState: '42501' });
  });
});
