/**
 * A table that is written anew keeps rows that were deleted and that somebody may still see: whoever's snapshot was taken while a transaction as old as the
 * deletion was running. PostgreSQL takes that transaction wherever it runs: one in another database of the same server counts, because each new
 * snapshot starts from the oldest number in use (`GetSnapshotData` and `ComputeXidHorizons` in procarray.c), that of the rewriting itself too.
 * So first every transaction with a number from before is waited for, everywhere, and what replication slots hold back; no snapshot taken after that sees what
 * was deleted. Then those of this database that are open, which may have one from before.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type pg from 'pg';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { OwnerDatabase } from './owner-database.ts';

const waitMaxMs = 600_000;
const pollMs = 100;

/** Who still sees something, for the operator; empty: nobody. */
type Seen = readonly { readonly id: string; readonly who: string }[];

/** Returns when nobody sees what was deleted before the call. `onWait` is called now and then. Throws `erasure_incomplete` after ten minutes, naming who does. */
export async function untilNobodySees(owner: OwnerDatabase, onWait: () => Promise<void>): Promise<void> {
  // The embedded engine has one session, and this is its turn.
  if (owner.engine === 'embedded') return;
  const untilMs = performance.now() + waitMaxMs;
  const until = async (look: (client: pg.PoolClient) => Promise<Seen>) => {
    for (;;) {
      const seen = await owner.asLogin(look);
      if (seen.length === 0) return;
      if (performance.now() > untilMs) throw stillSeen(seen);
      await wait(pollMs);
      await onWait();
    }
  };
  const deletedBefore = await owner.asLogin(nextTransaction);
  await until((client) => numberedBefore(client, deletedBefore));
  const open = new Set((await owner.asLogin(openTransactions)).map(({ id }) => id));
  await until(async (client) => (await openTransactions(client)).filter(({ id }) => open.has(id)));
}

/** A 64-bit number, as text: every transaction that is committed has a smaller one. */
async function nextTransaction(client: pg.PoolClient): Promise<string> {
  const { rows } = await client.query<{ readonly next: string }>('SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS next');
  return rows[0]?.next ?? '';
}

/**
 * Transactions of the whole server with a number before `next`, prepared ones among them, and what standbys and readers of the log may still ask for
 * (of a standby without a slot only a login with `pg_read_all_stats` hears).
 */
async function numberedBefore(client: pg.PoolClient, next: string): Promise<Seen> {
  const { rows } = await client.query<Seen[number]>(
    `WITH held AS (
       SELECT transactionid AS xid, COALESCE('the database process ' || pid, 'a prepared transaction') AS who
         FROM pg_locks WHERE locktype = 'transactionid' AND granted
       UNION ALL
       SELECT x, 'the replication slot ' || slot_name FROM pg_replication_slots, unnest(ARRAY[xmin, catalog_xmin]) AS x
       UNION ALL
       SELECT backend_xmin, 'the standby of process ' || pid FROM pg_stat_replication
     )
     SELECT who || ' ' || xid AS id, who FROM held WHERE age(xid) > age($1::xid8::xid)
     UNION ALL
     -- With a number and not yet its lock.
     SELECT 'just begun', 'a transaction that has just begun' WHERE pg_snapshot_xmin(pg_current_snapshot()) < $1::xid8`,
    [next],
  );
  return rows;
}

/** Those of other sessions in this database: each holds a lock on its own virtual id, which any login may see (PostgreSQL, "Transaction Identification"). */
async function openTransactions(client: pg.PoolClient): Promise<Seen> {
  const { rows } = await client.query<Seen[number]>(
    `SELECT l.virtualtransaction AS id, 'the database process ' || l.pid AS who FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid() AND a.datname = current_database()`,
  );
  return rows;
}

function stillSeen([first]: Seen): BulkheadError {
  return new BulkheadError(
    'erasure_incomplete',
    `rows that were deleted are still seen by ${first?.who}, which was there before: end it, and erase again`,
  );
}
