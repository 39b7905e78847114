/**
 * The owner of the schema, for erasing a tenant: its transactions act for one tenant under that tenant's policy, as everybody's do, with the owner's
 * right to remove; outside of transactions it rewrites tables. Embedded, that is the database itself; on a server, the login of `database.ownerUrl`.
 */
import type pg from 'pg';
import { assert } from '../../primitives/assert.ts';
import type { TenantId } from '../../primitives/ids.ts';
import { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { Database, Sql } from './database.ts';

export class OwnerDatabase {
  readonly #database: Database;
  readonly engine: 'embedded' | 'server';

  constructor(operator: OperatorScope, database: Database, engine: 'embedded' | 'server') {
    assert(OperatorScope.is(operator), 'the owner acts for an operator');
    this.#database = database;
    this.engine = engine;
  }

  read<T>(tenantId: TenantId, work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.#database.transaction({ role: 'bulkhead_owner', readOnly: true, tenantId }, work);
  }

  write<T>(tenantId: TenantId, work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.#database.transaction({ role: 'bulkhead_owner', readOnly: false, tenantId }, work);
  }

  /** Statements that no transaction may hold, with the owner's rights. */
  asOwner<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    // The embedded engine's connections share one session: a role set here would be everybody's. Its login may do anything.
    if (this.engine === 'embedded') return this.#database.withClient(work);
    return this.#database.withClient(async (client) => {
      await client.query('SET ROLE bulkhead_owner');
      try {
        return await work(client);
      } finally {
        await client.query('RESET ROLE');
      }
    });
  }

  /** The same as the login itself: checkpoints, catalogues, files. */
  asLogin<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    return this.#database.withClient(work);
  }
}
