-- Databases that an operator gave for single tenants.
SET LOCAL ROLE bulkhead_owner;

-- In a database that was given for one tenant: whose it is, and by which registration in the shared database. Two tenants, or two installations, that
-- are given the same database by mistake are kept out of each other's by it. Empty everywhere else.
CREATE TABLE control.occupant (
  is_only   boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  tenant_id text NOT NULL,
  claim     text NOT NULL
);
GRANT SELECT, INSERT, DELETE ON control.occupant TO bulkhead_control;

-- URLs that came by the admin API, encrypted: they hold passwords. Those of the configuration are not kept.
CREATE TABLE control.silo_url (
  tenant_id text PRIMARY KEY REFERENCES control.tenant,
  sealed    bytea NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.silo_url TO bulkhead_control;
