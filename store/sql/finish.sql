UPDATE runs SET status = :status, reason = :reason, position = :position, finished_at = :at, final = :final,
  final_seq = :final_seq, wake_at = NULL,
  steps = :steps, hops = :hops, input_tokens = :input_tokens, output_tokens = :output_tokens, micros = :micros
WHERE num = :num
RETURNING grp, reserved_tokens, reserved_micros,
  EXISTS (SELECT 1 FROM requests WHERE requests.run = :num AND requests.status = 'open'),
  tenant_id, account, kept_micros, charged
