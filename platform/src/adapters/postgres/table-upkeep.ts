/**
 * VACUUM and ANALYZE for embedded engines, which have no autovacuum: the shared one and those of the tenants whose own is open. One table or partition in a
 * statement, and nothing else runs in its database meanwhile.
 */
import type { Database } from './database.ts';
import type { OpenSilos } from './open-silos.ts';

interface WornTable {
  readonly name: string;
  readonly place?: string;
  readonly deadRows: number;
  readonly changedRows: number;
  readonly bytes: number;
}

export class PostgresTableUpkeep {
  readonly #shared: Database;
  readonly #silos: Pick<OpenSilos, 'visit'> | undefined;

  constructor(shared: Database, silos?: Pick<OpenSilos, 'visit'>) {
    this.#shared = shared;
    this.#silos = silos;
  }

  async worn(deadRowsMin: number): Promise<readonly WornTable[]> {
    const tables = [...(await wornIn(this.#shared, deadRowsMin))];
    await this.#silos?.visit(async (database, place) => {
      // One on a server has autovacuum.
      if (database.isEmbedded) tables.push(...(await wornIn(database, deadRowsMin)).map((table) => ({ ...table, place })));
    });
    return tables.toSorted((left, right) => right.deadRows - left.deadRows);
  }

  /** One of a database that was closed meanwhile is found again when it is open. */
  async mend({ name, place }: Pick<WornTable, 'name' | 'place'>): Promise<void> {
    if (place === undefined) return vacuum(this.#shared, name);
    await this.#silos?.visit(async (database, visited) => {
      if (visited === place) await vacuum(database, name);
    });
  }
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
