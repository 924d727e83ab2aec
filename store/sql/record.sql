SELECT r.run_id, p.run_id AS parent_run_id, coalesce(o.run_id, r.run_id) AS root_run_id, r.tenant_id, r.target,
  r.kind, r.input_id, r.job_id, r.pool, r.queue, r.priority, r.depth, r.status, r.held, r.reason, r.epoch, r.position,
  r.created_at,
  r.started_at, r.finished_at, r.wake_at, r.cancel, r.steps, r.hops, r.input_tokens, r.output_tokens, r.micros,
  hosts.actor_id, hosts.pid, hosts.node, r.num
FROM runs r LEFT JOIN runs p ON p.num = r.parent LEFT JOIN runs o ON o.num = r.root
LEFT JOIN hosts ON hosts.num = r.host
