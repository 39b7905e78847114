-- Limits below the tenant: a key may belong to a team of its tenant and have a budget of its own.
SET LOCAL ROLE bulkhead_owner;

ALTER TABLE control.api_key ADD COLUMN team text, ADD COLUMN budget jsonb;

-- What each budget's period has cost, written in the transaction that writes the ledger. `scope` names a part of the tenant as the limits do; no content.
CREATE TABLE control.budget_spend (
  tenant_id      text NOT NULL,
  -- Begins with the tenant, so no two tenants have one.
  scope          text NOT NULL,
  period         text NOT NULL,
  spent_nano_usd numeric(38, 0) NOT NULL,
  ends_at_ms     bigint NOT NULL,
  PRIMARY KEY (scope, period)
);
CREATE INDEX budget_spend_by_tenant ON control.budget_spend (tenant_id);
CREATE INDEX budget_spend_by_end ON control.budget_spend (ends_at_ms);
GRANT SELECT ON control.budget_spend TO bulkhead_control;
GRANT SELECT, INSERT, UPDATE, DELETE ON control.budget_spend TO bulkhead_ledger;
