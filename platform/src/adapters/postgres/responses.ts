/** Stored responses of one tenant. */
import { sql } from 'kysely';
import type { ResponseCabinet, StoredResponse } from '../../tenancy/capabilities.ts';
import type { TenantDatabase } from './database.ts';

const chainMax = 200;

interface ResponseRow {
  readonly id: string;
  readonly created_at_ms: string;
  readonly previous_response_id: string | null;
  readonly response: string;
  readonly input_items: string;
}

export function openResponseCabinet(database: TenantDatabase): ResponseCabinet {
  return {
    async create(response) {
      await database.write((db) =>
        sql`
          INSERT INTO app.response (id, created_at_ms, previous_response_id, response, input_items)
          VALUES (${response.id}, ${response.createdAtMs}, ${response.previousResponseId ?? null}, ${escapeNul(response.response)}, ${escapeNul(response.inputItems)})`.execute(
          db,
        ),
      );
    },
    async get(responseId) {
      const { rows } = await database.read((db) => sql<ResponseRow>`SELECT * FROM app.response WHERE id = ${responseId}`.execute(db));
      return rows[0] && storedOf(rows[0]);
    },
    async chain(responseId) {
      const { rows } = await database.read((db) =>
        sql<ResponseRow & { readonly depth: number }>`
          WITH RECURSIVE chain AS (
            SELECT *, 1 AS depth FROM app.response WHERE id = ${responseId}
            UNION ALL
            SELECT earlier.*, chain.depth + 1 FROM chain JOIN app.response AS earlier ON earlier.id = chain.previous_response_id WHERE chain.depth < ${chainMax})
          SELECT * FROM chain ORDER BY depth DESC`.execute(db),
      );
      const [first] = rows;
      const isWhole = first !== undefined && (first.previous_response_id === null || rows.length === chainMax);
      return isWhole ? rows.map(storedOf) : undefined;
    },
    async delete(responseId) {
      const { rows } = await database.write((db) => sql`DELETE FROM app.response WHERE id = ${responseId} RETURNING id`.execute(db));
      return rows.length > 0;
    },
  };
}

/** JSON writes U+0000 as an escape, so the text that is stored never holds one. */
function escapeNul(value: unknown): string {
  return JSON.stringify(value);
}

function storedOf(row: ResponseRow): StoredResponse {
  return {
    id: row.id,
    createdAtMs: Number(row.created_at_ms),
    ...(row.previous_response_id !== null && { previousResponseId: row.previous_response_id }),
    response: JSON.parse(row.response) as StoredResponse['response'],
    inputItems: JSON.parse(row.input_items) as StoredResponse['inputItems'],
  };
}
