-- The parent is locked first: whether it has ended is known for sure, and its own end finds the group as it is then.
WITH parent AS MATERIALIZED (
  SELECT r.num, r.final FROM runs r JOIN groups g ON g.run = r.num WHERE g.num = :num FOR NO KEY UPDATE OF r)
UPDATE groups SET pending = pending - 1, ok = ok + :ok, failed = failed + 1 - :ok,
  reserved_tokens = reserved_tokens - :reserved_tokens, reserved_micros = reserved_micros - :reserved_micros,
  steps = steps + :steps, hops = hops + :hops, input_tokens = input_tokens + :input_tokens,
  output_tokens = output_tokens + :output_tokens, micros = micros + :micros
FROM parent WHERE groups.num = :num
RETURNING run, pending, low, need, ok, exhausted, CAST((parent.final IS NOT NULL) AS integer)
