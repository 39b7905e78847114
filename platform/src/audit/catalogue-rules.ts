/**
 * What must never be found in the catalogue of a live database. Each rule is one query over two views of it: `rel` (relations of the
 * tenant schema) and `app_role` (the roles a request can run as). Expected shapes come from PostgreSQL's own printing of expressions,
 * so a policy is compared whole, not searched for words.
 */
export interface CatalogueRule {
  readonly id: string;
  /** What a finding means, as a sentence for the person who must mend it. */
  readonly means: string;
  /** Selects `object` and `detail`. */
  readonly query: string;
}

/** Every rule's query runs behind this. */
export const catalogueViews = `
WITH rel AS (
  SELECT c.oid, c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relowner, c.relispartition, c.reloptions, c.relacl,
    tenant.attnum AS tenant_column, tenant.attnotnull AS tenant_not_null, tenant.atthasdef AS tenant_has_default
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute tenant ON tenant.attrelid = c.oid AND tenant.attname = 'tenant_id' AND NOT tenant.attisdropped
  WHERE n.nspname = 'app' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')),
app_role AS (SELECT * FROM pg_roles WHERE rolname IN ('bulkhead_runtime', 'bulkhead_control', 'bulkhead_ledger')),
granted AS (
  SELECT rel.oid, acl.privilege_type, coalesce(app_role.rolname, 'PUBLIC') AS grantee
  FROM rel CROSS JOIN LATERAL aclexplode(rel.relacl) acl LEFT JOIN app_role ON app_role.oid = acl.grantee
  WHERE acl.grantee = 0 OR app_role.oid IS NOT NULL),
-- Every policy but one: the ledger's writer, which serves no request, adds events of all tenants in one statement and sees none.
request_policy AS (
  SELECT p.* FROM rel JOIN pg_policy p ON p.polrelid = rel.oid
  WHERE NOT (rel.relname = 'usage_event' AND p.polname = 'ledger_append' AND p.polcmd = 'a' AND p.polqual IS NULL
    AND p.polroles = ARRAY[(SELECT oid FROM pg_roles WHERE rolname = 'bulkhead_ledger')]))
`;

const tenantTables = `relkind IN ('r', 'p') AND tenant_column IS NOT NULL`;
const policyExpression = `'(tenant_id = ( SELECT app.current_tenant() AS current_tenant))'`;

export const catalogueRules: readonly CatalogueRule[] = [
  {
    id: 'L01',
    means: 'A table of tenant data has no tenant_id.',
    query: `SELECT relname AS object, '' AS detail FROM rel WHERE relkind IN ('r', 'p') AND tenant_column IS NULL`,
  },
  {
    id: 'L02',
    means: 'Row-level security is not enabled.',
    query: `SELECT relname AS object, '' AS detail FROM rel WHERE relkind IN ('r', 'p') AND NOT relrowsecurity`,
  },
  {
    id: 'L03',
    means: 'Row-level security is not forced, so the owner sees every row.',
    query: `SELECT relname AS object, '' AS detail FROM rel WHERE relkind IN ('r', 'p') AND relrowsecurity AND NOT relforcerowsecurity`,
  },
  {
    id: 'L04',
    means: 'No policy covers every command with a check on writing.',
    query: `SELECT relname AS object, '' AS detail FROM rel WHERE ${tenantTables} AND NOT relispartition
      AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = rel.oid AND p.polcmd = '*' AND p.polqual IS NOT NULL AND p.polwithcheck IS NOT NULL)`,
  },
  {
    id: 'L05',
    means: 'A policy is anything other than: the row is the current tenant’s.',
    query: `SELECT relname AS object, p.polname || ': ' || coalesce(pg_get_expr(p.polqual, p.polrelid), '-') AS detail FROM rel JOIN request_policy p ON p.polrelid = rel.oid
      WHERE p.polpermissive AND (coalesce(pg_get_expr(p.polqual, p.polrelid), ${policyExpression}) <> ${policyExpression}
        OR coalesce(pg_get_expr(p.polwithcheck, p.polrelid), ${policyExpression}) <> ${policyExpression})`,
  },
  {
    id: 'L06',
    means: 'Several permissive policies are joined by OR.',
    query: `SELECT relname AS object, count(*)::text AS detail FROM rel JOIN request_policy p ON p.polrelid = rel.oid WHERE p.polpermissive GROUP BY relname HAVING count(*) > 1`,
  },
  {
    id: 'L07',
    means: 'A view that a request can read runs with its owner’s rights.',
    query: `SELECT DISTINCT relname AS object, grantee AS detail FROM rel JOIN granted USING (oid)
      WHERE relkind = 'v' AND NOT coalesce(array_to_string(reloptions, ',') ~* 'security_invoker=(true|on|1)', false)`,
  },
  {
    id: 'L08',
    means: 'A materialised view or foreign table, which knows no row-level security, can be read by a request.',
    query: `SELECT DISTINCT relname AS object, grantee AS detail FROM rel JOIN granted USING (oid) WHERE relkind IN ('m', 'f')`,
  },
  {
    id: 'L09',
    means: 'A function runs with its owner’s rights.',
    query: `SELECT p.oid::regprocedure::text AS object, '' AS detail FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname IN ('app', 'control') AND p.prosecdef`,
  },
  {
    id: 'L10',
    means: 'A role of requests is privileged.',
    query: `SELECT rolname AS object, format('superuser %s, bypassrls %s, createrole %s, createdb %s', rolsuper, rolbypassrls, rolcreaterole, rolcreatedb) AS detail
      FROM app_role WHERE rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication`,
  },
  {
    id: 'L11',
    means: 'A role of requests is a member of another role.',
    query: `SELECT r.rolname AS object, m.rolname AS detail FROM app_role r JOIN pg_auth_members a ON a.member = r.oid JOIN pg_roles m ON m.oid = a.roleid`,
  },
  {
    id: 'L12',
    means: 'A role of requests owns an object, which exempts it from policies.',
    query: `SELECT r.rolname AS object, c.relname AS detail FROM app_role r JOIN pg_class c ON c.relowner = r.oid
      UNION ALL SELECT r.rolname, n.nspname FROM app_role r JOIN pg_namespace n ON n.nspowner = r.oid`,
  },
  {
    id: 'L13',
    means: 'A grant reaches past row-level security.',
    query: `SELECT relname AS object, grantee || ': ' || privilege_type AS detail FROM rel JOIN granted USING (oid)
      WHERE privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN')`,
  },
  {
    id: 'L14',
    means: 'A partition can be reached beside its parent, whose policy then does not apply.',
    query: `SELECT relname AS object, grantee || ': ' || privilege_type AS detail FROM rel JOIN granted USING (oid) WHERE relispartition`,
  },
  {
    id: 'L15',
    means: 'A unique key spans tenants, so a conflict tells one about another.',
    query: `SELECT relname AS object, i.indexrelid::regclass::text AS detail FROM rel JOIN pg_index i ON i.indrelid = rel.oid
      WHERE tenant_column IS NOT NULL AND i.indisunique AND NOT tenant_column = ANY (i.indkey::int2[])`,
  },
  {
    id: 'L16',
    means: 'A foreign key can point at another tenant’s row.',
    query: `SELECT relname AS object, k.conname AS detail FROM rel JOIN pg_constraint k ON k.conrelid = rel.oid AND k.contype = 'f'
      WHERE tenant_column IS NOT NULL AND NOT tenant_column = ANY (k.conkey)
        AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.confrelid AND a.attname = 'tenant_id' AND NOT a.attisdropped)`,
  },
  {
    id: 'L17',
    means: 'A request can name a tenant_id when it writes.',
    query: `SELECT relname AS object, rolname || ': ' || privilege AS detail FROM rel CROSS JOIN app_role CROSS JOIN (VALUES ('INSERT'), ('UPDATE')) AS write (privilege)
      WHERE ${tenantTables} AND has_column_privilege(app_role.oid, rel.oid, 'tenant_id', privilege)
        AND NOT (relname = 'usage_event' AND rolname = 'bulkhead_ledger' AND privilege = 'INSERT')`,
  },
  {
    id: 'L18',
    means: 'tenant_id may be null, or does not default to the current tenant.',
    query: `SELECT relname AS object, '' AS detail FROM rel WHERE ${tenantTables} AND NOT relispartition AND NOT (tenant_not_null AND tenant_has_default)`,
  },
  {
    id: 'L19',
    means: 'The role of tenant requests reaches the control schema.',
    query: `SELECT c.relname AS object, acl.privilege_type AS detail FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'control'
      CROSS JOIN LATERAL aclexplode(c.relacl) acl LEFT JOIN pg_roles r ON r.oid = acl.grantee
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (acl.grantee = 0 OR r.rolname = 'bulkhead_runtime')`,
  },
  {
    id: 'L20',
    means: 'An approximate index spans tenants: it drops and discloses their rows.',
    query: `SELECT t.relname AS object, i.indexrelid::regclass::text AS detail FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
      JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
      WHERE n.nspname = 'app' AND a.amname IN ('hnsw', 'ivfflat', 'diskann', 'vchordrq', 'bm25')
        AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = i.indrelid AND k.conname = 'one_tenant' AND k.convalidated)`,
  },
  {
    id: 'L21',
    means: 'Everybody has a grant on tenant data.',
    query: `SELECT relname AS object, privilege_type AS detail FROM rel JOIN granted USING (oid) WHERE grantee = 'PUBLIC'`,
  },
];
