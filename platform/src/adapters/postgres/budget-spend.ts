/**
 * What the period of each budget has cost. The sums grow in the transaction that adds events to the ledger, by the events it really added: what a limit
 * refuses by and what is billed cannot part.
 */
import { sql } from 'kysely';
import type { BudgetSource } from '../../admission/limit-store.ts';
import type { EventBudget, UsageEvent } from '../../metering/usage-event.ts';
import { formatUsd, nanoUsd } from '../../primitives/money.ts';
import type { Database, Sql } from './database.ts';
import { appendWebhookEvents, type NewWebhookEvent, webhookEventId } from './webhook-outbox.ts';

interface SpentRow {
  readonly scope: string;
  readonly period: string;
  readonly spent: string;
}

/** Percent of a budget that operators are told of. */
const thresholds = [50, 80, 100] as const;
/** Sums of periods that ended this long before a batch go with it: nothing asks for them any more. */
const keptMs = 35 * 86_400_000;

export async function addToBudgets(db: Sql, events: readonly UsageEvent[]): Promise<void> {
  const sums = sumsOf(events);
  if (sums.length === 0) return;
  const { rows } = await sql<SpentRow>`
    INSERT INTO control.budget_spend AS spend (tenant_id, scope, period, spent_nano_usd, ends_at_ms)
    SELECT * FROM json_to_recordset(${JSON.stringify(sums)}::json) AS sum (tenant_id text, scope text, period text, spent_nano_usd numeric, ends_at_ms bigint)
    ON CONFLICT (scope, period) DO UPDATE SET spent_nano_usd = spend.spent_nano_usd + excluded.spent_nano_usd
    RETURNING scope, period, spent_nano_usd AS spent`.execute(db);
  await tellThresholds(db, events, rows);
  const latest = Math.max(...events.map(({ occurredAtMs }) => occurredAtMs));
  await sql`DELETE FROM control.budget_spend WHERE ends_at_ms < ${latest - keptMs}`.execute(db);
}

/** Once for each threshold of a period and limit; a budget that was made smaller is told of by its next call. */
async function tellThresholds(db: Sql, events: readonly UsageEvent[], spent: readonly SpentRow[]): Promise<void> {
  const latest = new Map(
    events.flatMap((event) => (event.budgets ?? []).map((budget) => [JSON.stringify([budget.scope, budget.period]), { event, budget }])),
  );
  const told = spent.flatMap(({ scope, period, spent: text }) => {
    const found = latest.get(JSON.stringify([scope, period]));
    return found === undefined ? [] : crossed(found, BigInt(text));
  });
  await appendWebhookEvents(db, told);
}

function crossed(
  { event, budget }: { readonly event: UsageEvent; readonly budget: EventBudget },
  spent: bigint,
): readonly NewWebhookEvent[] {
  const limit = BigInt(budget.limitNanoUsd);
  return thresholds
    .filter((percent) => spent * 100n >= limit * BigInt(percent))
    .map((percent) => ({
      id: webhookEventId([budget.scope, budget.period, budget.limitNanoUsd, percent]),
      tenantId: event.tenantId,
      type: 'budget.threshold_reached',
      atMs: event.occurredAtMs,
      payload: {
        tenant: event.tenantId,
        level: budget.level,
        ...(budget.member !== undefined && { member: budget.member }),
        period: budget.period,
        threshold_percent: percent,
        spent_usd: formatUsd(nanoUsd(spent)),
        limit_usd: formatUsd(nanoUsd(limit)),
        on_exhausted: budget.isHard ? 'refuse' : 'warn',
        resets_at: new Date(budget.endsAtMs).toISOString(),
      },
    }));
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
      const { rows } = await database.forDirectory().read((db) =>
        sql<{
          readonly spent: string;
        }>`SELECT spent_nano_usd AS spent FROM control.budget_spend WHERE scope = ${scope} AND period = ${period}`.execute(db),
      );
      return Math.min(Number.MAX_SAFE_INTEGER, Number(rows[0]?.spent ?? 0));
    },
  };
}
