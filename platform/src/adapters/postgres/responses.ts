/** Stored responses of one tenant, sealed: what was said is conversation content. */
import { sql } from 'kysely';
import type { TenantCipher } from '../../encryption/tenant-cipher.ts';
import type { ResponseCabinet, StoredResponse } from '../../tenancy/capabilities.ts';
import type { TenantDatabase } from './database.ts';
import { sealed } from './sealed-columns.ts';

const chainMax = 200;

interface ResponseRow {
  readonly id: string;
  readonly created_at_ms: string;
  readonly previous_response_id: string | null;
  readonly response: Buffer;
  readonly input_items: Buffer;
}

export function openResponseCabinet(database: TenantDatabase): ResponseCabinet {
  return {
    async create({ id, createdAtMs, previousResponseId, response, inputItems }) {
      const sealer = await database.cipher.sealer(2);
      const sealedResponse = () => sealer.seal(sealed.response, [id], jsonBytes(response));
      const sealedInput = () => sealer.seal(sealed.responseInput, [id], jsonBytes(inputItems));
      await database.write((db) =>
        sql`
          INSERT INTO app.response (id, created_at_ms, previous_response_id, response, input_items)
          VALUES (${id}, ${createdAtMs}, ${previousResponseId ?? null}, ${sealedResponse()}, ${sealedInput()})`.execute(db),
      );
    },
    async get(responseId) {
      const { rows } = await database.read((db) => sql<ResponseRow>`SELECT * FROM app.response WHERE id = ${responseId}`.execute(db));
      return rows[0] && (await storedOf(database.cipher, rows))[0];
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
      return isWhole ? storedOf(database.cipher, rows) : undefined;
    },
    async delete(responseId) {
      const { rows } = await database.write((db) => sql`DELETE FROM app.response WHERE id = ${responseId} RETURNING id`.execute(db));
      return rows.length > 0;
    },
  };
}

function jsonBytes(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value), 'utf8');
}

async function storedOf(cipher: TenantCipher, rows: readonly ResponseRow[]): Promise<readonly StoredResponse[]> {
  const valuesOf = (column: 'response' | 'input_items') => rows.map((row) => ({ row: [row.id], record: row[column] }));
  const responses = await cipher.openAll(sealed.response, valuesOf('response'));
  const inputs = await cipher.openAll(sealed.responseInput, valuesOf('input_items'));
  return rows.map((row, index) => ({
    id: row.id,
    createdAtMs: Number(row.created_at_ms),
    ...(row.previous_response_id !== null && { previousResponseId: row.previous_response_id }),
    response: parsed(responses[index]) as StoredResponse['response'],
    inputItems: parsed(inputs[index]) as StoredResponse['inputItems'],
  }));
}

function parsed(json: Buffer | undefined): unknown {
  return JSON.parse(json?.toString('utf8') ?? 'null');
}
