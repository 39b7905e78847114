-- A space is all vectors of one vector store by one model. While a store is embedded anew it has two, and searches read the active one.
SET LOCAL ROLE bulkhead_owner;

ALTER TABLE app.vector_store
  -- The space that searches read; of embedding_model and embedding_dimensions.
  ADD space_no int NOT NULL DEFAULT 1,
  ADD next_space_no int NOT NULL DEFAULT 2,
  -- The space that is being filled, and what it is filled by.
  ADD building_space_no int,
  ADD building_model text,
  ADD building_dimensions int CHECK (building_dimensions IN (384, 768, 1024, 1536, 3072)),
  -- Why it does not go on, as the code of an error; tried again all the same.
  ADD building_fault text,
  ADD CONSTRAINT building_is_whole
    CHECK ((building_space_no IS NULL) = (building_model IS NULL) AND (building_space_no IS NULL) = (building_dimensions IS NULL)),
  ADD CONSTRAINT spaces_are_counted CHECK (space_no < next_space_no AND building_space_no < next_space_no AND building_space_no <> space_no);
GRANT INSERT (space_no, next_space_no, building_space_no, building_model, building_dimensions, building_fault),
      UPDATE (space_no, next_space_no, building_space_no, building_model, building_dimensions, building_fault)
   ON app.vector_store TO bulkhead_runtime;

-- Every model that stores here may be embedded by: written at each start for the configured one, and with each store; removed when no store is left
-- with it. Says nothing about any tenant.
CREATE TABLE control.embedding_model (
  model      text NOT NULL,
  dimensions int NOT NULL,
  PRIMARY KEY (model, dimensions)
);
GRANT INSERT (model, dimensions) ON control.embedding_model TO bulkhead_runtime;
GRANT SELECT, INSERT, DELETE ON control.embedding_model TO bulkhead_control;
INSERT INTO control.embedding_model SELECT model, dimensions FROM control.embedding_setting;
DROP TABLE control.embedding_setting;

-- The space comes before the file, so that the vectors a search reads are neighbours. LIKE ... INCLUDING ALL gives later shards the same.
DO $$
DECLARE
  parent text;
BEGIN
  FOREACH parent IN ARRAY ARRAY['embedding_384', 'embedding_768', 'embedding_1024', 'embedding_1536', 'embedding_3072'] LOOP
    EXECUTE format('ALTER TABLE app.%I ADD space_no int NOT NULL DEFAULT 1', parent);
    EXECUTE format('ALTER TABLE app.%I DROP CONSTRAINT %I', parent, parent || '_pkey');
    EXECUTE format('ALTER TABLE app.%I ADD PRIMARY KEY (tenant_id, store_no, space_no, file_no, ordinal, shard_id)', parent);
    EXECUTE format('GRANT INSERT (space_no) ON app.%I TO bulkhead_runtime', parent);
  END LOOP;
END $$;
