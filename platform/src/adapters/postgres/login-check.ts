/**
 * Whether the login that the configuration names may serve requests. A privileged login would make row-level security a habit instead of a wall: every
 * transaction gives its privileges up, and one that forgot would see everything.
 */
import { BulkheadError } from '../../errors/bulkhead-error.ts';
import type { Database } from './database.ts';

const serverVersionMin = 160_000;
const pgvectorMin = [0, 8] as const;

interface LoginRow {
  readonly login: string;
  readonly version: number;
  readonly vector: string | null;
  readonly is_superuser: boolean;
  readonly bypasses: boolean;
  readonly creates: boolean;
  readonly privileged: readonly string[];
  readonly owned: readonly string[];
  readonly missing: readonly string[];
}

/** Throws `schema_mismatch` for a server that is too old, `unsafe_login` with the statements that mend it for a login that may do too much or too little. */
export async function refuseUnfitLogin(database: Database): Promise<void> {
  const { rows } = await database.withClient((client) => client.query<LoginRow>(loginQuery));
  const [row] = rows;
  if (row === undefined) throw new BulkheadError('unsafe_login', 'The database does not say who is logged in.');
  if (row.version < serverVersionMin) {
    throw new BulkheadError('schema_mismatch', `The server is PostgreSQL ${Math.floor(row.version / 10_000)}; 16 or newer is needed.`);
  }
  if (row.vector === null || isOlder(row.vector)) {
    const found = row.vector === null ? 'is not installed in this database' : `is ${row.vector}`;
    throw new BulkheadError(
      'schema_mismatch',
      `The extension vector ${found}; 0.8 or newer is needed. As a superuser: CREATE EXTENSION vector;`,
    );
  }
  const faults = faultsOf(row);
  if (faults.length > 0) throw new BulkheadError('unsafe_login', `The login ${row.login} must not serve requests:\n${faults.join('\n')}`);
}

/** Lets the login of the URL that serves take the roles of requests, and see which schema is there. As the owner; changes nothing for one that could do so already. */
export async function admitLogin(owner: Database, servingUrl: string): Promise<void> {
  const login = decodeURIComponent(new URL(servingUrl).username);
  await owner.withClient(async (client) => {
    const { rows } = await client.query('SELECT FROM pg_roles WHERE rolname = $1 AND rolname <> current_user', [login]);
    if (rows.length === 0) return;
    const name = identifier(login);
    await client.query(`GRANT bulkhead_runtime, bulkhead_control, bulkhead_ledger TO ${name} WITH INHERIT FALSE, SET TRUE`);
    await client.query(`GRANT USAGE ON SCHEMA public TO ${name}`);
    await client.query(`GRANT SELECT ON public.bulkhead_migration TO ${name}`);
  });
}

function faultsOf(row: LoginRow): readonly string[] {
  const login = identifier(row.login);
  if (row.is_superuser)
    return ["  it is a superuser, whom no policy binds. Use another login: CREATE ROLE bulkhead_login LOGIN PASSWORD '...' NOINHERIT;"];
  return [
    ...(row.bypasses ? [`  it bypasses row-level security. ALTER ROLE ${login} NOBYPASSRLS;`] : []),
    ...(row.creates ? [`  it may create roles or databases. ALTER ROLE ${login} NOCREATEROLE NOCREATEDB;`] : []),
    ...row.privileged.map((role) => `  it is a member of ${role}, which is privileged. REVOKE ${identifier(role)} FROM ${login};`),
    ...row.owned.map(
      (role) => `  it is, or may become, ${role}, who owns tables. REVOKE ${identifier(role)} FROM ${login}; or use another login.`,
    ),
    ...(row.missing.length > 0
      ? [`  it may not become ${row.missing.join(', ')}. GRANT ${row.missing.join(', ')} TO ${login} WITH INHERIT FALSE, SET TRUE;`]
      : []),
  ];
}

function isOlder(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major < pgvectorMin[0] || (major === pgvectorMin[0] && minor < pgvectorMin[1]);
}

function identifier(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

const loginQuery = `
  SELECT me.rolname AS login, current_setting('server_version_num')::int AS version, (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS vector,
    me.rolsuper AS is_superuser, me.rolbypassrls AS bypasses, me.rolcreaterole OR me.rolcreatedb AS creates,
    ARRAY(SELECT rolname::text FROM pg_roles other WHERE other.oid <> me.oid AND pg_has_role(me.oid, other.oid, 'MEMBER')
      AND (other.rolsuper OR other.rolbypassrls) ORDER BY 1) AS privileged,
    ARRAY(SELECT DISTINCT owner.rolname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles owner ON owner.oid = c.relowner
      WHERE n.nspname IN ('app', 'control') AND pg_has_role(me.oid, owner.oid, 'MEMBER') ORDER BY 1) AS owned,
    ARRAY(SELECT name FROM unnest(ARRAY['bulkhead_runtime', 'bulkhead_control', 'bulkhead_ledger']) AS name
      WHERE NOT EXISTS (SELECT FROM pg_roles role WHERE role.rolname = name AND pg_has_role(me.oid, role.oid, 'SET'))) AS missing
  FROM pg_roles me WHERE me.rolname = session_user`;
