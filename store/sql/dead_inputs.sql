-- Inputs that could not become a run, newest first; of one job if :job is given, one of them if :number is.
-- Those of a shard are its job's.
SELECT d.num, CASE WHEN r.target = 'retinue.batch' THEN coalesce(r.job_id, r.run_id) ELSE r.run_id END,
  d.source, d.line, d.reason, d.message, d.at, d.sealed, d.run_id, r.tenant_id
FROM dead_letters d LEFT JOIN runs r ON r.num = d.run
WHERE (CAST(:job AS TEXT) IS NULL OR r.run_id = :job OR (r.target = 'retinue.batch' AND r.job_id = :job))
  AND (CAST(:number AS BIGINT) IS NULL OR d.num = :number)
ORDER BY d.num DESC LIMIT :limit
