/** VACUUM and ANALYZE for the embedded engine, which has no autovacuum: one table or partition in a statement, and nothing else runs meanwhile. */
import type { Database } from './database.ts';

interface WornTable {
  readonly name: string;
  readonly deadRows: number;
  readonly changedRows: number;
  readonly bytes: number;
}

export class PostgresTableUpkeep {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async worn(deadRowsMin: number): Promise<readonly WornTable[]> {
    const { rows } = await this.#database.withClient((client) =>
      client.query<{ readonly name: string; readonly dead: string; readonly changed: string; readonly bytes: string }>(
        `SELECT format('%I.%I', schemaname, relname) AS name, n_dead_tup AS dead, n_mod_since_analyze AS changed, pg_table_size(relid) AS bytes
           FROM pg_stat_user_tables
          WHERE schemaname IN ('app', 'control') AND greatest(n_dead_tup, n_mod_since_analyze) >= $1 + n_live_tup / 5
          ORDER BY n_dead_tup DESC`,
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

  async mend({ name }: { readonly name: string }): Promise<void> {
    // Truncating the end of a table would take a lock that searches wait for.
    await this.#database.withClient((client) => client.query(`VACUUM (ANALYZE, TRUNCATE false) ${name}`));
  }
}
