-- Erasing a tenant: how far it is, and the receipt that stays.
SET LOCAL ROLE bulkhead_owner;

-- The owner sees and removes a tenant's rows under the tenant's own policy, one tenant at a time; the roles of requests gain nothing. The ledger stays
-- append-only for them.
DO $$
DECLARE
  target regclass;
BEGIN
  FOR target IN SELECT polrelid FROM pg_policy JOIN pg_class c ON c.oid = polrelid WHERE polname = 'tenant_isolation' AND c.relnamespace = 'app'::regnamespace LOOP
    EXECUTE format('ALTER POLICY tenant_isolation ON %s TO bulkhead_runtime, bulkhead_ledger, bulkhead_owner', target);
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION control.protect_tenant_table(target regclass, privileges text[] DEFAULT ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  nameable text;
  leaf regclass;
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
  EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', target);
  EXECUTE format(
    'CREATE POLICY tenant_isolation ON %s FOR ALL TO bulkhead_runtime, bulkhead_ledger, bulkhead_owner '
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

CREATE TABLE control.tenant_erasure (
  tenant_id      text PRIMARY KEY REFERENCES control.tenant,
  step           text NOT NULL CHECK (step IN ('refusing', 'planted', 'counted', 'deleted', 'purged', 'done')),
  token          text NOT NULL,
  -- Renewed by the process that erases; afterwards another may carry on.
  lease_until_ms bigint NOT NULL,
  started_at_ms  bigint NOT NULL,
  finished_at_ms bigint,
  -- Why the receipt was refused the last time.
  refusal        text,
  -- Counts, and what is looked for, its bytes inverted: the search must not find its own list.
  progress       jsonb NOT NULL DEFAULT '{}',
  receipt        jsonb,
  CHECK ((step = 'done') = (receipt IS NOT NULL))
);
GRANT SELECT, INSERT, UPDATE ON control.tenant_erasure TO bulkhead_control;

-- Imports under way. Until it is done the tenant is suspended and has neither keys nor a name anybody was told; one that fails leaves nothing, not
-- even the id, which was never in use.
CREATE TABLE control.tenant_import (
  tenant_id      text PRIMARY KEY REFERENCES control.tenant,
  lease_until_ms bigint NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.tenant_import TO bulkhead_control;
GRANT DELETE ON control.tenant TO bulkhead_control;
