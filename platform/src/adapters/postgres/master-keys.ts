/** Which master keys wrapped something in this database, so that a process without one of them says so at its start and not at a tenant's first read. */
import { sql } from 'kysely';
import type { MasterKeyRegister } from '../../encryption/data-key.ts';
import type { MasterKey, MasterKeys } from '../../encryption/master-key.ts';
import { lengthPrefixed } from '../../encryption/sealed-record.ts';
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Database } from './database.ts';

interface MasterKeyRow {
  readonly id: string;
  readonly check_value: Buffer;
}

const checkText = Buffer.from('bulkhead master key check');

/** Throws `master_key_refused` when a key that wrapped something is missing or another; remembers the current one. */
export async function admitMasterKeys(database: Database, masters: MasterKeys, logger: Logger): Promise<void> {
  const rows = await registered(database);
  for (const row of rows) await check(row, masters, logger);
  if (rows.some((row) => row.id === masters.current.id)) return;
  const { id } = masters.current;
  const wrapped = await masters.current.wrap(checkText, contextOf(masters.current));
  await database
    .forDirectory()
    .write((db) => sql`INSERT INTO control.master_key (id, check_value) VALUES (${id}, ${wrapped}) ON CONFLICT DO NOTHING`.execute(db));
  // Another process may have brought another key at the same moment.
  for (const row of await registered(database)) await check(row, masters, logger);
}

/** For the operator's rotation. */
export class PostgresMasterKeyRegister implements MasterKeyRegister {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async ids(): Promise<readonly string[]> {
    return (await registered(this.#database)).map((row) => row.id);
  }

  async retire(masterKeyId: string): Promise<void> {
    await this.#database.forDirectory().write((db) => sql`DELETE FROM control.master_key WHERE id = ${masterKeyId}`.execute(db));
  }
}

async function registered(database: Database): Promise<readonly MasterKeyRow[]> {
  const { rows } = await database
    .forDirectory()
    .read((db) => sql<MasterKeyRow>`SELECT id, check_value FROM control.master_key ORDER BY since`.execute(db));
  return rows;
}

async function check(row: MasterKeyRow, masters: MasterKeys, logger: Logger): Promise<void> {
  const master = masters.byId.get(row.id);
  if (master === undefined) {
    throw new BulkheadError(
      'master_key_refused',
      `Stored content is encrypted under the master key ${row.id}, and the configuration names ${[...masters.byId.keys()].join(', ')}. ` +
        'Put that key back under atRest (keyFile, key or vault). To change keys, name the old one under atRest.previous.',
    );
  }
  let opened: Buffer | undefined;
  try {
    opened = await master.unwrap(row.check_value, contextOf(master));
  } catch (error) {
    if (!(error instanceof BulkheadError) || error.code !== 'key_unavailable') throw error;
    logger.warn(
      { component: 'at-rest', code: error.code, reason: row.id },
      'the keeper of a master key does not answer; stored content is unreadable until it does',
    );
    return;
  }
  if (opened?.equals(checkText)) return;
  throw new BulkheadError(
    'master_key_refused',
    `The master key ${row.id} is not the one that encrypted this database's content: its keeper has another key of that name. Restore the key.`,
  );
}

function contextOf({ id }: MasterKey): Buffer {
  return lengthPrefixed(['bulkhead-master-key-1', id]);
}
