INSERT INTO runs (run_id, parent, root, grp, grp_index, tenant_id, target, kind, input_id, job_id,
  idempotency_key, pool, priority, depth, status, position, reserved_tokens, reserved_micros, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', 1, ?, ?, ?)
RETURNING num
