-- Files, vector stores and what is found in them, and the queue of the work that fills them.
-- Numbers (store_no, file_no) are counted per tenant: they keep the rows that are scanned narrow and say nothing about other tenants.
SET LOCAL ROLE bulkhead_owner;

-- Counters that quotas are checked against, in the row whose lock makes the check exact under concurrency.
CREATE TABLE app.document_quota (
  tenant_id     text NOT NULL DEFAULT app.current_tenant() PRIMARY KEY,
  files         bigint NOT NULL DEFAULT 0,
  file_bytes    bigint NOT NULL DEFAULT 0,
  vector_stores bigint NOT NULL DEFAULT 0,
  next_store_no int NOT NULL DEFAULT 1
);
SELECT control.protect_tenant_table('app.document_quota', ARRAY['SELECT', 'INSERT', 'UPDATE']);

CREATE TABLE app.file (
  tenant_id     text NOT NULL DEFAULT app.current_tenant(),
  id            text NOT NULL,
  filename      text NOT NULL,
  purpose       text NOT NULL,
  bytes         bigint NOT NULL,
  sha256        text NOT NULL,
  created_at_ms bigint NOT NULL,
  expires_at_ms bigint,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX file_by_age ON app.file (tenant_id, created_at_ms, id);
SELECT control.protect_tenant_table('app.file');

-- A body in parts, so that neither side of the connection holds it twice in one message.
CREATE TABLE app.file_part (
  tenant_id text NOT NULL DEFAULT app.current_tenant(),
  file_id   text NOT NULL,
  part_no   int NOT NULL,
  body      bytea NOT NULL,
  PRIMARY KEY (tenant_id, file_id, part_no),
  FOREIGN KEY (tenant_id, file_id) REFERENCES app.file ON DELETE CASCADE
);
-- Uploads are mostly compressed already.
ALTER TABLE app.file_part ALTER body SET STORAGE EXTERNAL;
SELECT control.protect_tenant_table('app.file_part', ARRAY['SELECT', 'INSERT', 'DELETE']);

-- Partitions of the retrieval tables. Pooled shards (0 to 3) hold many tenants; a dedicated shard (from 1000) holds exactly one.
CREATE TABLE control.shard (
  shard_id  int PRIMARY KEY,
  tenant_id text UNIQUE REFERENCES control.tenant,
  CHECK ((shard_id >= 1000) = (tenant_id IS NOT NULL))
);
GRANT SELECT ON control.shard TO bulkhead_control;

-- Where a tenant's new stores go.
CREATE FUNCTION app.home_shard() RETURNS int
  LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT (hashtext(app.current_tenant()) & 3)';
GRANT EXECUTE ON FUNCTION app.home_shard() TO bulkhead_runtime;

CREATE TABLE app.vector_store (
  tenant_id            text NOT NULL DEFAULT app.current_tenant(),
  id                   text NOT NULL,
  store_no             int NOT NULL,
  shard_id             int NOT NULL DEFAULT app.home_shard(),
  name                 text NOT NULL,
  description          text,
  metadata             jsonb NOT NULL,
  created_at_ms        bigint NOT NULL,
  last_active_at_ms    bigint NOT NULL,
  expires_after_days   int,
  embedding_model      text NOT NULL,
  embedding_dimensions int NOT NULL CHECK (embedding_dimensions IN (384, 768, 1024, 1536, 3072)),
  -- Text search configuration of its documents and questions.
  language             text NOT NULL,
  next_file_no         int NOT NULL DEFAULT 1,
  usage_bytes          bigint NOT NULL DEFAULT 0,
  -- Statistics of BM25: of this store alone, and of visible chunks alone.
  chunk_count          bigint NOT NULL DEFAULT 0,
  term_count           bigint NOT NULL DEFAULT 0,
  -- Raised by every transaction that changes what a search can see; caches compare it.
  revision             bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, id),
  UNIQUE (tenant_id, store_no)
);
CREATE INDEX vector_store_by_age ON app.vector_store (tenant_id, created_at_ms, id);
SELECT control.protect_tenant_table('app.vector_store');
-- Placement is the operator's: a tenant's transaction cannot name the shard.
REVOKE INSERT (shard_id), UPDATE (shard_id) ON app.vector_store FROM bulkhead_runtime;

CREATE TABLE app.vector_store_file (
  tenant_id        text NOT NULL DEFAULT app.current_tenant(),
  store_no         int NOT NULL,
  file_no          int NOT NULL,
  file_id          text NOT NULL,
  status           text NOT NULL DEFAULT 'in_progress' CHECK (status IN ('in_progress', 'completed', 'failed', 'cancelled')),
  -- The attempt whose hidden chunks may be there. Only in progress: whatever ends it removes them or shows them.
  draft            text CHECK (draft IS NULL OR status = 'in_progress'),
  error_code       text,
  error_message    text,
  attributes       jsonb NOT NULL CHECK (jsonb_typeof(attributes) = 'object'),
  chunking_type    text NOT NULL,
  max_chunk_tokens int NOT NULL,
  overlap_tokens   int NOT NULL,
  created_at_ms    bigint NOT NULL,
  usage_bytes      bigint NOT NULL DEFAULT 0,
  chunk_count      bigint NOT NULL DEFAULT 0,
  term_count       bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, store_no, file_no),
  UNIQUE (tenant_id, store_no, file_id),
  FOREIGN KEY (tenant_id, store_no) REFERENCES app.vector_store (tenant_id, store_no) ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, file_id) REFERENCES app.file
);
CREATE INDEX vector_store_file_by_file ON app.vector_store_file (tenant_id, file_id);
CREATE INDEX vector_store_file_drafts ON app.vector_store_file (tenant_id, store_no, file_no) WHERE draft IS NOT NULL;
SELECT control.protect_tenant_table('app.vector_store_file');

CREATE TABLE app.file_batch (
  tenant_id     text NOT NULL DEFAULT app.current_tenant(),
  id            text NOT NULL,
  store_no      int NOT NULL,
  created_at_ms bigint NOT NULL,
  cancelled     boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, store_no) REFERENCES app.vector_store (tenant_id, store_no) ON DELETE CASCADE
);
CREATE INDEX file_batch_by_store ON app.file_batch (tenant_id, store_no);
SELECT control.protect_tenant_table('app.file_batch');

CREATE TABLE app.file_batch_file (
  tenant_id text NOT NULL DEFAULT app.current_tenant(),
  batch_id  text NOT NULL,
  store_no  int NOT NULL,
  file_no   int NOT NULL,
  PRIMARY KEY (tenant_id, batch_id, file_no),
  FOREIGN KEY (tenant_id, batch_id) REFERENCES app.file_batch ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, store_no, file_no) REFERENCES app.vector_store_file ON DELETE CASCADE
);
CREATE INDEX file_batch_file_by_file ON app.file_batch_file (tenant_id, store_no, file_no);
SELECT control.protect_tenant_table('app.file_batch_file', ARRAY['SELECT', 'INSERT', 'DELETE']);

CREATE TABLE app.chunk (
  tenant_id  text NOT NULL DEFAULT app.current_tenant(),
  shard_id   int NOT NULL,
  store_no   int NOT NULL,
  file_no    int NOT NULL,
  ordinal    int NOT NULL,
  term_count int NOT NULL,
  content    text NOT NULL,
  PRIMARY KEY (tenant_id, store_no, file_no, ordinal, shard_id),
  FOREIGN KEY (tenant_id, store_no, file_no) REFERENCES app.vector_store_file ON DELETE CASCADE
) PARTITION BY LIST (shard_id);

-- One row for each word of each chunk. No unique key and no foreign key: both would double the cost of indexing, and rows are only
-- written and removed together with their chunk. The keys of both indexes repeat, so PostgreSQL stores them once (deduplication).
CREATE TABLE app.posting (
  tenant_id  text NOT NULL DEFAULT app.current_tenant(),
  shard_id   int NOT NULL,
  store_no   int NOT NULL,
  file_no    int NOT NULL,
  ordinal    int NOT NULL,
  -- Words in the chunk, repeated here so that ranking does not join.
  term_count int NOT NULL,
  frequency  smallint NOT NULL,
  lexeme     text COLLATE "C" NOT NULL
) PARTITION BY LIST (shard_id);
CREATE INDEX posting_by_lexeme ON app.posting (tenant_id, store_no, lexeme);
-- file_no before store_no: without statistics the planner took (tenant_id, store_no, file_no) for the search as well, and read the whole store
-- for every word.
CREATE INDEX posting_by_file ON app.posting (tenant_id, file_no, store_no);

-- Vectors live alone, so that an exact scan reads nothing else; one table for each dimension, so that the type checks it.
-- A vector of 3,072 float32 does not fit a page; half precision does.
CREATE FUNCTION control.create_embedding_table(dimensions int, kind text) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
  EXECUTE format(
    'CREATE TABLE app.%I ('
    '  tenant_id text NOT NULL DEFAULT app.current_tenant(), shard_id int NOT NULL, store_no int NOT NULL, file_no int NOT NULL, ordinal int NOT NULL,'
    '  embedding %s NOT NULL,'
    '  PRIMARY KEY (tenant_id, store_no, file_no, ordinal, shard_id),'
    '  FOREIGN KEY (tenant_id, store_no, file_no) REFERENCES app.vector_store_file ON DELETE CASCADE'
    ') PARTITION BY LIST (shard_id)', 'embedding_' || dimensions, format('%s(%s)', kind, dimensions));
  -- Inline and uncompressed: a detached vector costs a second lookup for every row of a scan.
  EXECUTE format('ALTER TABLE app.%I ALTER embedding SET STORAGE PLAIN', 'embedding_' || dimensions);
END $$;
SELECT control.create_embedding_table(384, 'vector');
SELECT control.create_embedding_table(768, 'vector');
SELECT control.create_embedding_table(1024, 'vector');
SELECT control.create_embedding_table(1536, 'vector');
SELECT control.create_embedding_table(3072, 'halfvec');

-- A partition in every retrieval table. CREATE and ATTACH, not PARTITION OF: running queries are not blocked.
CREATE FUNCTION control.create_shard(new_shard int, owner_tenant text DEFAULT NULL) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
  parent text;
  leaf text;
BEGIN
  INSERT INTO control.shard VALUES (new_shard, owner_tenant);
  FOREACH parent IN ARRAY ARRAY['chunk', 'posting', 'embedding_384', 'embedding_768', 'embedding_1024', 'embedding_1536', 'embedding_3072'] LOOP
    leaf := parent || '_s' || new_shard;
    EXECUTE format('CREATE TABLE app.%I (LIKE app.%I INCLUDING ALL)', leaf, parent);
    EXECUTE format('ALTER TABLE app.%I ADD CONSTRAINT one_shard CHECK (shard_id = %s)', leaf, new_shard);
    IF owner_tenant IS NOT NULL THEN
      EXECUTE format('ALTER TABLE app.%I ADD CONSTRAINT one_tenant CHECK (tenant_id = %L)', leaf, owner_tenant);
    END IF;
    EXECUTE format('ALTER TABLE app.%I ENABLE ROW LEVEL SECURITY', leaf);
    EXECUTE format('ALTER TABLE app.%I FORCE ROW LEVEL SECURITY', leaf);
    EXECUTE format('REVOKE ALL ON app.%I FROM PUBLIC', leaf);
    EXECUTE format('ALTER TABLE app.%I ATTACH PARTITION app.%I FOR VALUES IN (%s)', parent, leaf, new_shard);
  END LOOP;
END $$;
SELECT control.create_shard(shard) FROM generate_series(0, 3) AS shard;

SELECT control.protect_tenant_table(format('app.%s', name)::regclass, ARRAY['SELECT', 'INSERT', 'DELETE'])
  FROM unnest(ARRAY['chunk', 'posting', 'embedding_384', 'embedding_768', 'embedding_1024', 'embedding_1536', 'embedding_3072']) AS name;

-- Approximate indexes that span tenants. Must be empty, always: a shared graph answers with other tenants' density.
CREATE VIEW control.approximate_index_violation AS
  SELECT i.indexrelid::regclass AS index_name, i.indrelid::regclass AS table_name
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
   WHERE a.amname IN ('hnsw', 'ivfflat', 'diskann', 'vchordrq', 'bm25')
     AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = i.indrelid AND k.conname = 'one_tenant' AND k.convalidated);
GRANT SELECT ON control.approximate_index_violation TO bulkhead_control;

-- Background work. References only, no content. A tenant's transaction may add a job and can neither see one nor name another tenant;
-- who a job works for is proved by its envelope alone.
CREATE TABLE control.job (
  id             text PRIMARY KEY,
  tenant_id      text NOT NULL DEFAULT app.current_tenant(),
  sequence       bigint GENERATED ALWAYS AS IDENTITY,
  kind           text NOT NULL,
  payload        jsonb NOT NULL,
  envelope       text NOT NULL,
  created_at_ms  bigint NOT NULL,
  ready_at_ms    bigint NOT NULL,
  attempts       int NOT NULL DEFAULT 0,
  lease          text,
  lease_until_ms bigint,
  -- Set for a job that an operator must look at; it is never claimed again.
  buried_reason  text
);
CREATE INDEX job_by_tenant ON control.job (tenant_id, sequence) WHERE buried_reason IS NULL;
-- When each tenant was served last, for taking turns.
CREATE TABLE control.job_turn (
  tenant_id text PRIMARY KEY,
  served    bigint NOT NULL
);
CREATE SEQUENCE control.job_served;
GRANT USAGE ON SCHEMA control TO bulkhead_runtime;
GRANT INSERT (id, kind, payload, envelope, created_at_ms, ready_at_ms) ON control.job TO bulkhead_runtime;
GRANT SELECT, UPDATE, DELETE ON control.job TO bulkhead_control;
GRANT SELECT, INSERT, UPDATE ON control.job_turn TO bulkhead_control;
GRANT USAGE ON SEQUENCE control.job_served TO bulkhead_control;
