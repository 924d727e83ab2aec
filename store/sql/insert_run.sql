INSERT INTO runs (num, run_id, parent, root, grp, held, grp_index, tenant_id, target, kind, input_id, job_id,
  idempotency_key, pool, queue, priority, depth, status, position, checkpoint_at, reserved_tokens, reserved_micros,
  created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?)
