/**
 * One pool of connections to PostgreSQL, embedded or a server, and the only three ways to use it:
 *
 *  - `TenantDatabase`: bound to one Principal; every transaction runs as `bulkhead_runtime` with the tenant set for that transaction alone;
 *  - `OperatorDatabase`: role `bulkhead_control`, which reaches no tenant content;
 *  - `LedgerDatabase`: role `bulkhead_ledger`, which can add to ledgers, and see one tenant's at a time, and nothing else.
 *
 * Role and tenant are transaction-local (`set_config(..., true)`): the embedded engine runs all connections in one session, and a pooled
 * connection outlives the request. A connection whose transaction did not end cleanly is destroyed, never handed on.
 */
import { Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler } from 'kysely';
import pg from 'pg';
import type { KeyRing } from '../../encryption/key-ring.ts';
import type { TenantCipher } from '../../encryption/tenant-cipher.ts';
import { assert } from '../../primitives/assert.ts';
import type { TenantId } from '../../primitives/ids.ts';
import type { OperatorScope } from '../../tenancy/operator-scope.ts';
import { OperatorScope as OperatorScopeClass } from '../../tenancy/operator-scope.ts';
import { Principal } from '../../tenancy/principal.ts';
import { PostgresDataKeys } from './data-keys.ts';
import { databaseError } from './database-error.ts';
import { TransactionDriver } from './transaction-driver.ts';
import { TransactionTurns } from './transaction-turns.ts';
import { sendWhole } from './whole-statements.ts';

/** No generated schema types: statements are written as `sql` templates, whose parameters are always bound. */
export type Sql = Kysely<Record<never, never>>;

export interface DatabaseOptions {
  /** Where the server is: a URL, or the embedded engine's socket directory. */
  readonly connection: { readonly url: string } | { readonly socketDir: string };
  readonly poolSize: number;
  readonly queryTimeoutMs: number;
  /** Awaited before a connection is taken, so that callers wait out a restart instead of failing. */
  readonly whenOpen?: () => Promise<void>;
  /** For content; without it no cipher is handed out. */
  readonly keyRing?: KeyRing;
}

/** `bulkhead_owner` only on a connection of the owner's login; the one that serves cannot take it. */
type Role = 'bulkhead_runtime' | 'bulkhead_control' | 'bulkhead_ledger' | 'bulkhead_owner';

/** Runs transactions: one database, or whichever of several a tenant lives in. */
export interface TransactionHost {
  transaction<T>(start: TransactionStart, work: (sql: Sql) => Promise<T>): Promise<T>;
  call<Row extends object>(call: EntryCall): Promise<readonly Row[]>;
}

/** Functions that become the tenant themselves for the length of their statement (migrations/0008_resident.sql), and so read in one round trip. */
export type EntryFunction = 'bulkhead_ranked_chunks' | 'bulkhead_question_words';
export type EntryArgument = string | number | readonly number[];

export interface EntryCall {
  readonly name: EntryFunction;
  readonly tenantId: TenantId;
  /** What follows the tenant. */
  readonly values: readonly EntryArgument[];
}

/** How long a background transaction lets requests go first: 20 a second and worker run whatever requests do; on a server, where they also run side by side, 40. */
const embeddedWaitMaxMs = 50;
const serverWaitMaxMs = 25;

export class Database implements TransactionHost {
  readonly #pool: pg.Pool;
  readonly #whenOpen: () => Promise<void>;
  readonly #keyRing: KeyRing | undefined;
  readonly #turns: TransactionTurns;
  readonly isEmbedded: boolean;

  constructor(options: DatabaseOptions) {
    const { connection } = options;
    this.isEmbedded = 'socketDir' in connection;
    this.#turns = new TransactionTurns({ waitMaxMs: this.isEmbedded ? embeddedWaitMaxMs : serverWaitMaxMs });
    const target =
      'url' in connection ? { connectionString: connection.url } : { host: connection.socketDir, user: 'postgres', database: 'postgres' };
    this.#pool = new pg.Pool({
      ...target,
      max: options.poolSize,
      query_timeout: options.queryTimeoutMs + 2_000,
      connectionTimeoutMillis: 10_000,
      idleTimeoutMillis: 30_000,
    });
    // An idle connection that breaks is dropped by the pool; without a listener it would end the process.
    this.#pool.on('error', () => {});
    // The same for one that breaks while it is taken: its statement rejects, which is how its user hears of it.
    this.#pool.on('connect', (client) => client.on('error', () => {}));
    if ('socketDir' in connection) this.#pool.on('connect', sendWhole);
    this.#whenOpen = options.whenOpen ?? (async () => {});
    this.#keyRing = options.keyRing;
  }

  forTenant(principal: Principal): TenantDatabase {
    assert(Principal.is(principal), 'tenant data needs a minted principal');
    return new TenantDatabase(this, principal, this.#keyRing);
  }

  forOperator(operator: OperatorScope): OperatorDatabase {
    assert(OperatorScopeClass.is(operator), 'control data needs an operator');
    return new OperatorDatabase(this);
  }

  /** For authentication and the ledger, which serve every tenant and have no scope yet. */
  forDirectory(): OperatorDatabase {
    return new OperatorDatabase(this);
  }

  forLedger(): LedgerDatabase {
    return new LedgerDatabase(this);
  }

  /** `SELECT 42`, as the login itself. The embedded engine can fail with empty answers and no error. */
  async probe(): Promise<boolean> {
    const answer = await this.withClient(async (client) => client.query<{ readonly answer: number }>('SELECT 42 AS answer'));
    return answer.rows[0]?.answer === 42;
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }

  /** Runs `work` in one transaction under `role`. One round trip opens it, one ends it. */
  async transaction<T>(start: TransactionStart, work: (sql: Sql) => Promise<T>): Promise<T> {
    const run = () => this.#transaction(start, work);
    return start.isBackground === true ? this.#turns.background(run) : this.#turns.interactive(run);
  }

  async #transaction<T>(start: TransactionStart, work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.withClient(async (client) => {
      const sql = sqlOver(client);
      try {
        await client.query({ text: startText(start), values: [] });
        const result = await work(sql);
        await client.query('COMMIT');
        return result;
      } catch (error) {
        // Where this fails too, the connection is lost, and that is what the caller hears.
        await client.query('ROLLBACK');
        throw error;
      }
    });
  }

  /** One statement, one round trip, a transaction of its own. */
  async call<Row extends object>(call: EntryCall): Promise<readonly Row[]> {
    const run = () => this.withClient(async (client) => (await client.query<Row>(callText(call))).rows);
    return this.#turns.interactive(run);
  }

  /** A connection as the login itself: migrations, the catalogue lint, probes. Never for a request. */
  async withClient<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    await this.#whenOpen();
    let client: pg.PoolClient;
    try {
      client = await this.#pool.connect();
    } catch (error) {
      throw databaseError(error);
    }
    let isClean = false;
    try {
      const result = await work(client);
      isClean = true;
      return result;
    } catch (error) {
      isClean = isStatementError(error);
      throw databaseError(error);
    } finally {
      client.release(!isClean);
    }
  }
}

export interface TransactionStart {
  readonly role: Role;
  readonly readOnly: boolean;
  readonly tenantId?: TenantId;
  /** Asks the database whether the tenant lives there; fails with SQLSTATE BH001 or BH002 before any work when it does not. */
  readonly asksResidence?: boolean;
  /** An advisory lock to hold until the end: its holders come one after the other. */
  readonly inTurnOf?: number;
  /** Nobody waits for its answer. */
  readonly isBackground?: boolean;
}

export class TenantDatabase {
  readonly #database: TransactionHost;
  readonly #tenantId: TenantId;
  readonly #isBackground: boolean;
  readonly #cipher: TenantCipher | undefined;

  constructor(database: TransactionHost, principal: Principal, keyRing?: KeyRing) {
    this.#database = database;
    this.#tenantId = principal.tenantId;
    this.#isBackground = principal.kind === 'job';
    this.#cipher = keyRing?.cipherFor(principal, new PostgresDataKeys(this));
  }

  /** Seals and opens this tenant's content. Awaiting it inside a transaction may begin another: have it ready before. */
  get cipher(): TenantCipher {
    assert(this.#cipher !== undefined, 'this database was opened with a key ring');
    return this.#cipher;
  }

  isOf(principal: Principal): boolean {
    return principal.tenantId === this.#tenantId;
  }

  /** One snapshot, read-only. */
  read<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.#database.transaction(this.#start(true), work);
  }

  write<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.#database.transaction(this.#start(false), work);
  }

  /** A read that is one statement: a fifth of the round trips of `read`. */
  call<Row extends object>(name: EntryFunction, values: readonly EntryArgument[]): Promise<readonly Row[]> {
    return this.#database.call<Row>({ name, tenantId: this.#tenantId, values });
  }

  #start(readOnly: boolean): TransactionStart {
    return { role: 'bulkhead_runtime', readOnly, tenantId: this.#tenantId, isBackground: this.#isBackground };
  }
}

export class OperatorDatabase {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  read<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.#database.transaction({ role: 'bulkhead_control', readOnly: true }, work);
  }

  write<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.#database.transaction({ role: 'bulkhead_control', readOnly: false }, work);
  }

  /** @param lock - of those writers who have to come one after the other. */
  writeInTurn<T>(lock: number, work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.#database.transaction({ role: 'bulkhead_control', readOnly: false, inTurnOf: lock }, work);
  }
}

export class LedgerDatabase {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** One transaction over several tenants. To add takes no context; to see what is there, the writer moves the context from one to the next. */
  append<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    return this.#database.transaction({ role: 'bulkhead_ledger', readOnly: false, isBackground: true }, work);
  }
}

/** Several statements in one message, which is the simple protocol and has no parameters: what is not a constant stands in it as digits. */
function startText({ role, readOnly, tenantId, asksResidence, inTurnOf }: TransactionStart): string {
  const mode = readOnly ? 'ISOLATION LEVEL REPEATABLE READ READ ONLY' : 'ISOLATION LEVEL READ COMMITTED';
  const steps = [`BEGIN ${mode}`, `SELECT set_config('role', '${role}', true)`];
  if (inTurnOf !== undefined) steps.push(`SELECT pg_advisory_xact_lock(${integer(inTurnOf)})`);
  if (tenantId !== undefined) {
    const entered = literal(tenantId);
    steps.push(
      asksResidence === true ? `SELECT app.enter_tenant(${entered}, ${!readOnly})` : `SELECT set_config('app.tenant_id', ${entered}, true)`,
    );
  }
  return steps.join('; ');
}

/**
 * One message of the simple protocol. Bound parameters take five, and outside a transaction nothing keeps the embedded engine, whose connections share one
 * session, from serving another connection between them. What stands in the text are digits and nothing else: numbers, and text as hexadecimal.
 */
function callText({ name, tenantId, values }: EntryCall): string {
  return `SELECT * FROM public.${name}(${[tenantId, ...values].map(literal).join(', ')})`;
}

function literal(value: EntryArgument): string {
  if (typeof value === 'string')
    return `pg_catalog.convert_from(pg_catalog.decode('${Buffer.from(value).toString('hex')}', 'hex'), 'UTF8')`;
  if (typeof value === 'number') return integer(value);
  return `'{${value.map(integer).join(',')}}'::pg_catalog.int4[]`;
}

function integer(value: number): string {
  assert(Number.isSafeInteger(value), 'a number of a call is whole');
  return String(value);
}

/** A statement that PostgreSQL itself refused leaves the connection in order; anything else (lost, timed out) does not. */
function isStatementError(error: unknown): boolean {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  const isConnectionClass = typeof code === 'string' && (code.startsWith('08') || code.startsWith('57'));
  return (
    !(error instanceof Error) ||
    error.name === 'BulkheadError' ||
    error.name === 'AssertionError' ||
    (error instanceof pg.DatabaseError && !isConnectionClass)
  );
}

/** A Kysely over the one connection of a running transaction; it cannot begin, commit or leave it. */
function sqlOver(client: pg.PoolClient): Sql {
  return new Kysely<Record<never, never>>({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new TransactionDriver(client),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  });
}
