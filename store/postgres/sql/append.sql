-- A batch of appends, each under its fence; those that are refused are not among the rows. One row a run.
-- Each run is found by its number (`|| ''`: not by the index of those in progress), and no part is joined with another:
-- what the fence lets through carries with it all that is written of it.
WITH wanted AS MATERIALIZED (
  SELECT * FROM unnest(:num::bigint[], :epoch::bigint[], :expected::bigint[], :position::bigint[], :seen::bigint[],
    :checkpoint::bigint[], :status::text[], :reason::text[], :at::bigint[], :steps::bigint[], :hops::bigint[],
    :input_tokens::bigint[], :output_tokens::bigint[], :micros::bigint[], :facts::bytea[], :sealed::bytea[])
    AS w (num, epoch, expected, position, seen, checkpoint, status, reason, at, steps, hops, input_tokens,
      output_tokens, micros, facts, sealed)),
fenced AS (
  UPDATE runs r SET position = w.position, seen = coalesce(w.seen, r.seen),
    checkpoint_at = coalesce(w.checkpoint, r.checkpoint_at), status = coalesce(w.status, r.status),
    host = CASE w.status WHEN 'queued' THEN NULL ELSE r.host END, reason = coalesce(w.reason, r.reason),
    finished_at = coalesce(w.at, r.finished_at),
    final = CASE WHEN w.at IS NULL THEN r.final ELSE w.expected + 1 END,
    final_seq = CASE WHEN w.at IS NULL THEN r.final_seq ELSE nextval('journal_seq') END,
    wake_at = CASE WHEN w.at IS NULL THEN r.wake_at END, steps = coalesce(w.steps, r.steps),
    hops = coalesce(w.hops, r.hops), input_tokens = coalesce(w.input_tokens, r.input_tokens),
    output_tokens = coalesce(w.output_tokens, r.output_tokens), micros = coalesce(w.micros, r.micros)
  FROM wanted w WHERE r.num = w.num AND r.epoch = w.epoch AND r.position = w.expected
    AND r.status || '' = 'in_progress'
  RETURNING r.num, r.grp, r.reserved_tokens, r.reserved_micros, CASE WHEN w.at IS NOT NULL THEN r.final_seq END AS seq,
    w.expected, w.epoch, w.facts, w.sealed, r.tenant_id, r.account, r.kept_micros, r.charged,
    CASE WHEN w.at IS NOT NULL THEN
      (SELECT ARRAY[CAST(coalesce(sum(g.reserved_micros), 0) AS bigint), CAST(coalesce(sum(g.micros), 0) AS bigint)]
       FROM groups g WHERE g.run = r.num) END AS below),
written AS (
  INSERT INTO journal (seq, run, position, epoch, schema, facts, sealed)
  SELECT coalesce(seq, nextval('journal_seq')), num, expected + 1, epoch, :schema, facts, sealed
  FROM fenced WHERE facts IS NOT NULL)
SELECT num, grp, reserved_tokens, reserved_micros, tenant_id, account, kept_micros, charged, below FROM fenced
