-- What the vector stores here are embedded with. A question embedded by another model would find nothing sensible in them, so a process that is
-- configured otherwise does not start. Written with the first store, by whichever tenant makes it; says nothing about any tenant.
SET LOCAL ROLE bulkhead_owner;
CREATE TABLE control.embedding_setting (
  only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  model      text NOT NULL,
  dimensions int NOT NULL
);
GRANT INSERT (model, dimensions) ON control.embedding_setting TO bulkhead_runtime;
GRANT SELECT ON control.embedding_setting TO bulkhead_control;
