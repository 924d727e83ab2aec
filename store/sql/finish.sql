UPDATE runs SET status = :status, reason = :reason, finished_at = :at, final = :final,
  final_seq = (SELECT seq FROM journal WHERE run = :num AND position = :final), wake_at = NULL,
  steps = :steps, hops = :hops, input_tokens = :input_tokens, output_tokens = :output_tokens, micros = :micros
WHERE num = :num
RETURNING grp, reserved_tokens, reserved_micros
