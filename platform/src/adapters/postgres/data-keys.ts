import { type Kysely, sql } from 'kysely';
import type { DataKeyShelf, StoredDataKeys, WrappedDataKey } from '../../encryption/data-key.ts';

interface DataKeyRow {
  readonly version: string;
  readonly master_key_id: string;
  readonly wrapped: Buffer;
  readonly messages: string;
  readonly has_plain_rows: boolean;
}

/** The tenant's own short transactions: a `TenantDatabase`. */
interface TenantTransactions {
  read<T>(work: (db: Kysely<Record<never, never>>) => Promise<T>): Promise<T>;
  write<T>(work: (db: Kysely<Record<never, never>>) => Promise<T>): Promise<T>;
}

/** One tenant's wrapped data keys, in the database where its rows are. */
export class PostgresDataKeys implements DataKeyShelf {
  readonly #database: TenantTransactions;

  constructor(database: TenantTransactions) {
    this.#database = database;
  }

  async list(): Promise<StoredDataKeys> {
    const { rows } = await this.#database.read((db) =>
      sql<DataKeyRow>`
        SELECT version, master_key_id, wrapped, messages, EXISTS (SELECT FROM app.plain_rows) AS has_plain_rows
          FROM app.data_key ORDER BY version`.execute(db),
    );
    const keys = rows.map((row) => ({
      version: Number(row.version),
      masterKeyId: row.master_key_id,
      wrapped: row.wrapped,
      messages: Number(row.messages),
    }));
    return { keys, hasPlainRows: rows[0]?.has_plain_rows ?? (await this.#hasPlainRows()) };
  }

  async add({ version, masterKeyId, wrapped, messages }: WrappedDataKey): Promise<boolean> {
    const { rows } = await this.#database.write((db) =>
      sql`
        INSERT INTO app.data_key (version, master_key_id, wrapped, messages) VALUES (${version}, ${masterKeyId}, ${wrapped}, ${messages})
        ON CONFLICT DO NOTHING RETURNING version`.execute(db),
    );
    return rows.length > 0;
  }

  async reserve(version: number, messages: number, messagesMax: number): Promise<boolean> {
    const { rows } = await this.#database.write((db) =>
      sql`
        UPDATE app.data_key SET messages = messages + ${messages}
         WHERE version = ${version} AND messages + ${messages} <= ${messagesMax} RETURNING version`.execute(db),
    );
    return rows.length > 0;
  }

  /** A tenant from before there was encryption has rows and no key yet. */
  async #hasPlainRows(): Promise<boolean> {
    const { rows } = await this.#database.read((db) => sql`SELECT 1 FROM app.plain_rows`.execute(db));
    return rows.length > 0;
  }
}
