/**
 * What the period of each budget has cost. The sums grow in the transaction that adds events to the ledger, by the events it really added: what a limit
 * refuses by and what is billed cannot part.
 */
import { sql } from 'kysely';
import type { BudgetSource } from '../../admission/limit-store.ts';
import type { EventBudget, UsageEvent } from '../../metering/usage-event.ts';
import type { Database, Sql } from './database.ts';

/** Sums of periods that ended this long before a batch go with it: nothing asks for them any more. */
const keptMs = 35 * 86_400_000;

export async function addToBudgets(db: Sql, events: readonly UsageEvent[]): Promise<void> {
  const sums = sumsOf(events);
  if (sums.length === 0) return;
  await sql`
    INSERT INTO control.budget_spend AS spend (tenant_id, scope, period, spent_nano_usd, ends_at_ms)
    SELECT * FROM json_to_recordset(${JSON.stringify(sums)}::json) AS sum (tenant_id text, scope text, period text, spent_nano_usd numeric, ends_at_ms bigint)
    ON CONFLICT (scope, period) DO UPDATE SET spent_nano_usd = spend.spent_nano_usd + excluded.spent_nano_usd`.execute(db);
  const latest = Math.max(...events.map(({ occurredAtMs }) => occurredAtMs));
  await sql`DELETE FROM control.budget_spend WHERE ends_at_ms < ${latest - keptMs}`.execute(db);
}

/** One row a scope and period, in one order everywhere, so that two writers cannot wait for each other. */
function sumsOf(events: readonly UsageEvent[]) {
  const counted = events.flatMap((event) => (event.budgets ?? []).map((budget) => ({ event, budget })));
  const groups = Map.groupBy(counted, ({ budget }) => JSON.stringify([budget.scope, budget.period]));
  const inOrder = [...groups].toSorted(([left], [right]) => (left < right ? -1 : 1));
  return inOrder.map(([, group]) => {
    const [first] = group as [{ readonly event: UsageEvent; readonly budget: EventBudget }];
    return {
      tenant_id: first.event.tenantId,
      scope: first.budget.scope,
      period: first.budget.period,
      spent_nano_usd: group.reduce((sum, { event }) => sum + (event.cost ?? 0n), 0n).toString(),
      ends_at_ms: first.budget.endsAtMs,
    };
  });
}

/** `flush` brings what is still in the journal to the ledger first. */
export function openBudgetSource(database: Database, flush: () => Promise<void>): BudgetSource {
  return {
    async spentNanoUsd(scope, period) {
      await flush();
      const { rows } = await database
        .forDirectory()
        .read((db) =>
          sql<{
            readonly spent: string;
          }>`SELECT spent_nano_usd AS spent FROM control.budget_spend WHERE scope = ${scope} AND period = ${period}`.execute(db),
        );
      return Math.min(Number.MAX_SAFE_INTEGER, Number(rows[0]?.spent ?? 0));
    },
  };
}
