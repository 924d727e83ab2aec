-- Parks those that have seen all their news; the others are not among the rows and go on.
WITH wanted AS MATERIALIZED (
  SELECT * FROM unnest(:num::bigint[], :epoch::bigint[], :position::bigint[], :seen::bigint[], :status::text[],
    :reason::text[], :wake_at::bigint[], :at::bigint[], :facts::bytea[], :sealed::bytea[])
    AS w (num, epoch, position, seen, status, reason, wake_at, at, facts, sealed)),
parked AS (
  UPDATE runs r SET status = w.status, reason = w.reason, wake_at = w.wake_at, position = w.position, parked_at = w.at,
    host = NULL
  FROM wanted w WHERE r.num = w.num AND r.news = w.seen
  RETURNING r.num, w.position, w.epoch, w.facts, w.sealed),
written AS (
  INSERT INTO journal (run, position, epoch, schema, facts, sealed)
  SELECT num, position, epoch, :schema, facts, sealed FROM parked)
SELECT num FROM parked
