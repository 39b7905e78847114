-- What operators are told of: written in the transaction of what happened, delivered afterwards, each once an endpoint.
SET LOCAL ROLE bulkhead_owner;

CREATE TABLE control.webhook_event (
  -- Made of what happened: the same thing is told once.
  id              text PRIMARY KEY,
  tenant_id       text NOT NULL,
  type            text NOT NULL,
  payload         jsonb NOT NULL,
  created_at_ms   bigint NOT NULL,
  -- While somebody delivers it, and between two attempts.
  next_at_ms      bigint NOT NULL,
  attempts        int NOT NULL DEFAULT 0,
  -- Digests of the endpoints that have it, or will never take it.
  delivered_to    text[] NOT NULL DEFAULT '{}',
  -- NULL: not everybody has it yet.
  closed_at_ms    bigint
);
CREATE INDEX webhook_event_by_tenant ON control.webhook_event (tenant_id);
CREATE INDEX webhook_event_open ON control.webhook_event (next_at_ms) WHERE closed_at_ms IS NULL;
GRANT SELECT, INSERT, DELETE ON control.webhook_event TO bulkhead_ledger;
GRANT SELECT, UPDATE, DELETE ON control.webhook_event TO bulkhead_control;
