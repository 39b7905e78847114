/** Every column of tenant data that can hold content is sealed, or plain for a reason that is written down. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { plainColumns, sealedColumns } from '../../src/adapters/postgres/sealed-columns.ts';
import { openTestDatabase, type TestDatabase } from '../support/embedded-database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await openTestDatabase();
});
afterAll(async () => {
  await db[Symbol.asyncDispose]();
});

/** Numbers, times and truth values say how much and when, not what. */
const bare = ['boolean', 'smallint', 'integer', 'bigint', 'real', 'numeric(38,0)', 'timestamp with time zone'];

async function contentColumns(): Promise<readonly string[]> {
  const { rows } = await db.database.withClient((client) =>
    client.query<{ readonly name: string }>(
      `SELECT c.relname || '.' || a.attname AS name
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
          AND a.attname <> 'tenant_id' AND format_type(a.atttypid, a.atttypmod) <> ALL ($1::text[])`,
      [bare],
    ),
  );
  return rows.map((row) => row.name).toSorted();
}

it('knows every column that can hold content, and none that is not there', async () => {
  const known = [...sealedColumns.map(({ table, column }) => `${table}.${column}`), ...Object.keys(plainColumns)];
  expect(known.toSorted()).toEqual(await contentColumns());
});

it('sees a column that somebody adds', async () => {
  await db.database.withClient((client) => client.query('ALTER TABLE app.response ADD COLUMN summary text'));
  expect(await contentColumns()).toContain('response.summary');
  await db.database.withClient((client) => client.query('ALTER TABLE app.response DROP COLUMN summary'));
});

it('names the rows of a sealed column by columns that never change and are there', async () => {
  for (const { table, column, rowKey } of sealedColumns) {
    const { rows } = await db.database.withClient((client) =>
      client.query<{ readonly attname: string; readonly type: string }>(
        `SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute WHERE attrelid = ('app.' || $1)::regclass AND attname = ANY ($2)`,
        [table, [column, ...rowKey]],
      ),
    );
    expect(rows).toHaveLength(rowKey.length + 1);
    expect(rows.find((row) => row.attname === column)?.type).toBe('bytea');
  }
});
