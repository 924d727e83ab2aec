UPDATE groups SET pending = pending - 1, ok = ok + :ok, failed = failed + 1 - :ok,
  reserved_tokens = reserved_tokens - :reserved_tokens, reserved_micros = reserved_micros - :reserved_micros,
  steps = steps + :steps, hops = hops + :hops, input_tokens = input_tokens + :input_tokens,
  output_tokens = output_tokens + :output_tokens, micros = micros + :micros
WHERE num = :num
RETURNING run, pending, low, need, ok, exhausted, EXISTS (SELECT 1 FROM runs r WHERE r.num = run AND r.final IS NOT NULL)
