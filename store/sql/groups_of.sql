SELECT key, total, pending, ok, failed, rejected, low, need, cursor, exhausted, reserved_tokens, reserved_micros,
  steps, hops, input_tokens, output_tokens, micros
FROM groups WHERE run = ?
