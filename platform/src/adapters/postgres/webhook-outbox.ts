/** What operators are told of, from the transaction of what happened until every endpoint has it. */
import { createHash } from 'node:crypto';
import { sql } from 'kysely';
import type { WebhookEvent, WebhookOutbox } from '../../metering/webhooks.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Database, Sql } from './database.ts';

export interface NewWebhookEvent {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly type: string;
  readonly atMs: number;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** The same for the same thing: told again, it is there already. */
export function webhookEventId(parts: readonly (string | number)[]): string {
  return `msg_${createHash('sha256').update(JSON.stringify(parts)).digest('base64url').slice(0, 32)}`;
}

/** As the ledger's writer, in its transaction. */
export async function appendWebhookEvents(db: Sql, events: readonly NewWebhookEvent[]): Promise<void> {
  if (events.length === 0) return;
  const rows = JSON.stringify(
    events.map(({ id, tenantId, type, atMs, payload }) => ({ id, tenant_id: tenantId, type, payload, at_ms: atMs })),
  );
  await sql`
    INSERT INTO control.webhook_event (id, tenant_id, type, payload, created_at_ms, next_at_ms)
    SELECT id, tenant_id, type, payload, at_ms, 0 FROM json_to_recordset(${rows}::json) AS event (id text, tenant_id text, type text, payload jsonb, at_ms bigint)
    ON CONFLICT (id) DO NOTHING`.execute(db);
}

interface EventRow {
  readonly id: string;
  readonly type: string;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly created_at_ms: string;
  readonly attempts: number;
  readonly delivered_to: readonly string[];
}

/** Events that were told long ago are dropped; until then the same thing is not told again. */
const keptMs = 70 * 86_400_000;

export class PostgresWebhookOutbox implements WebhookOutbox {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async claim(
    operator: OperatorScope,
    { nowMs, leaseMs, limit }: { readonly nowMs: number; readonly leaseMs: number; readonly limit: number },
  ) {
    return this.#database.forOperator(operator).write(async (db): Promise<readonly WebhookEvent[]> => {
      const { rows } = await sql<EventRow>`
        UPDATE control.webhook_event SET next_at_ms = ${nowMs + leaseMs}, attempts = attempts + 1
        WHERE id IN (SELECT id FROM control.webhook_event WHERE closed_at_ms IS NULL AND next_at_ms <= ${nowMs} ORDER BY next_at_ms, id LIMIT ${limit} FOR UPDATE SKIP LOCKED)
        RETURNING id, type, payload, created_at_ms, attempts, delivered_to`.execute(db);
      await sql`DELETE FROM control.webhook_event WHERE created_at_ms < ${nowMs - keptMs}`.execute(db);
      return rows.map(({ id, type, payload, created_at_ms: createdAtMs, attempts, delivered_to: deliveredTo }) => {
        return { id, type, payload, createdAtMs: Number(createdAtMs), attempts, deliveredTo };
      });
    });
  }

  async settle(
    operator: OperatorScope,
    event: WebhookEvent,
    { deliveredTo, nextAtMs, closedAtMs }: Parameters<WebhookOutbox['settle']>[2],
  ) {
    await this.#database
      .forOperator(operator)
      .write((db) =>
        sql`UPDATE control.webhook_event SET delivered_to = ${deliveredTo}, next_at_ms = ${nextAtMs}, closed_at_ms = ${closedAtMs ?? null} WHERE id = ${event.id}`.execute(
          db,
        ),
      );
  }
}
