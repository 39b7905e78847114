/** Kysely's driver over one connection that is already inside a transaction. */
import type { CompiledQuery, DatabaseConnection, Driver, QueryResult } from 'kysely';
import type pg from 'pg';

export class TransactionDriver implements Driver {
  readonly #connection: DatabaseConnection;

  constructor(client: pg.PoolClient) {
    this.#connection = new TransactionConnection(client);
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<DatabaseConnection> {
    return this.#connection;
  }

  async releaseConnection(): Promise<void> {}

  async destroy(): Promise<void> {}

  beginTransaction(): Promise<never> {
    return Promise.reject(new Error('a transaction is already running'));
  }

  commitTransaction(): Promise<never> {
    return Promise.reject(new Error('the transaction ends with its work'));
  }

  rollbackTransaction(): Promise<never> {
    return Promise.reject(new Error('the transaction ends with its work'));
  }
}

class TransactionConnection implements DatabaseConnection {
  readonly #client: pg.PoolClient;

  constructor(client: pg.PoolClient) {
    this.#client = client;
  }

  async executeQuery<Row>(query: CompiledQuery): Promise<QueryResult<Row>> {
    const result = await this.#client.query(query.sql, [...query.parameters]);
    return { rows: result.rows as Row[], ...(result.rowCount !== null && { numAffectedRows: BigInt(result.rowCount) }) };
  }

  streamQuery(): AsyncIterableIterator<never> {
    throw new Error('results are not streamed');
  }
}
