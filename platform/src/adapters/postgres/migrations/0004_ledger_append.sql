-- One statement takes a batch of many tenants' events. Tenant by tenant it cost 1.2 ms an event once every event had a tenant of its own (10,000
-- active tenants): the ledger took 800 events a second and starved the requests beside it.
-- The ledger's writer is no request: it has the events the meter made, each with the tenant of its verified credential. It may add to any tenant's
-- ledger and see none; reading an event still takes the tenant's context (policy tenant_isolation).
SET LOCAL ROLE bulkhead_owner;
CREATE POLICY ledger_append ON app.usage_event FOR INSERT TO bulkhead_ledger WITH CHECK (true);
GRANT INSERT (tenant_id) ON app.usage_event TO bulkhead_ledger;
