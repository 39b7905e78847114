-- Reads of one round trip: a statement that becomes the role of requests and the tenant itself, for as long as it lasts, and then reads under row-level
-- security like any other. No function here runs with its owner's rights: the login must be able to become bulkhead_runtime, as for every transaction.
-- They stand in `public`, where a login may look before it has become anybody.

-- The texts of a ranking that was made in memory, if the store still is what it was: one snapshot for the tenant's residence, the store and the texts. Nothing:
-- there is no such store. One row without a place: the store has another revision by now, or rows in other shards, or nothing was asked for. Raises BH001 as
-- app.enter_tenant does. The generic plan is made once a session: planning took longer than reading.
CREATE FUNCTION public.bulkhead_ranked_chunks(tenant text, store text, at_revision bigint, at_shards int[], file_nos int[], ordinals int[])
RETURNS TABLE (
  revision bigint, shards int[], last_active_at_ms bigint, expires_after_days int, place bigint, owner_id text, content bytea)
  LANGUAGE plpgsql SET search_path = pg_catalog SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  found record;
BEGIN
  PERFORM set_config('role', 'bulkhead_runtime', true), set_config('app.tenant_id', tenant, true);
  FOR found IN
    SELECT home.state, s.revision, s.shards, s.last_active_at_ms, s.expires_after_days, ranked.place, c.tenant_id AS owner_id, c.content
      FROM (SELECT (SELECT r.state FROM app.residence r) AS state) home
      LEFT JOIN (SELECT *, array_remove(ARRAY[shard_id, moving_to_shard], NULL) AS shards FROM app.vector_store) s ON s.id = store
      LEFT JOIN LATERAL unnest(file_nos, ordinals) WITH ORDINALITY AS ranked (file_no, ordinal, place)
        ON s.revision = at_revision AND s.shards <@ at_shards
      LEFT JOIN LATERAL (
           SELECT tenant_id, content FROM app.chunk
            WHERE shard_id = ANY (at_shards) AND store_no = s.store_no AND file_no = ranked.file_no AND ordinal = ranked.ordinal OFFSET 0) c ON true
     ORDER BY ranked.place
  LOOP
    IF found.state = 'gone' THEN RAISE EXCEPTION 'the tenant is not here' USING errcode = 'BH001'; END IF;
    CONTINUE WHEN found.revision IS NULL;
    revision := found.revision; shards := found.shards; last_active_at_ms := found.last_active_at_ms; expires_after_days := found.expires_after_days;
    place := found.place; owner_id := found.owner_id; content := found.content;
    RETURN NEXT;
  END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION public.bulkhead_ranked_chunks(text, text, bigint, int[], int[], int[]) TO PUBLIC;

-- The words of a question, in the order they stand in it. Reads nothing.
CREATE FUNCTION public.bulkhead_question_words(tenant text, language text, question text, words_max int) RETURNS TABLE (lexeme text)
  LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
  SELECT word.lexeme FROM unnest(to_tsvector(language::regconfig, question)) AS word ORDER BY word.positions[1], word.lexeme COLLATE "C" LIMIT words_max
$$;
GRANT EXECUTE ON FUNCTION public.bulkhead_question_words(text, text, text, int) TO PUBLIC;
