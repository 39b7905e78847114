/**
 * A table that is written anew keeps rows that were deleted and that some transaction can still see. So before that, every transaction that may see them has to end,
 * as `CREATE INDEX CONCURRENTLY` waits for them: those that are open now, and then once more those that are open then, because one that began meanwhile may have
 * a snapshot from before the oldest of the first. Each holds a lock on its own virtual id, which any login may see (PostgreSQL, "Transaction Identification").
 */
import { setTimeout as wait } from 'node:timers/promises';
import type pg from 'pg';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { OwnerDatabase } from './owner-database.ts';

const waitMaxMs = 600_000;
const pollMs = 100;

/** Returns when no transaction of the database sees what was deleted before the call. `onWait` is called now and then. Throws `erasure_incomplete` after ten minutes, naming the process. */
export async function untilNobodySees(owner: OwnerDatabase, onWait: () => Promise<void>): Promise<void> {
  // The embedded engine has one session, and this is its turn.
  if (owner.engine === 'embedded') return;
  const untilMs = performance.now() + waitMaxMs;
  for (let round = 0; round < 2; round++) {
    let open = await owner.asLogin(openTransactions);
    while (open.length > 0) {
      if (performance.now() > untilMs) throw stillSeen(open);
      await wait(pollMs);
      await onWait();
      const now = new Set((await owner.asLogin(openTransactions)).map(({ id }) => id));
      open = open.filter(({ id }) => now.has(id));
    }
  }
}

interface OpenTransaction {
  readonly id: string;
  readonly pid: number | null;
}

/** Those of other sessions in this database, and prepared ones, which end when somebody ends them. */
async function openTransactions(client: pg.PoolClient): Promise<readonly OpenTransaction[]> {
  const { rows } = await client.query<OpenTransaction>(
    `SELECT l.virtualtransaction AS id, l.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid() AND a.datname = current_database()
     UNION ALL
     SELECT 'prepared ' || gid, NULL FROM pg_prepared_xacts WHERE database = current_database()`,
  );
  return rows;
}

function stillSeen(open: readonly OpenTransaction[]): BulkheadError {
  const [first] = open;
  const who = first?.pid === null ? 'a prepared transaction' : `the database process ${first?.pid}`;
  return new BulkheadError(
    'erasure_incomplete',
    `rows that were deleted are still seen by ${who}, whose transaction was open before: end it, and erase again`,
  );
}
