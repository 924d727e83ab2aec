INSERT INTO runs (num, run_id, parent, root, grp, held, grp_index, tenant_id, target, kind, input_id, job_id,
  idempotency_key, pool, queue, priority, depth, status, position, checkpoint_at, reserved_tokens, reserved_micros,
  created_at)
SELECT num, run_id, parent, root, grp, held, grp_index, tenant_id, target, kind, input_id, job_id,
  idempotency_key, pool, queue, priority, depth, 'queued', position, checkpoint_at, reserved_tokens, reserved_micros,
  created_at
FROM unnest(?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::text[],
  ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[],
  ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[])
  AS w (num, run_id, parent, root, grp, held, grp_index, tenant_id, target, kind, input_id, job_id,
    idempotency_key, pool, queue, priority, depth, position, checkpoint_at, reserved_tokens, reserved_micros, created_at)
