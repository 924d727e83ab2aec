SELECT r.final_seq, r.run_id, coalesce(o.run_id, r.run_id),
  CASE WHEN p.run_id = r.job_id OR (p.target = 'retinue.batch' AND p.job_id = r.job_id) THEN r.job_id END, r.tenant_id,
  r.target, r.reason, r.finished_at
FROM runs r LEFT JOIN runs p ON p.num = r.parent LEFT JOIN runs o ON o.num = r.root
WHERE r.status = 'failed' AND r.final_seq > :after AND r.final_seq <= :settled ORDER BY r.final_seq LIMIT :limit
