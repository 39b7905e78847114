/** The tenants, their keys and revocations, in the control schema. Every change appends to the change feed in its own transaction. */
import { type RawBuilder, sql } from 'kysely';
import { BulkheadError, quoteInput } from '../../errors/bulkhead-error.ts';
import { assert } from '../../primitives/assert.ts';
import type { Clock } from '../../primitives/clock.ts';
import { parseTenantId, type TenantId } from '../../primitives/ids.ts';
import type { OperatorScope } from '../../tenancy/operator-scope.ts';
import type { BudgetPolicy, Tenant } from '../../tenancy/tenant.ts';
import {
  type ApiKeyRecord,
  changesPerReadMax,
  type DirectoryChange,
  type NewTenant,
  type TenantChanges,
  type TenantRegistry,
} from '../../tenancy/tenant-directory.ts';
import type { Database, Sql } from './database.ts';
import { DatabaseStatementError } from './database-error.ts';

/** Writers of the feed queue here, so that a reader who has seen sequence n has seen everything before it. */
const feedLock = 7_070_002;

export class PostgresTenantDirectory implements TenantRegistry {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  async find(tenantId: TenantId): Promise<Tenant | undefined> {
    const { rows } = await this.#read((db) =>
      sql<TenantRow>`SELECT * FROM control.tenant WHERE id = ${tenantId} AND erased_at_ms IS NULL`.execute(db),
    );
    return rows[0] && tenantOf(rows[0]);
  }

  async findApiKey(keyId: string): Promise<ApiKeyRecord | undefined> {
    const { rows } = await this.#read((db) => sql<ApiKeyRow>`SELECT * FROM control.api_key WHERE id = ${keyId}`.execute(db));
    return rows[0] && apiKeyOf(rows[0]);
  }

  async subjectNotBeforeMs(tenantId: TenantId, subject: string): Promise<number | undefined> {
    const { rows } = await this.#read((db) =>
      sql<{ readonly latest: string | null }>`
        SELECT max(not_before_ms)::text AS latest FROM control.subject_epoch WHERE tenant_id = ${tenantId} AND subject IN ('', ${subject})`.execute(
        db,
      ),
    );
    const latest = rows[0]?.latest;
    return latest === null || latest === undefined ? undefined : Number(latest);
  }

  async changesSince(sequence: number): Promise<readonly DirectoryChange[]> {
    const { rows } = await this.#read((db) =>
      sql<ChangeRow>`SELECT * FROM control.directory_change WHERE sequence > ${sequence} ORDER BY sequence LIMIT ${changesPerReadMax}`.execute(
        db,
      ),
    );
    return rows.map((row) => ({
      sequence: Number(row.sequence),
      kind: row.kind,
      tenantId: tenantIdOf(row.tenant_id),
      ...(row.subject_id !== null && { subjectId: row.subject_id }),
    }));
  }

  async latestSequence(): Promise<number> {
    const { rows } = await this.#read((db) =>
      sql<{ readonly latest: string }>`SELECT coalesce(max(sequence), 0)::text AS latest FROM control.directory_change`.execute(db),
    );
    return Number(rows[0]?.latest ?? 0);
  }

  async create(operator: OperatorScope, tenant: NewTenant): Promise<Tenant> {
    const { id, name, tier, isolation, overrides } = tenant;
    const made = sql`
      INSERT INTO control.tenant (id, name, tier, isolation, overrides, created_at_ms)
      VALUES (${id}, ${name}, ${tier}, ${isolation}, ${JSON.stringify(overrides)}::jsonb, ${this.#clock.nowMs()}) RETURNING *`;
    const [row] = await this.#write(operator, (db) => this.#change<TenantRow>(db, 'tenant', made)).catch((error: unknown) => {
      if (error instanceof DatabaseStatementError && error.sqlState === '23505') {
        throw new BulkheadError('already_exists', `The tenant id ${quoteInput(id)} is taken; ids are never reused.`, { param: 'id' });
      }
      throw error;
    });
    assert(row !== undefined, 'an insert returns its row');
    return tenantOf(row);
  }

  async update(operator: OperatorScope, tenantId: TenantId, changes: TenantChanges): Promise<Tenant | undefined> {
    const [row] = await this.#write(operator, async (db) => {
      const overrides = changes.overrides === undefined ? null : JSON.stringify(changes.overrides);
      // What waits for a tenant that goes, goes with it.
      if (changes.state === 'deleting') await sql`DELETE FROM control.job WHERE tenant_id = ${tenantId}`.execute(db);
      const changed = sql`
        UPDATE control.tenant SET name = coalesce(${changes.name ?? null}, name), tier = coalesce(${changes.tier ?? null}, tier),
          state = CASE WHEN state = 'deleting' THEN state ELSE coalesce(${changes.state ?? null}, state) END, overrides = coalesce(${overrides}::jsonb, overrides)
        WHERE id = ${tenantId} AND erased_at_ms IS NULL RETURNING *`;
      return this.#change<TenantRow>(db, 'tenant', changed);
    });
    return row && tenantOf(row);
  }

  async list(operator: OperatorScope, page: { readonly limit: number; readonly after?: string | undefined }) {
    const { rows } = await this.#database.forOperator(operator).read((db) =>
      sql<TenantRow>`
        SELECT * FROM control.tenant WHERE erased_at_ms IS NULL AND id > ${page.after ?? ''} ORDER BY id LIMIT ${page.limit + 1}`.execute(
        db,
      ),
    );
    return { items: rows.slice(0, page.limit).map(tenantOf), hasMore: rows.length > page.limit };
  }

  async createApiKey(operator: OperatorScope, key: Omit<ApiKeyRecord, 'createdAtMs' | 'revokedAtMs'>): Promise<ApiKeyRecord> {
    const made = sql`
      INSERT INTO control.api_key (id, tenant_id, name, environment, digest, pepper_version, last_four, limits, budget, team, created_at_ms, expires_at_ms)
      VALUES (${key.id}, ${key.tenantId}, ${key.name}, ${key.environment}, ${Buffer.from(key.digest)}, ${key.pepperVersion}, ${key.lastFour},
        ${JSON.stringify(key.limits)}::jsonb, ${key.budget === undefined ? null : JSON.stringify(key.budget)}::jsonb, ${key.team ?? null},
        ${this.#clock.nowMs()}, ${key.expiresAtMs ?? null}) RETURNING *`;
    const [row] = await this.#write(operator, (db) => this.#change<ApiKeyRow>(db, 'api-key', made));
    assert(row !== undefined, 'an insert returns its row');
    return apiKeyOf(row);
  }

  async listApiKeys(operator: OperatorScope, tenantId: TenantId): Promise<readonly ApiKeyRecord[]> {
    const { rows } = await this.#database
      .forOperator(operator)
      .read((db) =>
        sql<ApiKeyRow>`SELECT * FROM control.api_key WHERE tenant_id = ${tenantId} ORDER BY created_at_ms, id LIMIT 1000`.execute(db),
      );
    return rows.map(apiKeyOf);
  }

  async revokeApiKey(operator: OperatorScope, tenantId: TenantId, keyId: string): Promise<boolean> {
    const revoked = sql`
      UPDATE control.api_key SET revoked_at_ms = ${this.#clock.nowMs()}
      WHERE tenant_id = ${tenantId} AND id = ${keyId} AND revoked_at_ms IS NULL RETURNING id, tenant_id`;
    const rows = await this.#write(operator, (db) => this.#change(db, 'api-key', revoked));
    return rows.length > 0;
  }

  async revokeSubject(operator: OperatorScope, tenantId: TenantId, subject?: string): Promise<void> {
    const revoked = sql`
      INSERT INTO control.subject_epoch (tenant_id, subject, not_before_ms) VALUES (${tenantId}, ${subject ?? ''}, ${this.#clock.nowMs()})
      ON CONFLICT (tenant_id, subject) DO UPDATE SET not_before_ms = excluded.not_before_ms RETURNING tenant_id, nullif(subject, '') AS subject`;
    await this.#write(operator, (db) => this.#change(db, 'subject', revoked));
  }

  #read<T>(work: (db: Sql) => Promise<T>): Promise<T> {
    return this.#database.forDirectory().read(work);
  }

  #write<T>(operator: OperatorScope, work: (db: Sql) => Promise<T>): Promise<T> {
    return this.#database.forOperator(operator).writeInTurn(feedLock, work);
  }

  /** The change, and a line of the feed for each row that it returns, in one statement. */
  async #change<Row>(db: Sql, kind: DirectoryChange['kind'], change: RawBuilder<unknown>): Promise<readonly Row[]> {
    const [tenantColumn, subjectColumn] = feedColumns[kind];
    const { rows } = await sql<Row>`
      WITH changed AS (${change}),
        told AS (INSERT INTO control.directory_change (kind, tenant_id, subject_id, changed_at_ms)
          SELECT ${kind}, ${sql.raw(tenantColumn)}, ${sql.raw(subjectColumn)}, ${this.#clock.nowMs()}::bigint FROM changed)
      SELECT * FROM changed`.execute(db);
    return rows;
  }
}

/** Where a changed row names its tenant, and what of the tenant's it is. */
const feedColumns = {
  tenant: ['id', 'NULL::text'],
  'api-key': ['tenant_id', 'id'],
  subject: ['tenant_id', 'subject'],
} as const satisfies Readonly<Record<DirectoryChange['kind'], readonly [string, string]>>;

interface TenantRow {
  readonly id: string;
  readonly name: string;
  readonly tier: string;
  readonly state: Tenant['state'];
  readonly isolation: Tenant['isolation'];
  readonly overrides: Tenant['overrides'];
  readonly created_at_ms: string;
}

interface ApiKeyRow {
  readonly id: string;
  readonly tenant_id: string;
  readonly name: string;
  readonly environment: ApiKeyRecord['environment'];
  readonly digest: Buffer;
  readonly pepper_version: number;
  readonly last_four: string;
  readonly limits: ApiKeyRecord['limits'];
  readonly budget: BudgetPolicy | null;
  readonly team: string | null;
  readonly created_at_ms: string;
  readonly expires_at_ms: string | null;
  readonly revoked_at_ms: string | null;
}

interface ChangeRow {
  readonly sequence: string;
  readonly kind: DirectoryChange['kind'];
  readonly tenant_id: string;
  readonly subject_id: string | null;
}

function tenantOf(row: TenantRow): Tenant {
  const { name, tier, state, isolation, overrides } = row;
  return { id: tenantIdOf(row.id), name, tier, state, isolation, overrides, createdAtMs: Number(row.created_at_ms) };
}

function apiKeyOf(row: ApiKeyRow): ApiKeyRecord {
  const { id, name, environment, digest, limits } = row;
  return {
    id,
    tenantId: tenantIdOf(row.tenant_id),
    name,
    environment,
    digest,
    pepperVersion: row.pepper_version,
    lastFour: row.last_four,
    limits,
    ...(row.budget !== null && { budget: row.budget }),
    ...(row.team !== null && { team: row.team }),
    createdAtMs: Number(row.created_at_ms),
    ...(row.expires_at_ms !== null && { expiresAtMs: Number(row.expires_at_ms) }),
    ...(row.revoked_at_ms !== null && { revokedAtMs: Number(row.revoked_at_ms) }),
  };
}

function tenantIdOf(text: string): TenantId {
  const id = parseTenantId(text);
  assert(id !== undefined, 'the database holds only well-formed tenant ids');
  return id;
}
