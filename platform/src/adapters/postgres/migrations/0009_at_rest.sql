-- Content is sealed before it comes here (AES-256-GCM under a key of its tenant's own): see docs/guides/encryption-at-rest.md.
SET LOCAL ROLE bulkhead_owner;

-- The tenants' data keys, wrapped by a master key that is never here. The highest version seals, all of them open.
CREATE TABLE app.data_key (
  tenant_id     text NOT NULL DEFAULT app.current_tenant(),
  version       bigint NOT NULL CHECK (version BETWEEN 1 AND 4294967295),
  master_key_id text NOT NULL,
  wrapped       bytea NOT NULL,
  -- Values that may have been sealed under it, counted in blocks beforehand.
  messages      bigint NOT NULL DEFAULT 0,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Where the work that seals everything anew under this version stands.
  reseal_cursor jsonb,
  -- Since when nothing is known to be sealed under it.
  unused_since  timestamptz,
  PRIMARY KEY (tenant_id, version)
);
SELECT control.protect_tenant_table('app.data_key');

-- Tenants with values from before there was encryption. A row goes when the last of them is sealed; without one a plain value is not believed.
CREATE TABLE app.plain_rows (
  tenant_id text NOT NULL DEFAULT app.current_tenant() PRIMARY KEY,
  since     timestamptz NOT NULL DEFAULT clock_timestamp()
);
SELECT control.protect_tenant_table('app.plain_rows', ARRAY['SELECT', 'INSERT', 'DELETE']);

-- The owner is held by forced security too, and has to see every tenant's rows here.
ALTER TABLE app.plain_rows NO FORCE ROW LEVEL SECURITY;
DO $$
DECLARE
  sealed text;
BEGIN
  FOREACH sealed IN ARRAY ARRAY['chunk', 'file_part', 'response', 'idempotency'] LOOP
    EXECUTE format('ALTER TABLE app.%I NO FORCE ROW LEVEL SECURITY', sealed);
    EXECUTE format('INSERT INTO app.plain_rows (tenant_id) SELECT DISTINCT tenant_id FROM app.%I ON CONFLICT DO NOTHING', sealed);
    EXECUTE format('ALTER TABLE app.%I FORCE ROW LEVEL SECURITY', sealed);
  END LOOP;
END $$;
ALTER TABLE app.plain_rows FORCE ROW LEVEL SECURITY;

-- The first byte says what follows: 1 a sealed value, 0 a plain one from before. Nothing else can be stored, so code that forgets to seal fails.
ALTER TABLE app.chunk ALTER content TYPE bytea USING '\x00'::bytea || convert_to(content, 'UTF8'),
  ADD CONSTRAINT content_is_sealed CHECK (get_byte(content, 0) IN (0, 1));
ALTER TABLE app.file_part ALTER body TYPE bytea USING '\x00'::bytea || body,
  ADD CONSTRAINT body_is_sealed CHECK (get_byte(body, 0) IN (0, 1));
ALTER TABLE app.response ALTER response TYPE bytea USING '\x00'::bytea || convert_to(response, 'UTF8'),
  ALTER input_items TYPE bytea USING '\x00'::bytea || convert_to(input_items, 'UTF8'),
  ADD CONSTRAINT response_is_sealed CHECK (get_byte(response, 0) IN (0, 1)),
  ADD CONSTRAINT input_items_are_sealed CHECK (get_byte(input_items, 0) IN (0, 1));
ALTER TABLE app.idempotency ALTER body TYPE bytea USING '\x00'::bytea || convert_to(body, 'UTF8'),
  ADD CONSTRAINT body_is_sealed CHECK (get_byte(body, 0) IN (0, 1));
-- What is sealed does not compress.
ALTER TABLE app.chunk ALTER content SET STORAGE EXTERNAL;
ALTER TABLE app.response ALTER response SET STORAGE EXTERNAL, ALTER input_items SET STORAGE EXTERNAL;
ALTER TABLE app.idempotency ALTER body SET STORAGE EXTERNAL;
-- To be sealed anew under a later key.
GRANT UPDATE (content) ON app.chunk TO bulkhead_runtime;
GRANT UPDATE (body) ON app.file_part TO bulkhead_runtime;
GRANT UPDATE (response, input_items) ON app.response TO bulkhead_runtime;

-- Master keys that may have wrapped a data key, in the shared database for all tenants. The check is a known value wrapped by the key: a process whose
-- key of that name does not unwrap it, or that has no key of that name, does not start.
CREATE TABLE control.master_key (
  id          text PRIMARY KEY,
  check_value bytea NOT NULL,
  since       timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT, DELETE ON control.master_key TO bulkhead_control;
