UPDATE groups SET pending = pending + 1, failed = failed - 1,
  reserved_tokens = reserved_tokens + :reserved_tokens, reserved_micros = reserved_micros + :reserved_micros,
  steps = steps - :steps, hops = hops - :hops, input_tokens = input_tokens - :input_tokens,
  output_tokens = output_tokens - :output_tokens, micros = micros - :micros
WHERE num = :num
