/**
 * What the background processes of PostgreSQL do, for embedded engines, which have none: VACUUM and ANALYZE (there is no autovacuum), CHECKPOINT (there is no
 * checkpointer, and one session alone asks for none by itself). In the shared database and in those of the tenants whose own is open, one table or partition in a
 * statement, and nothing else runs in its database meanwhile.
 */
import type { Database } from './database.ts';
import type { OpenSilos } from './open-silos.ts';

interface LongLog {
  readonly place?: string;
  readonly bytes: number;
}

interface WornTable {
  readonly name: string;
  readonly place?: string;
  readonly deadRows: number;
  readonly changedRows: number;
  readonly bytes: number;
}

export class PostgresEmbeddedUpkeep {
  readonly #shared: Database;
  readonly #silos: Pick<OpenSilos, 'visit'> | undefined;

  constructor(shared: Database, silos?: Pick<OpenSilos, 'visit'>) {
    this.#shared = shared;
    this.#silos = silos;
  }

  async worn(deadRowsMin: number): Promise<readonly WornTable[]> {
    const tables = await this.#everywhere(async (database) => wornIn(database, deadRowsMin));
    return tables.toSorted((left, right) => right.deadRows - left.deadRows);
  }

  mend(table: Pick<WornTable, 'name' | 'place'>): Promise<void> {
    return this.#at(table.place, (database) => vacuum(database, table.name));
  }

  /** Write-ahead logs of at least so many bytes since their checkpoint. */
  async longLogs(bytesMin: number): Promise<readonly LongLog[]> {
    const logs = await this.#everywhere(async (database) => [{ bytes: await logBytesOf(database) }]);
    return logs.filter(({ bytes }) => bytes >= bytesMin);
  }

  checkpoint({ place }: Pick<LongLog, 'place'>): Promise<void> {
    return this.#at(place, async (database) => {
      await database.withClient((client) => client.query('CHECKPOINT'));
    });
  }

  async #everywhere<Found extends object>(
    find: (database: Database) => Promise<readonly Found[]>,
  ): Promise<(Found & { place?: string })[]> {
    const found: (Found & { place?: string })[] = [...(await find(this.#shared))];
    await this.#silos?.visit(async (database, place) => {
      // One on a server looks after itself.
      if (database.isEmbedded) found.push(...(await find(database)).map((each) => ({ ...each, place })));
    });
    return found;
  }

  /** One of a database that was closed meanwhile is found again when it is open. */
  async #at(place: string | undefined, work: (database: Database) => Promise<void>): Promise<void> {
    if (place === undefined) return work(this.#shared);
    await this.#silos?.visit(async (database, visited) => {
      if (visited === place) await work(database);
    });
  }
}

async function logBytesOf(database: Database): Promise<number> {
  const { rows } = await database.withClient((client) =>
    client.query<{ readonly bytes: string }>(
      'SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn) AS bytes FROM pg_control_checkpoint()',
    ),
  );
  return Number(rows[0]?.bytes ?? 0);
}

async function wornIn(database: Database, deadRowsMin: number): Promise<readonly WornTable[]> {
  const { rows } = await database.withClient((client) =>
    client.query<{ readonly name: string; readonly dead: string; readonly changed: string; readonly bytes: string }>(
      `SELECT format('%I.%I', schemaname, relname) AS name, n_dead_tup AS dead, n_mod_since_analyze AS changed, pg_table_size(relid) AS bytes
         FROM pg_stat_user_tables
        WHERE schemaname IN ('app', 'control') AND greatest(n_dead_tup, n_mod_since_analyze) >= $1 + n_live_tup / 5`,
      [deadRowsMin],
    ),
  );
  return rows.map(({ name, dead, changed, bytes }) => ({
    name,
    deadRows: Number(dead),
    changedRows: Number(changed),
    bytes: Number(bytes),
  }));
}

async function vacuum(database: Database, name: string): Promise<void> {
  // Truncating the end of a table would take a lock that searches wait for.
  await database.withClient((client) => client.query(`VACUUM (ANALYZE, TRUNCATE false) ${name}`));
}
