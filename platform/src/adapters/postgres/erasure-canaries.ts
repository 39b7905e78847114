/**
 * What the search looks for: the bytes that planted content became where it is stored. A token that is stored in plain is its own needle; of a sealed
 * value, a vector or anything else binary, a piece of what is stored. Read back from the tables, so a new column is looked at without being named.
 */
import { sql } from 'kysely';
import type { TenantId } from '../../primitives/ids.ts';
import type { PlantedCanaries } from '../../tenancy/tenant-erasure.ts';
import type { Sql } from './database.ts';

export interface Needle {
  /** `app.chunk.content`. */
  readonly surface: string;
  /** The bytes inverted, in base64: the record of the erasure is searched too, and must not be found. */
  readonly inverted: string;
}

/** Without these the search would prove nothing about where most of a tenant's words are. */
const wanted = [
  'app.file',
  'app.file_part',
  'app.vector_store',
  'app.vector_store_file',
  'app.chunk',
  'app.posting',
  'app.response',
  'app.idempotency',
];

/** A stemmer may change the end of a token in the word index; the beginning is enough to know it. */
const tokenBytes = 24;
const pieceBytes = 32;

interface ColumnRow {
  readonly table_name: string;
  readonly columns: readonly { readonly name: string; readonly type: string }[];
}

/** In a transaction of the tenant. Throws when a surface that must hold a canary holds none. */
export async function needlesOf(db: Sql, tenantId: TenantId, planted: PlantedCanaries): Promise<readonly Needle[]> {
  const { rows: tables } = await sql<ColumnRow>`${sql.raw(columnsQuery)}`.execute(db);
  const { rows: stores } = await sql<{ readonly store_no: number }>`
    SELECT store_no FROM app.vector_store WHERE tenant_id = ${tenantId} AND id = ANY (${planted.ids}::text[])`.execute(db);
  const made = { ids: planted.ids, storeNo: stores[0]?.store_no ?? -1, tenantId };
  const needles: Needle[] = [];
  for (const { table_name: table, columns } of tables) {
    const names = columns.map(({ name }) => name);
    // Wrapped keys are looked for themselves: each is like no other.
    const condition = table === 'app.data_key' ? sql`true` : plantedRows(names, made);
    if (condition === undefined) continue;
    for (const column of columns) {
      const value = reading(column);
      if (value === undefined) continue;
      const { rows } = await sql<{ readonly value: string | Buffer | null }>`
        SELECT ${value} AS value FROM ${sql.table(table)} WHERE tenant_id = ${tenantId} AND ${condition} LIMIT 20`.execute(db);
      const bytes = needleIn(
        rows.map((row) => row.value),
        column.type,
        planted.tokens,
      );
      if (bytes !== undefined) needles.push({ surface: `${table}.${column.name}`, inverted: inverted(bytes).toString('base64') });
    }
  }
  const seen = new Set(needles.map(({ surface }) => surface.slice(0, surface.lastIndexOf('.'))));
  const missing = wanted.filter((table) => !seen.has(table));
  if (![...seen].some((table) => table.startsWith('app.embedding_'))) missing.push('app.embedding');
  if (missing.length > 0) throw new Error(`no canary could be planted in ${missing.join(', ')}`);
  return needles;
}

export function bytesOf({ inverted: text }: Needle): Buffer {
  return inverted(Buffer.from(text, 'base64'));
}

const columnsQuery = `
  SELECT format('app.%s', c.relname) AS table_name,
    json_agg(json_build_object('name', a.attname, 'type', t.typname) ORDER BY a.attnum) AS columns
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
  WHERE c.relnamespace = 'app'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = c.oid AND o.attname = 'tenant_id' AND NOT o.attisdropped)
  GROUP BY c.oid, c.relname ORDER BY c.relname`;

/** The rows that planting made, by whatever the table calls what they belong to. */
function plantedRows(columns: readonly string[], made: { readonly ids: readonly string[]; readonly storeNo: number }) {
  if (columns.includes('store_no')) return sql`store_no = ${made.storeNo}::int`;
  for (const name of ['file_id', 'response_id', 'id', 'key'])
    if (columns.includes(name)) return sql`${sql.ref(name)} = ANY (${made.ids}::text[])`;
  return undefined;
}

function reading({ name, type }: { readonly name: string; readonly type: string }) {
  if (type === 'text' || type === 'jsonb') return sql`${sql.ref(name)}::text`;
  if (type === 'bytea') return sql.ref(name);
  if (type === 'vector') return sql`public.vector_send(${sql.ref(name)})`;
  return type === 'halfvec' ? sql`public.halfvec_send(${sql.ref(name)})` : undefined;
}

function needleIn(values: readonly (string | Buffer | null)[], type: string, tokens: readonly string[]): Buffer | undefined {
  for (const value of values) {
    if (value === null) continue;
    const stored = Buffer.from(value as string);
    const token = tokens.find((text) => stored.includes(text.slice(0, tokenBytes)));
    if (token !== undefined) return Buffer.from(token.slice(0, tokenBytes));
    if (Buffer.isBuffer(value) && stored.length >= 2 * pieceBytes) return type === 'bytea' ? middleOf(stored) : vectorPiece(stored, type);
  }
  return undefined;
}

function middleOf(bytes: Buffer): Buffer {
  const start = Math.floor((bytes.length - pieceBytes) / 2);
  return Buffer.from(bytes.subarray(start, start + pieceBytes));
}

/** On the wire: two counts of two bytes, then numbers with the high byte first; in a page the low byte comes first. */
function vectorPiece(wire: Buffer, type: string): Buffer {
  const piece = Buffer.from(wire.subarray(4, 4 + pieceBytes));
  return type === 'vector' ? piece.swap32() : piece.swap16();
}

function inverted(bytes: Buffer): Buffer {
  return Buffer.from(bytes.map((byte) => byte ^ 0xff));
}
