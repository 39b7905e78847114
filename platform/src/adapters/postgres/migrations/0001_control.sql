-- Who the tenants are, and the walls of their rooms.
-- Roles own nothing but bulkhead_owner; none is superuser, BYPASSRLS, or member of another (audit/catalogue-lint.ts checks the live catalogue).
DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['bulkhead_owner', 'bulkhead_runtime', 'bulkhead_control', 'bulkhead_ledger'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT', wanted);
    END IF;
  END LOOP;
END $$;

CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA app AUTHORIZATION bulkhead_owner;
CREATE SCHEMA control AUTHORIZATION bulkhead_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO bulkhead_owner, bulkhead_runtime, bulkhead_control, bulkhead_ledger;
SET LOCAL ROLE bulkhead_owner;
GRANT USAGE ON SCHEMA app TO bulkhead_runtime, bulkhead_ledger;
GRANT USAGE ON SCHEMA control TO bulkhead_control, bulkhead_ledger;
ALTER DEFAULT PRIVILEGES FOR ROLE bulkhead_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- The tenant of this transaction. After one SET LOCAL an unset setting reads '', not NULL, so both must raise.
CREATE FUNCTION app.current_tenant() RETURNS text
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
  tenant text := current_setting('app.tenant_id', true);
BEGIN
  IF tenant IS NULL OR tenant = '' THEN
    RAISE EXCEPTION 'no tenant context' USING errcode = '42501';
  END IF;
  RETURN tenant;
END $$;
GRANT EXECUTE ON FUNCTION app.current_tenant() TO bulkhead_runtime, bulkhead_ledger;

-- Makes a table a tenant's own: row-level security enabled and forced, one policy, and grants in which tenant_id cannot be named.
-- Leaves of a partitioned table get the security and no grants, so the only way in is the parent.
CREATE FUNCTION control.protect_tenant_table(target regclass, privileges text[] DEFAULT ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  nameable text;
  leaf regclass;
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
  EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', target);
  EXECUTE format(
    'CREATE POLICY tenant_isolation ON %s FOR ALL TO bulkhead_runtime, bulkhead_ledger '
    'USING (tenant_id = (SELECT app.current_tenant())) WITH CHECK (tenant_id = (SELECT app.current_tenant()))', target);
  SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO nameable
    FROM pg_attribute WHERE attrelid = target AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attname <> 'tenant_id';
  IF 'SELECT' = ANY (privileges) THEN EXECUTE format('GRANT SELECT ON %s TO bulkhead_runtime', target); END IF;
  IF 'DELETE' = ANY (privileges) THEN EXECUTE format('GRANT DELETE ON %s TO bulkhead_runtime', target); END IF;
  IF 'INSERT' = ANY (privileges) THEN EXECUTE format('GRANT INSERT (%s) ON %s TO bulkhead_runtime', nameable, target); END IF;
  IF 'UPDATE' = ANY (privileges) THEN EXECUTE format('GRANT UPDATE (%s) ON %s TO bulkhead_runtime', nameable, target); END IF;
  FOR leaf IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = target LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', leaf);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', leaf);
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', leaf);
  END LOOP;
END $$;

CREATE TABLE control.tenant (
  id            text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{1,62}$'),
  name          text NOT NULL,
  tier          text NOT NULL,
  state         text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'deleting')),
  isolation     text NOT NULL DEFAULT 'pooled' CHECK (isolation IN ('pooled', 'siloed')),
  overrides     jsonb NOT NULL DEFAULT '{}',
  created_at_ms bigint NOT NULL,
  -- Set when a tenant is erased. The row stays, because an id is never reused.
  erased_at_ms  bigint
);

CREATE TABLE control.api_key (
  id             text PRIMARY KEY,
  tenant_id      text NOT NULL REFERENCES control.tenant,
  name           text NOT NULL,
  environment    text NOT NULL CHECK (environment IN ('live', 'test')),
  digest         bytea NOT NULL,
  pepper_version int NOT NULL,
  last_four      text NOT NULL,
  limits         jsonb NOT NULL DEFAULT '{}',
  created_at_ms  bigint NOT NULL,
  expires_at_ms  bigint,
  revoked_at_ms  bigint
);
CREATE INDEX api_key_by_tenant ON control.api_key (tenant_id, created_at_ms, id);

-- What replicas poll to see revocations. Writers hold an advisory lock, so sequence order is commit order.
CREATE TABLE control.directory_change (
  sequence      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind          text NOT NULL CHECK (kind IN ('tenant', 'api-key', 'subject')),
  tenant_id     text NOT NULL,
  subject_id    text,
  changed_at_ms bigint NOT NULL
);

-- Tokens of a subject ('' for every subject of the tenant) issued before this moment are refused.
CREATE TABLE control.subject_epoch (
  tenant_id     text NOT NULL REFERENCES control.tenant,
  subject       text NOT NULL,
  not_before_ms bigint NOT NULL,
  PRIMARY KEY (tenant_id, subject)
);

-- Sums for operators, written in the transaction that writes the ledger; no content, no users.
CREATE TABLE control.usage_daily (
  tenant_id           text NOT NULL,
  day                 date NOT NULL,
  model               text NOT NULL,
  key_id              text NOT NULL,
  endpoint            text NOT NULL,
  requests            bigint NOT NULL,
  input_tokens        bigint NOT NULL,
  cached_input_tokens bigint NOT NULL,
  output_tokens       bigint NOT NULL,
  cost_nano_usd       numeric(38, 0) NOT NULL,
  unpriced_requests   bigint NOT NULL,
  estimated_requests  bigint NOT NULL,
  PRIMARY KEY (tenant_id, day, model, key_id, endpoint)
);

GRANT SELECT, INSERT, UPDATE ON control.tenant, control.api_key, control.subject_epoch TO bulkhead_control;
GRANT SELECT, INSERT ON control.directory_change TO bulkhead_control;
GRANT SELECT ON control.usage_daily TO bulkhead_control;
GRANT SELECT, INSERT, UPDATE ON control.usage_daily TO bulkhead_ledger;
