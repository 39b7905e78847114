import { sql } from 'kysely';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Database } from './database.ts';

export interface EmbeddingSetting {
  readonly model: string;
  readonly dimensions: number;
}

/** Throws `schema_mismatch` when the vector stores of this database were embedded by another model: searches would compare what cannot be compared. */
export async function refuseOtherEmbedding(database: Database, configured: EmbeddingSetting): Promise<void> {
  const { rows } = await database
    .forDirectory()
    .read((db) => sql<EmbeddingSetting>`SELECT model, dimensions FROM control.embedding_setting`.execute(db));
  const [stored] = rows;
  if (stored === undefined || (stored.model === configured.model && stored.dimensions === configured.dimensions)) return;
  throw new BulkheadError(
    'schema_mismatch',
    `The vector stores of this database were embedded by ${stored.model} with ${stored.dimensions} dimensions; the configuration says ` +
      `${configured.model} with ${configured.dimensions}. Set embedding.model and its dimensions back, or start with another database.`,
  );
}
