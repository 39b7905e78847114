/** Defects of a database's catalogue, each with the rules of the lint that are there for it. Planted in a transaction for the lint, and in a running system for the audit. */
export interface Plant {
  readonly defect: string;
  readonly rules: readonly string[];
  readonly plant: string;
  /** Takes back what was planted and committed. */
  readonly undo: string;
}

const ledgerPolicy =
  'DROP POLICY ledger_append ON app.usage_event; CREATE POLICY ledger_append ON app.usage_event FOR INSERT TO bulkhead_ledger WITH CHECK (true)';
const expression = 'tenant_id = (SELECT app.current_tenant())';
export const plants: readonly Plant[] = [
  {
    defect: 'row-level security disabled',
    undo: 'ALTER TABLE app.response ENABLE ROW LEVEL SECURITY',
    rules: ['L02'],
    plant: 'ALTER TABLE app.response DISABLE ROW LEVEL SECURITY',
  },
  {
    defect: 'not forced',
    undo: 'ALTER TABLE app.response FORCE ROW LEVEL SECURITY',
    rules: ['L03'],
    plant: 'ALTER TABLE app.response NO FORCE ROW LEVEL SECURITY',
  },
  {
    defect: 'an extra policy that is always true',
    undo: 'DROP POLICY extra ON app.response',
    rules: ['L05', 'L06'],
    plant: 'CREATE POLICY extra ON app.response TO bulkhead_runtime USING (true)',
  },
  {
    defect: 'a policy that opens without a context',
    undo: `ALTER POLICY tenant_isolation ON app.response USING (${expression})`,
    rules: ['L05'],
    plant: `ALTER POLICY tenant_isolation ON app.response USING (${expression} OR current_setting('app.tenant_id', true) IS NULL)`,
  },
  {
    defect: 'a policy for SELECT alone',
    undo: `DROP POLICY tenant_isolation ON app.response; CREATE POLICY tenant_isolation ON app.response FOR ALL TO bulkhead_runtime, bulkhead_ledger USING (${expression}) WITH CHECK (${expression})`,
    rules: ['L04'],
    plant: `DROP POLICY tenant_isolation ON app.response; CREATE POLICY tenant_isolation ON app.response FOR SELECT TO bulkhead_runtime USING (${expression})`,
  },
  {
    defect: 'a view with its owner’s rights',
    undo: 'DROP VIEW app.every_response',
    rules: ['L07'],
    plant: 'CREATE VIEW app.every_response AS SELECT * FROM app.response; GRANT SELECT ON app.every_response TO bulkhead_runtime',
  },
  {
    defect: 'a materialised view',
    undo: 'DROP MATERIALIZED VIEW app.copies',
    rules: ['L08'],
    plant: 'CREATE MATERIALIZED VIEW app.copies AS SELECT * FROM app.response; GRANT SELECT ON app.copies TO bulkhead_runtime',
  },
  {
    defect: 'a SECURITY DEFINER function',
    undo: 'DROP FUNCTION app.peek()',
    rules: ['L09'],
    plant: 'CREATE FUNCTION app.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM app.response $$',
  },
  {
    defect: 'a role that bypasses row-level security',
    undo: 'ALTER ROLE bulkhead_runtime NOBYPASSRLS',
    rules: ['L10'],
    plant: 'ALTER ROLE bulkhead_runtime BYPASSRLS',
  },
  {
    defect: 'a superuser role',
    undo: 'ALTER ROLE bulkhead_runtime NOSUPERUSER',
    rules: ['L10'],
    plant: 'ALTER ROLE bulkhead_runtime SUPERUSER',
  },
  {
    defect: 'a membership in another role',
    undo: 'REVOKE planted_bypass FROM bulkhead_runtime; DROP ROLE planted_bypass',
    rules: ['L11'],
    plant: 'CREATE ROLE planted_bypass BYPASSRLS; GRANT planted_bypass TO bulkhead_runtime',
  },
  {
    defect: 'a new table without row-level security',
    undo: 'DROP TABLE app.fresh',
    rules: ['L02', 'L04', 'L18'],
    plant: 'CREATE TABLE app.fresh (tenant_id text NOT NULL, id text, PRIMARY KEY (tenant_id, id))',
  },
  {
    defect: 'a table without tenant_id',
    undo: 'DROP TABLE app.shared',
    rules: ['L01', 'L02'],
    plant: 'CREATE TABLE app.shared (id text PRIMARY KEY)',
  },
  {
    defect: 'a unique key over all tenants',
    undo: 'ALTER TABLE app.response DROP CONSTRAINT one_in_all',
    rules: ['L15'],
    plant: 'ALTER TABLE app.response ADD CONSTRAINT one_in_all UNIQUE (id)',
  },
  {
    defect: 'a foreign key without the tenant',
    undo: 'ALTER TABLE app.response DROP CONSTRAINT previous; ALTER TABLE app.response DROP CONSTRAINT unique_id',
    rules: ['L15', 'L16'],
    plant:
      'ALTER TABLE app.response ADD CONSTRAINT unique_id UNIQUE (id); ALTER TABLE app.response ADD CONSTRAINT previous FOREIGN KEY (previous_response_id) REFERENCES app.response (id)',
  },
  {
    defect: 'a grant to TRUNCATE',
    undo: 'REVOKE TRUNCATE ON app.response FROM bulkhead_runtime',
    rules: ['L13'],
    plant: 'GRANT TRUNCATE ON app.response TO bulkhead_runtime',
  },
  {
    defect: 'a grant to change tenant_id',
    undo: 'REVOKE UPDATE (tenant_id) ON app.response FROM bulkhead_runtime',
    rules: ['L17'],
    plant: 'GRANT UPDATE (tenant_id) ON app.response TO bulkhead_runtime',
  },
  {
    defect: 'the ledger writer’s policy given to requests',
    undo: ledgerPolicy,
    rules: ['L05', 'L06'],
    plant:
      'DROP POLICY ledger_append ON app.usage_event; CREATE POLICY ledger_append ON app.usage_event FOR INSERT TO bulkhead_ledger, bulkhead_runtime WITH CHECK (true)',
  },
  {
    defect: 'the ledger writer’s policy opened for reading',
    undo: ledgerPolicy,
    rules: ['L05', 'L06'],
    plant:
      'DROP POLICY ledger_append ON app.usage_event; CREATE POLICY ledger_append ON app.usage_event TO bulkhead_ledger USING (true) WITH CHECK (true)',
  },
  {
    defect: 'the ledger writer’s policy on another table',
    undo: 'DROP POLICY ledger_append ON app.response',
    rules: ['L05', 'L06'],
    plant: 'CREATE POLICY ledger_append ON app.response FOR INSERT TO bulkhead_ledger WITH CHECK (true)',
  },
  {
    defect: 'a grant to name the tenant of usage',
    undo: 'REVOKE INSERT (tenant_id) ON app.usage_event FROM bulkhead_runtime',
    rules: ['L17'],
    plant: 'GRANT INSERT (tenant_id) ON app.usage_event TO bulkhead_runtime',
  },
  {
    defect: 'a grant to move usage to another tenant',
    undo: 'REVOKE UPDATE (tenant_id) ON app.usage_event FROM bulkhead_ledger',
    rules: ['L17'],
    plant: 'GRANT UPDATE (tenant_id) ON app.usage_event TO bulkhead_ledger',
  },
  {
    defect: 'ownership by the role of requests',
    undo: "ALTER TABLE app.response OWNER TO bulkhead_owner; DROP POLICY tenant_isolation ON app.response; SELECT control.protect_tenant_table('app.response', ARRAY['SELECT', 'INSERT', 'DELETE'])",
    rules: ['L12'],
    plant: 'ALTER TABLE app.response OWNER TO bulkhead_runtime',
  },
  {
    defect: 'a check that is always true',
    undo: `ALTER POLICY tenant_isolation ON app.response WITH CHECK (${expression})`,
    rules: ['L05'],
    plant: 'ALTER POLICY tenant_isolation ON app.response WITH CHECK (true)',
  },
  {
    defect: 'a partition with a grant',
    undo: 'REVOKE SELECT ON app.chunk_s0 FROM bulkhead_runtime',
    rules: ['L14'],
    plant: 'GRANT SELECT ON app.chunk_s0 TO bulkhead_runtime',
  },
  {
    defect: 'the control schema opened to tenants',
    undo: 'REVOKE SELECT ON control.api_key FROM bulkhead_runtime',
    rules: ['L19'],
    plant: 'GRANT SELECT ON control.api_key TO bulkhead_runtime',
  },
  {
    defect: 'an approximate index over all tenants',
    undo: 'DROP INDEX app.planted',
    rules: ['L20'],
    plant: 'CREATE INDEX planted ON app.embedding_384_s0 USING hnsw (embedding public.vector_cosine_ops)',
  },
  {
    defect: 'a grant to everybody',
    undo: 'REVOKE SELECT ON app.response FROM PUBLIC',
    rules: ['L21'],
    plant: 'GRANT SELECT ON app.response TO PUBLIC',
  },
];
