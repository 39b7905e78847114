import { type RawBuilder, sql } from 'kysely';
import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import type { Page, PageRequest } from '../../tenancy/capabilities.ts';
import type { Sql } from './database.ts';

export interface PagedList {
  /** The relation with its joins, for example `app.file f`. */
  readonly from: RawBuilder<unknown>;
  readonly columns: RawBuilder<unknown>;
  readonly where: RawBuilder<unknown>;
  /** What the list is sorted by; unique within it. */
  readonly key: readonly RawBuilder<unknown>[];
  /** The column that cursors name. */
  readonly id: RawBuilder<unknown>;
}

/** One page by position, not by offset: rows that come or go elsewhere never shift it. Throws `invalid_cursor` for an id not in the list. */
export async function readPage<Row>(db: Sql, list: PagedList, page: PageRequest): Promise<Page<Row>> {
  await assertCursor(db, list, { param: 'after', id: page.after });
  await assertCursor(db, list, { param: 'before', id: page.before });
  // With `before` alone the page ends at the cursor, so it is read backwards and turned around.
  const isBackward = page.before !== undefined && page.after === undefined;
  const isAscending = (page.order === 'asc') !== isBackward;
  const key = sql.join(list.key);
  const keyOf = (id: string) => sql`(SELECT ${key} FROM ${list.from} WHERE ${list.where} AND ${list.id} = ${id})`;
  const sorted = sql.join(list.key.map((column) => sql`${column} ${isAscending ? sql`ASC` : sql`DESC`}`));
  const following = page.order === 'asc' ? sql`>` : sql`<`;
  const preceding = page.order === 'asc' ? sql`<` : sql`>`;
  const conditions = [
    list.where,
    ...(page.after === undefined ? [] : [sql`(${key}) ${following} ${keyOf(page.after)}`]),
    ...(page.before === undefined ? [] : [sql`(${key}) ${preceding} ${keyOf(page.before)}`]),
  ];
  const { rows } = await sql<Row>`
    SELECT ${list.columns} FROM ${list.from} WHERE ${sql.join(conditions, sql` AND `)}
     ORDER BY ${sorted} LIMIT ${page.limit + 1}`.execute(db);
  const items = rows.slice(0, page.limit);
  return { items: isBackward ? items.toReversed() : items, hasMore: rows.length > page.limit };
}

async function assertCursor(db: Sql, list: PagedList, cursor: { readonly param: string; readonly id: string | undefined }): Promise<void> {
  const { id, param } = cursor;
  if (id === undefined) return;
  const { rows } = await sql`SELECT 1 FROM ${list.from} WHERE ${list.where} AND ${list.id} = ${id}`.execute(db);
  if (rows.length === 0) throw new BulkheadError('invalid_cursor', `${quoteInput(id)} is not in this list`, { param });
}
