/**
 * Seals a tenant's content anew under its newest data key, and what was never sealed, in short steps while the tenant works:
 *
 *   walk over every sealed column, a window of rows at a time
 *   -> wait until no process can still seal under an older version
 *   -> look whether anything is left; if so walk again
 *   -> wait until no reader can still have read what was there before
 *   -> destroy the older versions, alone with the tenant's rows
 *
 * Where it stands is in the newest key's row, written in the transaction that seals; a process that dies repeats at most one window.
 */
import { sql } from 'kysely';
import { sealGraceMs } from '../../encryption/key-ring.ts';
import { type RowKey, recordHead, type SealedColumn } from '../../encryption/sealed-record.ts';
import type { Sealer } from '../../encryption/tenant-cipher.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Principal } from '../../tenancy/principal.ts';
import type { Sql, TenantDatabase } from './database.ts';
import { sealedColumns } from './sealed-columns.ts';

/** Where a process may die: `sealing` and `destroying` are inside their transactions. */
export const resealSteps = ['opened', 'sealing', 'sealed', 'unused', 'destroying', 'destroyed'] as const;
export type ResealStep = (typeof resealSteps)[number];

export interface ResealerParts {
  readonly principal: Principal;
  readonly logger: Logger;
  readonly bounds?: Partial<ResealerBounds>;
  /** Told after each step. */
  readonly onStep?: (step: ResealStep) => void;
}

export interface ResealerBounds {
  /** How long after a version was made somebody may still seal under the one before. */
  readonly writersMs: number;
  /** How long a reader may take from reading a value to opening it. */
  readonly readersMs: number;
  /** Work of one step, and the rest after it, in which the tenant's other jobs have their turn. */
  readonly stepMs: number;
  readonly pauseMs: number;
}

/** The longest that `bounds.dataKeyCacheMs` may be, whatever another process is configured with. */
const keptMaxMs = 3_600_000;
const boundsDefault: ResealerBounds = { writersMs: keptMaxMs + sealGraceMs, readersMs: 120_000, stepMs: 200, pauseMs: 250 };
/** Rows looked at in one transaction: a part of a file is up to 1 MiB. */
const windowRows: Readonly<Record<string, number>> = { file_part: 4, chunk: 64 };
const windowRowsDefault = 16;

interface Cursor {
  readonly column: number;
  readonly after: RowKey | null;
  /** Rows of this walk that opened under nothing. They keep their key. */
  readonly unreadable: number;
}

interface Progress {
  readonly version: number;
  readonly cursor: Cursor;
  readonly hasOlder: boolean;
  readonly hasPlain: boolean;
  readonly ageMs: number;
  /** Since the older ones were found unused; undefined when they were not. */
  readonly unusedMs: number | undefined;
}

const start: Cursor = { column: 0, after: null, unreadable: 0 };

export class PostgresResealer {
  readonly #database: TenantDatabase;
  readonly #principal: Principal;
  readonly #logger: Logger;
  readonly #bounds: ResealerBounds;
  readonly #onStep: (step: ResealStep) => void;

  constructor(database: TenantDatabase, parts: ResealerParts) {
    this.#database = database;
    this.#principal = parts.principal;
    this.#logger = parts.logger;
    this.#bounds = { ...boundsDefault, ...parts.bounds };
    this.#onStep = parts.onStep ?? (() => {});
  }

  /** Milliseconds until the next step; undefined when there is nothing more to do. */
  async step(signal: AbortSignal): Promise<number | undefined> {
    const untilMs = performance.now() + this.#bounds.stepMs;
    for (;;) {
      signal.throwIfAborted();
      const progress = await this.#progress();
      if (progress === undefined || !(progress.hasOlder || progress.hasPlain)) return undefined;
      if (progress.cursor.column >= sealedColumns.length) return this.#finish(progress);
      await this.#sealWindow(progress);
      if (performance.now() >= untilMs) return this.#bounds.pauseMs;
    }
  }

  async #progress(): Promise<Progress | undefined> {
    const { rows } = await this.#database.read((db) =>
      sql<{ version: string; reseal_cursor: Cursor | null; age_ms: number; unused_ms: number | null; older: number; plain: boolean }>`
        SELECT version, reseal_cursor, ${millisecondsSince('created_at')} AS age_ms, ${millisecondsSince('unused_since')} AS unused_ms,
               (SELECT count(*)::int FROM app.data_key) - 1 AS older, EXISTS (SELECT FROM app.plain_rows) AS plain
          FROM app.data_key ORDER BY version DESC LIMIT 1`.execute(db),
    );
    const [row] = rows;
    return (
      row && {
        version: Number(row.version),
        cursor: row.reseal_cursor ?? start,
        hasOlder: row.older > 0,
        hasPlain: row.plain,
        ageMs: row.age_ms,
        unusedMs: row.unused_ms ?? undefined,
      }
    );
  }

  async #sealWindow({ version, cursor }: Progress): Promise<void> {
    const column = sealedColumns[cursor.column] as SealedColumn;
    const rows = await this.#database.read((db) => readWindow(db, column, { after: cursor.after, version }));
    const last = rows.at(-1);
    const stale = rows.filter((row): row is StaleRow => row.value !== null);
    const opened = await this.#openAll(column, stale);
    const readable = opened.filter((row) => row.plaintext !== undefined);
    const sealer = await this.#sealer(version, readable.length);
    const next: Cursor = {
      column: last === undefined ? cursor.column + 1 : cursor.column,
      after: last === undefined ? null : last.row,
      unreadable: cursor.unreadable + (opened.length - readable.length),
    };
    this.#onStep('opened');
    await this.#database.write(async (db) => {
      for (const { row, value, plaintext } of readable) {
        if (plaintext === undefined) continue;
        const record = sealer.seal(column, row, plaintext);
        // Whoever changed or removed it meanwhile was right.
        await sql`UPDATE ${tableOf(column)} SET ${nameOf(column.column)} = ${record} WHERE ${keyIs(column, row)} AND ${nameOf(column.column)} = ${value}`.execute(
          db,
        );
      }
      this.#onStep('sealing');
      await moveCursor(db, version, next);
    });
    this.#onStep('sealed');
  }

  /** This process may not have seen the newest version yet. */
  async #sealer(version: number, messages: number): Promise<Sealer> {
    const { cipher } = this.#database;
    const sealer = await cipher.sealer(messages);
    if (sealer.version >= version) return sealer;
    await cipher.renew();
    return cipher.sealer(messages);
  }

  /** One that does not open raises the alarm, keeps its key and holds up nothing. */
  async #openAll(column: SealedColumn, stale: readonly StaleRow[]): Promise<readonly OpenedRow[]> {
    const opened: OpenedRow[] = [];
    for (const { row, value } of stale) {
      try {
        opened.push({ row, value, plaintext: await this.#database.cipher.open(column, row, value) });
      } catch (error) {
        if (!(error instanceof BulkheadError) || error.code !== 'sealed_data_unreadable') throw error;
        opened.push({ row, value, plaintext: undefined });
      }
    }
    return opened;
  }

  async #finish({ version, cursor, ageMs, unusedMs }: Progress): Promise<number | undefined> {
    const { writersMs, readersMs } = this.#bounds;
    if (ageMs < writersMs) return writersMs - ageMs;
    const { tenantId } = this.#principal;
    if (cursor.unreadable > 0) {
      const fields = { component: 'at-rest', tenantId, count: cursor.unreadable };
      this.#logger.error(fields, 'some stored content does not open; the older data keys are kept');
      return undefined;
    }
    if (unusedMs !== undefined && unusedMs < readersMs) return readersMs - unusedMs;
    const isLeft = await this.#database.write(async (db) => {
      // Alone: whoever sealed before has committed, and whoever comes after has newer keys. Sealing takes the same lock shared (app.enter_tenant).
      await sql`SELECT pg_advisory_xact_lock(7070003, hashtext(app.current_tenant()))`.execute(db);
      if (await hasStale(db, version)) {
        await moveCursor(db, version, start);
        return true;
      }
      if (unusedMs === undefined) {
        await sql`UPDATE app.data_key SET unused_since = clock_timestamp() WHERE version = ${version}`.execute(db);
        return false;
      }
      await destroyOlder(db, version);
      this.#onStep('destroying');
      return false;
    });
    if (isLeft) return this.#bounds.pauseMs;
    this.#onStep(unusedMs === undefined ? 'unused' : 'destroyed');
    if (unusedMs === undefined) return readersMs;
    await this.#database.cipher.renew();
    this.#logger.info({ component: 'at-rest', tenantId, count: version }, 'a tenant has one data key again; the older ones are destroyed');
    return undefined;
  }
}

interface WindowRow {
  readonly row: RowKey;
  /** Null when it is sealed under the newest version. */
  readonly value: Buffer | null;
}

type StaleRow = WindowRow & { readonly value: Buffer };
type OpenedRow = StaleRow & { readonly plaintext: Buffer | undefined };

async function readWindow(
  db: Sql,
  column: SealedColumn,
  { after, version }: { readonly after: RowKey | null; readonly version: number },
): Promise<readonly WindowRow[]> {
  const key = sql.join(column.rowKey.map(nameOf));
  const isNext = after === null ? sql`true` : sql`(${key}) > (${sql.join(after.map((part) => sql`${part}`))})`;
  const { rows } = await sql<Record<string, string | number> & { readonly value: Buffer | null }>`
    SELECT ${key}, CASE WHEN ${isStale(column, version)} THEN ${nameOf(column.column)} END AS value
      FROM ${tableOf(column)} WHERE ${isNext} ORDER BY ${key} LIMIT ${windowRows[column.table] ?? windowRowsDefault}`.execute(db);
  return rows.map((found) => ({ row: column.rowKey.map((name) => found[name] as string | number), value: found.value }));
}

async function hasStale(db: Sql, version: number): Promise<boolean> {
  for (const column of sealedColumns) {
    const { rows } = await sql`SELECT 1 FROM ${tableOf(column)} WHERE ${isStale(column, version)} LIMIT 1`.execute(db);
    if (rows.length > 0) return true;
  }
  return false;
}

async function moveCursor(db: Sql, version: number, cursor: Cursor): Promise<void> {
  await sql`UPDATE app.data_key SET reseal_cursor = ${JSON.stringify(cursor)}::jsonb, unused_since = NULL WHERE version = ${version}`.execute(
    db,
  );
}

async function destroyOlder(db: Sql, version: number): Promise<void> {
  await sql`DELETE FROM app.data_key WHERE version < ${version}`.execute(db);
  await sql`DELETE FROM app.plain_rows`.execute(db);
}

function isStale({ column }: SealedColumn, version: number) {
  return sql`substring(${nameOf(column)} FROM 1 FOR 5) <> ${recordHead(version)}`;
}

function keyIs(column: SealedColumn, row: RowKey) {
  return sql.join(
    column.rowKey.map((name, index) => sql`${nameOf(name)} = ${row[index]}`),
    sql` AND `,
  );
}

function millisecondsSince(column: string) {
  return sql`(extract(epoch FROM clock_timestamp() - ${nameOf(column)}) * 1000)::float8`;
}

/** Names come from `sealed-columns.ts`. */
function nameOf(name: string) {
  return sql.ref(name);
}

function tableOf({ table }: SealedColumn) {
  return sql.table(`app.${table}`);
}
