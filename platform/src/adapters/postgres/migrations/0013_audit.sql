-- The isolation audit: which tenants are its own, who runs one now, and what it found.
SET LOCAL ROLE bulkhead_owner;

-- Written before the tenant is made: a tenant of such a name that is not here is somebody's.
CREATE TABLE control.audit_tenant (
  tenant_id text PRIMARY KEY
);
GRANT SELECT, INSERT ON control.audit_tenant TO bulkhead_control;

-- One audit at a time, over all replicas. Renewed by the process that runs it.
CREATE TABLE control.audit_claim (
  only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  run_id         text NOT NULL,
  lease_until_ms bigint NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.audit_claim TO bulkhead_control;

-- Reports as they were signed: text, because a signature is over bytes. Hashes and canary ids, no content.
CREATE TABLE control.audit_report (
  number         bigint PRIMARY KEY,
  id             text NOT NULL UNIQUE,
  kind           text NOT NULL CHECK (kind IN ('full', 'smoke')),
  verdict        text NOT NULL CHECK (verdict IN ('PASS', 'LEAK', 'INCONCLUSIVE')),
  started_at_ms  bigint NOT NULL,
  head           text NOT NULL,
  report         text NOT NULL
);
GRANT SELECT, INSERT, DELETE ON control.audit_report TO bulkhead_control;
