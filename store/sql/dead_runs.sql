-- Runs that failed for good: top-level ones, and rows of jobs and of their shards; of one job if :job is given.
SELECT r.num FROM runs r LEFT JOIN runs p ON p.num = r.parent
WHERE r.status = 'failed'
  AND (r.parent IS NULL OR (r.target != 'retinue.batch'
    AND (r.job_id = p.run_id OR (p.target = 'retinue.batch' AND r.job_id = p.job_id))))
  AND (CAST(:job AS TEXT) IS NULL OR p.run_id = :job OR (p.target = 'retinue.batch' AND p.job_id = :job))
ORDER BY r.finished_at DESC, r.num DESC LIMIT :limit
