-- Large vector stores in a partition of their tenant's own, with an approximate index of their own.
SET LOCAL ROLE bulkhead_owner;

ALTER TABLE app.vector_store
  -- While the rows move to another shard: each is in one of the two, and new ones go there.
  ADD moving_to_shard int,
  -- The space whose approximate index was measured last, and what it found. Searches use the index only while index_ef_search is set and that space
  -- is the active one.
  ADD index_space_no int,
  ADD index_ef_search int,
  ADD index_recall real,
  ADD index_measured_at_ms bigint,
  ADD CONSTRAINT index_is_measured CHECK (index_ef_search IS NULL OR (index_space_no IS NOT NULL AND index_recall IS NOT NULL));

-- What an operator asked for; without a row size decides.
CREATE TABLE control.placement_wish (
  tenant_id text PRIMARY KEY REFERENCES control.tenant,
  placement text NOT NULL CHECK (placement IN ('dedicated', 'pooled'))
);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.placement_wish TO bulkhead_control;

-- Placement is the owner's work. It sees tenants' rows under their own policy, one tenant at a time; the roles of requests gain nothing.
DO $$
DECLARE
  target text;
BEGIN
  FOREACH target IN ARRAY ARRAY['residence', 'vector_store', 'chunk', 'posting', 'embedding_384', 'embedding_768', 'embedding_1024', 'embedding_1536', 'embedding_3072'] LOOP
    EXECUTE format('ALTER POLICY tenant_isolation ON app.%I TO bulkhead_runtime, bulkhead_ledger, bulkhead_owner', target);
  END LOOP;
END $$;

-- Never given out twice: a number belongs to one tenant for good.
CREATE SEQUENCE control.dedicated_shard_number AS int MINVALUE 1000;

-- The tenant's own shard, made when there is none. NULL: there are as many as there may be.
CREATE FUNCTION control.dedicated_shard(tenant text, shards_max int) RETURNS int
  LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  found int;
BEGIN
  SELECT shard_id INTO found FROM control.shard WHERE tenant_id = tenant FOR KEY SHARE;
  IF found IS NOT NULL THEN RETURN found; END IF;
  IF (SELECT count(*) FROM control.shard WHERE tenant_id IS NOT NULL) >= shards_max THEN RETURN NULL; END IF;
  found := nextval('control.dedicated_shard_number');
  PERFORM control.create_shard(found, tenant);
  RETURN found;
END $$;

-- Partitions of dedicated shards, and of which.
CREATE VIEW control.dedicated_leaf AS
  SELECT c.oid::regclass AS leaf, substring(c.relname FROM '_s([0-9]+)$')::int AS shard_id
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE c.relnamespace = 'app'::regnamespace AND c.relkind = 'r' AND substring(c.relname FROM '_s([0-9]+)$')::int >= 1000;

-- Drops the tenant's own shard with every byte in it. False: a store still has its place there, or there is none.
CREATE FUNCTION control.drop_dedicated_shard(tenant text) RETURNS boolean
  LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  dropped int;
  leaf regclass;
BEGIN
  SELECT shard_id INTO dropped FROM control.shard WHERE tenant_id = tenant FOR UPDATE;
  IF dropped IS NULL THEN RETURN false; END IF;
  PERFORM set_config('app.tenant_id', tenant, true);
  IF EXISTS (SELECT FROM app.vector_store WHERE shard_id = dropped OR moving_to_shard = dropped) THEN RETURN false; END IF;
  FOR leaf IN SELECT d.leaf FROM control.dedicated_leaf d WHERE d.shard_id = dropped LOOP
    EXECUTE format('DROP TABLE %s', leaf);
  END LOOP;
  DELETE FROM control.shard WHERE shard_id = dropped;
  RETURN true;
END $$;

-- The same for shards whose tenant was erased, entry and all.
CREATE FUNCTION control.drop_orphaned_shards() RETURNS int
  LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  orphan regclass;
  dropped int := 0;
BEGIN
  FOR orphan IN SELECT d.leaf FROM control.dedicated_leaf d WHERE NOT EXISTS (SELECT FROM control.shard s WHERE s.shard_id = d.shard_id) LOOP
    EXECUTE format('DROP TABLE %s', orphan);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;

-- Stores that are out of their place, or may be: the largest first. One tenant's rows are seen at a time, and counts leave, not contents.
CREATE FUNCTION control.large_stores(tenants text[], chunks_min bigint)
  RETURNS TABLE (tenant_id text, store_no int, chunk_count bigint)
  LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  tenant text;
BEGIN
  FOREACH tenant IN ARRAY tenants LOOP
    PERFORM set_config('app.tenant_id', tenant, true);
    RETURN QUERY SELECT s.tenant_id, s.store_no, s.chunk_count FROM app.vector_store s WHERE s.chunk_count >= chunks_min OR s.shard_id >= 1000 OR s.moving_to_shard IS NOT NULL;
  END LOOP;
END $$;
