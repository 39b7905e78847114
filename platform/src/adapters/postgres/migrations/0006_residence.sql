-- Tenants with a database of their own, and the move between the shared one and theirs.
SET LOCAL ROLE bulkhead_owner;

-- Where a tenant's rows are when they are not here. `closing`: readers may enter, writers wait for the end of a move. `gone`: nobody may; the rows
-- are in another database, or left there for nobody to read.
CREATE TABLE app.residence (
  tenant_id text NOT NULL DEFAULT app.current_tenant() PRIMARY KEY,
  state     text NOT NULL CHECK (state IN ('closing', 'gone')),
  -- The move that closed it: only that one may go on.
  token     text NOT NULL
);
SELECT control.protect_tenant_table('app.residence');

-- Begins a tenant's transaction. BH001: the rows are elsewhere. BH002: they are about to be. A writer holds the lock to its end, so a move that has
-- closed the residence and then takes the lock alone knows that nobody writes any more.
CREATE FUNCTION app.enter_tenant(tenant text, writes boolean) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  found text;
BEGIN
  PERFORM set_config('app.tenant_id', tenant, true);
  IF writes THEN PERFORM pg_advisory_xact_lock_shared(7070003, hashtext(tenant)); END IF;
  SELECT state INTO found FROM app.residence;
  IF found = 'gone' THEN RAISE EXCEPTION 'the tenant is not here' USING errcode = 'BH001'; END IF;
  IF found = 'closing' AND writes THEN RAISE EXCEPTION 'the tenant is moving' USING errcode = 'BH002'; END IF;
END $$;
GRANT EXECUTE ON FUNCTION app.enter_tenant(text, boolean) TO bulkhead_runtime;

-- Databases of single tenants.
CREATE TABLE control.silo (
  tenant_id     text PRIMARY KEY REFERENCES control.tenant,
  -- What the adapter opens: a directory or a database name. No secrets.
  place         text NOT NULL,
  -- `home`: the tenant's rows are there.
  state         text NOT NULL CHECK (state IN ('preparing', 'home', 'leaving')),
  created_at_ms bigint NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.silo TO bulkhead_control;

-- Moves under way, so that a process that starts finds what another left; and what the last one found.
CREATE TABLE control.tenant_move (
  tenant_id      text PRIMARY KEY REFERENCES control.tenant,
  destination    text NOT NULL CHECK (destination IN ('pooled', 'siloed')),
  step           text NOT NULL CHECK (step IN ('copying', 'switched', 'done', 'rolled_back')),
  token          text NOT NULL,
  -- Renewed by the process that moves it; afterwards another may take it back.
  lease_until_ms bigint NOT NULL,
  started_at_ms  bigint NOT NULL,
  finished_at_ms bigint,
  -- Tables and rows as compared before the switch.
  report         jsonb NOT NULL DEFAULT '[]'
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.tenant_move TO bulkhead_control;
-- Jobs that a tenant's own database held are forwarded to the queue here.
GRANT INSERT ON control.job TO bulkhead_control;
