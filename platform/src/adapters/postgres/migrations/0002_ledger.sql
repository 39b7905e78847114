-- The append-only ledger, and what a tenant keeps of its conversations.
SET LOCAL ROLE bulkhead_owner;

CREATE TABLE app.usage_event (
  tenant_id           text NOT NULL DEFAULT app.current_tenant(),
  id                  text NOT NULL,
  occurred_at_ms      bigint NOT NULL,
  key_id              text NOT NULL,
  user_id             text NOT NULL,
  request_id          text NOT NULL,
  endpoint            text NOT NULL,
  model               text NOT NULL,
  upstream_model      text NOT NULL,
  provider            text NOT NULL,
  service_tier        text NOT NULL,
  outcome             text NOT NULL,
  estimated           boolean NOT NULL,
  input_tokens        bigint NOT NULL,
  cached_input_tokens bigint NOT NULL,
  output_tokens       bigint NOT NULL,
  -- Every count the upstream reported, by name.
  usage               jsonb NOT NULL,
  -- NULL: the model had no price. Unknown, not 0.
  cost_nano_usd       numeric(38, 0),
  cost_lines          jsonb NOT NULL,
  price_version       text NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX usage_event_by_time ON app.usage_event (tenant_id, occurred_at_ms);
SELECT control.protect_tenant_table('app.usage_event', ARRAY['SELECT']);
-- Append-only for everybody: the ledger's writer may add a row and see its own id, never change or remove one.
GRANT INSERT (id, occurred_at_ms, key_id, user_id, request_id, endpoint, model, upstream_model, provider, service_tier, outcome, estimated, input_tokens,
  cached_input_tokens, output_tokens, usage, cost_nano_usd, cost_lines, price_version), SELECT ON app.usage_event TO bulkhead_ledger;

CREATE TABLE app.response (
  tenant_id            text NOT NULL DEFAULT app.current_tenant(),
  id                   text NOT NULL,
  created_at_ms        bigint NOT NULL,
  previous_response_id text,
  -- JSON as text: a model may write U+0000, which jsonb cannot hold.
  response             text NOT NULL,
  input_items          text NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
SELECT control.protect_tenant_table('app.response', ARRAY['SELECT', 'INSERT', 'DELETE']);

CREATE TABLE app.idempotency (
  tenant_id     text NOT NULL DEFAULT app.current_tenant(),
  route         text NOT NULL,
  key           text NOT NULL,
  body_sha256   text NOT NULL,
  status        int,
  body          text,
  created_at_ms bigint NOT NULL,
  PRIMARY KEY (tenant_id, route, key)
);
CREATE INDEX idempotency_by_age ON app.idempotency (tenant_id, created_at_ms);
SELECT control.protect_tenant_table('app.idempotency');
