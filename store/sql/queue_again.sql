UPDATE runs SET status = 'queued', reason = NULL, host = NULL, epoch = epoch + 1, position = position + 1,
  final = NULL, final_seq = NULL, finished_at = NULL, cancel = NULL, held = 0,
  pool = CASE pool WHEN 'workers' THEN pool ELSE 'runs' END,
  reserved_tokens = coalesce(:tokens, reserved_tokens), reserved_micros = coalesce(:micros, reserved_micros)
WHERE num = :num
RETURNING grp, reserved_tokens, reserved_micros, steps, hops, input_tokens, output_tokens, micros
