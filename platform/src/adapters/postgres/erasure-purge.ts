/**
 * Removes the bytes of rows that are gone: deleting leaves them in the page, VACUUM leaves them in its free space, planner statistics quote them, and
 * the write-ahead log repeats them. So tables and their indexes are written anew, analysed, the statistics written anew, and the log is cut off.
 */
import { setTimeout as wait } from 'node:timers/promises';
import type pg from 'pg';
import type { DeletionReceipt } from '../../tenancy/tenant-erasure.ts';
import { DatabaseStatementError } from './database-error.ts';
import { untilNobodySees } from './erasure-snapshots.ts';
import { dropStaleStatistics } from './erasure-statistics.ts';
import type { OwnerDatabase } from './owner-database.ts';

export interface Purge {
  readonly rewritten: DeletionReceipt['rewritten'];
  readonly writeAheadLog: DeletionReceipt['writeAheadLog'];
}

interface Relation {
  readonly name: string;
  readonly node: string;
  readonly bytes: number;
}

/** On a server the lock waits behind running statements and everybody else behind it: not longer than this at a time. */
const lockTimeoutMs = 2_000;
const lockAttemptsMax = 60;

/** `shards`: the partitions where rows of the tenant are or were. Each relation is locked while it is written anew (200 MB a second on two cores). */
export async function purge(owner: OwnerDatabase, shards: readonly number[], onRelation: () => Promise<void>): Promise<Purge> {
  await untilNobodySees(owner, onRelation);
  const rewritten: DeletionReceipt['rewritten'][number][] = [];
  for (const before of await relationsOf(owner, shards)) {
    await onRelation();
    await underLock(owner, `VACUUM (FULL, ANALYZE) ${before.name}`);
    const after = await relationNow(owner, before.name);
    if (after.node === before.node) throw new Error(`the database did not write ${before.name} anew`);
    rewritten.push({ relation: before.name, bytesBefore: before.bytes, bytesAfter: after.bytes });
  }
  await onRelation();
  await dropStaleStatistics(
    owner,
    rewritten.map(({ relation }) => relation),
    (statement) => underLock(owner, statement),
  );
  // Somebody may still see the statistics that were replaced and dropped since.
  await untilNobodySees(owner, onRelation);
  await purgeStatistics(owner);
  return { rewritten, writeAheadLog: await cutWriteAheadLog(owner) };
}

/** Writes everything out, so that files can be searched. */
export async function checkpoint(owner: OwnerDatabase): Promise<void> {
  await owner.asLogin((client) => client.query('CHECKPOINT'));
}

async function relationsOf(owner: OwnerDatabase, shards: readonly number[]): Promise<readonly Relation[]> {
  const { rows } = await owner.asOwner((client) =>
    client.query<Relation>(
      `${relationQuery} JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('app', 'control') AND c.relkind = 'r'
          AND (EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.oid AND t.attname = 'tenant_id' AND NOT t.attisdropped) OR c.oid = 'control.tenant'::regclass)
          AND (NOT c.relispartition OR substring(c.relname FROM '_s([0-9]+)$')::int = ANY ($1::int[]))
        ORDER BY pg_total_relation_size(c.oid)`,
      [shards],
    ),
  );
  return rows.map((row) => ({ ...row, bytes: Number(row.bytes) }));
}

async function relationNow(owner: OwnerDatabase, name: string): Promise<Relation> {
  const { rows } = await owner.asOwner((client) => client.query<Relation>(`${relationQuery} WHERE c.oid = $1::regclass`, [name]));
  const [row] = rows;
  if (row === undefined) throw new Error(`${name} is gone`);
  return { ...row, bytes: Number(row.bytes) };
}

/** With the schema, whatever the search path. */
const relationQuery = `SELECT format('%I.%I', c.relnamespace::regnamespace::text, c.relname) AS name, pg_relation_filenode(c.oid)::text AS node, pg_total_relation_size(c.oid) AS bytes FROM pg_class c`;

async function underLock(owner: OwnerDatabase, statement: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await owner.asOwner((client) => withLockTimeout(client, () => client.query(statement)));
      return;
    } catch (error) {
      const isBusy =
        (error instanceof DatabaseStatementError && error.sqlState === '55P03') ||
        (error as { readonly code?: unknown }).code === 'database_unavailable';
      if (!isBusy || attempt >= lockAttemptsMax) throw error;
      await wait(500);
    }
  }
}

async function withLockTimeout(client: pg.PoolClient, work: () => Promise<unknown>): Promise<void> {
  await client.query(`SET lock_timeout = ${lockTimeoutMs}`);
  try {
    await work();
  } finally {
    await client.query('RESET lock_timeout');
  }
}

/** Statistics that were replaced or dropped are dead rows of the catalogue. */
async function purgeStatistics(owner: OwnerDatabase): Promise<void> {
  const node = async (client: pg.PoolClient) =>
    (await client.query<{ readonly node: string }>("SELECT pg_relation_filenode('pg_catalog.pg_statistic')::text AS node")).rows[0]?.node;
  await owner.asLogin(async (client) => {
    const before = await node(client);
    await client.query('VACUUM FULL pg_catalog.pg_statistic');
    if ((await node(client)) === before) {
      throw new Error('the statistics could not be written anew: the login of database.ownerUrl must own the database');
    }
  });
}

/** Embedded, segments that are not needed any more are deleted instead of being kept for reuse with what is in them. A server keeps, ships and archives its own. */
async function cutWriteAheadLog(owner: OwnerDatabase): Promise<Purge['writeAheadLog']> {
  if (owner.engine === 'server') {
    await checkpoint(owner).catch((error: unknown) => {
      // A login that may not ask for one: the server makes its own within minutes.
      if (!(error instanceof DatabaseStatementError) || error.sqlState !== '42501') throw error;
    });
    return 'left to the server';
  }
  await owner.asLogin(async (client) => {
    await client.query('SET wal_recycle = off');
    try {
      for (let time = 0; time < 2; time++) {
        await client.query('SELECT pg_switch_wal()');
        await client.query('CHECKPOINT');
      }
    } finally {
      await client.query('RESET wal_recycle');
    }
  });
  return 'removed';
}
