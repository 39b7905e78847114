/** Every defect of the list is planted in a real database and must be found, alone, by the rule that is there for it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CatalogueFinding, lintCatalogue } from '../../src/audit/catalogue-lint.ts';
import { openTestDatabase, type TestDatabase } from '../support/embedded-database.ts';

let db: TestDatabase;
beforeAll(async () => {
  db = await openTestDatabase();
});
afterAll(async () => {
  await db[Symbol.asyncDispose]();
});

interface Plant {
  readonly defect: string;
  readonly rules: readonly string[];
  readonly plant: string;
}

const expression = 'tenant_id = (SELECT app.current_tenant())';
const plants: readonly Plant[] = [
  { defect: 'row-level security disabled', rules: ['L02'], plant: 'ALTER TABLE app.response DISABLE ROW LEVEL SECURITY' },
  { defect: 'not forced', rules: ['L03'], plant: 'ALTER TABLE app.response NO FORCE ROW LEVEL SECURITY' },
  {
    defect: 'an extra policy that is always true',
    rules: ['L05', 'L06'],
    plant: 'CREATE POLICY extra ON app.response TO bulkhead_runtime USING (true)',
  },
  {
    defect: 'a policy that opens without a context',
    rules: ['L05'],
    plant: `ALTER POLICY tenant_isolation ON app.response USING (${expression} OR current_setting('app.tenant_id', true) IS NULL)`,
  },
  {
    defect: 'a policy for SELECT alone',
    rules: ['L04'],
    plant: `DROP POLICY tenant_isolation ON app.response; CREATE POLICY tenant_isolation ON app.response FOR SELECT TO bulkhead_runtime USING (${expression})`,
  },
  {
    defect: 'a view with its owner’s rights',
    rules: ['L07'],
    plant: 'CREATE VIEW app.every_response AS SELECT * FROM app.response; GRANT SELECT ON app.every_response TO bulkhead_runtime',
  },
  {
    defect: 'a materialised view',
    rules: ['L08'],
    plant: 'CREATE MATERIALIZED VIEW app.copies AS SELECT * FROM app.response; GRANT SELECT ON app.copies TO bulkhead_runtime',
  },
  {
    defect: 'a SECURITY DEFINER function',
    rules: ['L09'],
    plant: 'CREATE FUNCTION app.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM app.response $$',
  },
  { defect: 'a role that bypasses row-level security', rules: ['L10'], plant: 'ALTER ROLE bulkhead_runtime BYPASSRLS' },
  { defect: 'a superuser role', rules: ['L10'], plant: 'ALTER ROLE bulkhead_runtime SUPERUSER' },
  {
    defect: 'a membership in another role',
    rules: ['L11'],
    plant: 'CREATE ROLE planted_bypass BYPASSRLS; GRANT planted_bypass TO bulkhead_runtime',
  },
  {
    defect: 'a new table without row-level security',
    rules: ['L02', 'L04', 'L18'],
    plant: 'CREATE TABLE app.fresh (tenant_id text NOT NULL, id text, PRIMARY KEY (tenant_id, id))',
  },
  { defect: 'a table without tenant_id', rules: ['L01', 'L02'], plant: 'CREATE TABLE app.shared (id text PRIMARY KEY)' },
  { defect: 'a unique key over all tenants', rules: ['L15'], plant: 'ALTER TABLE app.response ADD CONSTRAINT one_in_all UNIQUE (id)' },
  {
    defect: 'a foreign key without the tenant',
    rules: ['L15', 'L16'],
    plant:
      'ALTER TABLE app.response ADD CONSTRAINT unique_id UNIQUE (id); ALTER TABLE app.response ADD CONSTRAINT previous FOREIGN KEY (previous_response_id) REFERENCES app.response (id)',
  },
  { defect: 'a grant to TRUNCATE', rules: ['L13'], plant: 'GRANT TRUNCATE ON app.response TO bulkhead_runtime' },
  { defect: 'a grant to change tenant_id', rules: ['L17'], plant: 'GRANT UPDATE (tenant_id) ON app.response TO bulkhead_runtime' },
  {
    defect: 'the ledger writer’s policy given to requests',
    rules: ['L05', 'L06'],
    plant:
      'DROP POLICY ledger_append ON app.usage_event; CREATE POLICY ledger_append ON app.usage_event FOR INSERT TO bulkhead_ledger, bulkhead_runtime WITH CHECK (true)',
  },
  {
    defect: 'the ledger writer’s policy opened for reading',
    rules: ['L05', 'L06'],
    plant:
      'DROP POLICY ledger_append ON app.usage_event; CREATE POLICY ledger_append ON app.usage_event TO bulkhead_ledger USING (true) WITH CHECK (true)',
  },
  {
    defect: 'the ledger writer’s policy on another table',
    rules: ['L05', 'L06'],
    plant: 'CREATE POLICY ledger_append ON app.response FOR INSERT TO bulkhead_ledger WITH CHECK (true)',
  },
  {
    defect: 'a grant to name the tenant of usage',
    rules: ['L17'],
    plant: 'GRANT INSERT (tenant_id) ON app.usage_event TO bulkhead_runtime',
  },
  {
    defect: 'a grant to move usage to another tenant',
    rules: ['L17'],
    plant: 'GRANT UPDATE (tenant_id) ON app.usage_event TO bulkhead_ledger',
  },
  { defect: 'ownership by the role of requests', rules: ['L12'], plant: 'ALTER TABLE app.response OWNER TO bulkhead_runtime' },
  { defect: 'a check that is always true', rules: ['L05'], plant: 'ALTER POLICY tenant_isolation ON app.response WITH CHECK (true)' },
  { defect: 'a partition with a grant', rules: ['L14'], plant: 'GRANT SELECT ON app.chunk_s0 TO bulkhead_runtime' },
  { defect: 'the control schema opened to tenants', rules: ['L19'], plant: 'GRANT SELECT ON control.api_key TO bulkhead_runtime' },
  {
    defect: 'an approximate index over all tenants',
    rules: ['L20'],
    plant: 'CREATE INDEX planted ON app.embedding_384_s0 USING hnsw (embedding public.vector_cosine_ops)',
  },
  { defect: 'a grant to everybody', rules: ['L21'], plant: 'GRANT SELECT ON app.response TO PUBLIC' },
];

/** Lints inside the transaction that planted the defect, and takes it back. */
async function findingsWith(plant: string): Promise<readonly CatalogueFinding[]> {
  return db.database.withClient(async (client) => {
    await client.query('BEGIN');
    try {
      await client.query(plant);
      return await lintCatalogue(async (statement) => (await client.query(statement)).rows);
    } finally {
      await client.query('ROLLBACK');
    }
  });
}

describe('the catalogue lint', () => {
  it('finds nothing in the schema as it is', async () => {
    expect(await findingsWith('SELECT 1')).toEqual([]);
  });

  it.each(plants.map((plant) => [plant.defect, plant] as const))('finds %s', async (_, { plant, rules }) => {
    const found = new Set((await findingsWith(plant)).map((finding) => finding.rule));
    for (const rule of rules) expect(found).toContain(rule);
  });

  it('finds nothing again after every defect was taken back', async () => {
    expect(await findingsWith('SELECT 1')).toEqual([]);
  });
});
