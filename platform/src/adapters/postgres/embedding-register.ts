import { sql } from 'kysely';
import type { EmbeddingSetting } from '../../rag/reembed.ts';
import type { Database, Sql } from './database.ts';

/** Every model that a store of this installation may be embedded by, so that nobody has to look into every tenant's stores to know that all is well. */
export class EmbeddingRegister {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async add(setting: EmbeddingSetting): Promise<void> {
    await this.#database.forDirectory().write((db) => addEmbeddingModel(db, setting));
  }

  async list(): Promise<readonly EmbeddingSetting[]> {
    const { rows } = await this.#database
      .forDirectory()
      .read((db) => sql<EmbeddingSetting>`SELECT model, dimensions FROM control.embedding_model ORDER BY model, dimensions`.execute(db));
    return rows;
  }

  async remove({ model, dimensions }: EmbeddingSetting): Promise<void> {
    await this.#database
      .forDirectory()
      .write((db) => sql`DELETE FROM control.embedding_model WHERE model = ${model} AND dimensions = ${dimensions}`.execute(db));
  }
}

/** In any transaction; a tenant's can add and see nothing. */
export async function addEmbeddingModel(db: Sql, { model, dimensions }: EmbeddingSetting): Promise<void> {
  await sql`INSERT INTO control.embedding_model (model, dimensions) VALUES (${model}, ${dimensions}) ON CONFLICT DO NOTHING`.execute(db);
}
